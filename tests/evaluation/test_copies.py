import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from curate.errors import SourceError
from curate.evaluation import copies
from curate.evaluation.copies import choose_pictures, embed_copies, make_copy, score_copies
from curate.evaluation.features import embed_images
from curate.evaluation.labeled import from_arrays
from curate.ops.images.edits import MIN_SIDE
from tests.evaluation.backbones import of_pictures, vit_backbone


def vectors(n: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit originals and noisy copies of them."""
    rng = np.random.default_rng(seed)
    originals = rng.normal(size=(n, 8))
    both = (originals, originals + rng.normal(0, noise, (n, 8)))
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in both)  # type: ignore[return-value]


def halves(n: int) -> np.ndarray:
    return np.random.default_rng(1).permutation(n) < n // 2


@pytest.mark.parametrize("noise", [0.1, 0.6])
def test_micro_average_precision_equals_one_list_of_all_answers(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    originals, edited = vectors(40, noise=noise)
    is_reference = halves(40)
    references = np.flatnonzero(is_reference)
    similarity = edited @ originals[references].T
    true = references == np.arange(40)[:, None]
    monkeypatch.setattr(copies, "ANSWERS", 40)
    found = score_copies(originals, edited, is_reference, seed=0)
    assert found.micro_ap == pytest.approx(average_precision_score(true.ravel(), similarity.ravel()))
    monkeypatch.setattr(copies, "ANSWERS", 3)
    pairs = sorted(
        ((similarity[q, r], references[r] == q) for q in range(40) for r in np.argsort(-similarity[q])[:3]),
        key=lambda pair: -pair[0],
    )
    hits = np.array([hit for _, hit in pairs])
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    few = score_copies(originals, edited, is_reference, seed=0)
    assert few.micro_ap == pytest.approx((precision * hits).sum() / 20)
    recalls = np.cumsum(hits) / 20
    assert few.recall_at_90 == pytest.approx(recalls[precision >= 0.9].max(initial=0))


def test_copies_that_equal_their_originals_are_all_found() -> None:
    originals, _ = vectors(30, noise=0)
    found = score_copies(originals, originals, halves(30), seed=0)
    assert (found.micro_ap, found.recall_at_90) == (1.0, 1.0)
    np.testing.assert_allclose(found.micro_ap_draws, 1.0)


def test_a_model_that_sees_no_difference_finds_one_in_as_many_answers() -> None:
    same = np.ones((40, 8)) / np.sqrt(8)
    found = score_copies(same, same, halves(40), seed=0)
    assert found.micro_ap <= 1 / 40
    assert found.recall_at_90 == 0


def test_bootstrap_draws_spread_as_repeated_measurements_do() -> None:
    values, draws = [], []
    for seed in range(60):
        found = score_copies(*vectors(100, noise=0.5, seed=seed), halves(100), seed=seed)
        values.append(found.micro_ap)
        draws.append(found.micro_ap_draws.std())
    assert np.mean(draws) == pytest.approx(np.std(values), rel=0.35)


def test_models_measured_with_one_seed_meet_the_same_draws() -> None:
    originals, edited = vectors(30, noise=0.4)
    first, again = (score_copies(originals, edited, halves(30), seed=2) for _ in range(2))
    np.testing.assert_array_equal(first.micro_ap_draws, again.micro_ap_draws)


def test_half_of_the_pictures_are_references() -> None:
    rows, is_reference = choose_pictures(9, seed=0, where="here")
    assert rows.tolist() == list(range(9))
    assert is_reference.sum() == 5
    assert choose_pictures(9, seed=1, where="here")[1].tolist() != is_reference.tolist()
    with pytest.raises(SourceError, match="here: 3 pictures, at least 4 are needed"):
        choose_pictures(3, seed=0, where="here")


def test_large_sets_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MAX_PICTURES", 6)
    rows, is_reference = choose_pictures(50, seed=0, where="here")
    assert len(np.unique(rows)) == len(is_reference) == 6
    assert (np.diff(rows) > 0).all()


def test_copies_are_the_seeds_and_differ_from_their_originals() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    first, again, other = (np.asarray(make_copy(lambda: picture, [0, row])) for row in (1, 1, 2))
    assert min(first.shape[:2]) >= MIN_SIDE * 0.7  # enlarged, then perhaps cropped
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def test_copies_are_embedded_as_pictures_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    backbone, pictures = vit_backbone(), from_arrays(images, np.zeros(12, np.int64), name="planted")
    rows = np.arange(0, 12, 2)
    found = embed_copies(backbone, pictures, rows, seed=3)
    edited = [make_copy(decode, [3, row]) for row, decode in zip(rows.tolist(), pictures.pictures(rows), strict=True)]
    np.testing.assert_allclose(found, embed_images(backbone, of_pictures(edited)), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 100_000), (100_000, 1)])
def test_copies_of_strips_and_points_are_made_of_their_middle(size: tuple[int, int]) -> None:
    for seed in range(4):
        copy = make_copy(lambda: Image.new("RGB", size, "teal"), [seed])
        assert max(copy.size) <= 64 * MIN_SIDE
