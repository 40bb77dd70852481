"""Scores of copy detection against brute force, and a small real measurement."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.copies import (
    PHOTOS,
    EditedPictures,
    as_json,
    choose_thresholds,
    format_copies,
    hash_similarity,
    load_pictures,
    measure_copies,
    plant_copies,
    score_edges,
)
from curate.errors import ConfigError, SourceError
from curate.ops.images.edits import EDITS
from curate.ops.images.hashes import MATCH_BITS, bits_to_cosine, dihedral, pdq


def random_case(seed, num=12):
    """A symmetric similarity of few distinct values, so that ties abound, and sources of the images."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.random((num, num)), 1).astype(np.float32)
    return np.maximum(values, values.T), rng.integers(0, 4, num)


def brute_force(similarity, source, threshold):
    pairs = list(itertools.combinations(range(len(source)), 2))
    found = [(i, j) for i, j in pairs if similarity[i, j] >= threshold]
    hits = sum(source[i] == source[j] for i, j in found)
    true = sum(source[i] == source[j] for i, j in pairs)
    precision, recall = hits / len(found) if found else 1.0, hits / true if true else 1.0
    f1 = 2 * hits / (len(found) + true) if found or true else 0.0  # one rounding, so that equal scores are equal
    return precision, recall, f1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_chosen_thresholds_are_the_best_of_all(seed):
    similarity, source = random_case(seed)
    best, precise = choose_thresholds(similarity, source, precision=0.8)
    scores = {t: brute_force(similarity, source, t) for t in np.unique(similarity[np.triu_indices(12, 1)])}
    assert scores[np.float32(best)][2] == max(f1 for _, _, f1 in scores.values())
    enough = [recall for precision, recall, _ in scores.values() if precision >= 0.8]
    if not enough:
        assert precise == float("inf")
    else:
        assert scores[np.float32(precise)][0] >= 0.8
        assert scores[np.float32(precise)][1] == max(enough)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_scores_equal_brute_force(seed):
    similarity, source = random_case(seed)
    planted = EditedPictures([], source, [()] * 12)
    everything = np.ones(12, dtype=bool)
    score = score_edges(
        similarity >= 0.7, planted, everything, method="m", chosen="c", threshold=0.7, images_per_second=1.0
    )
    assert (score.precision, score.recall, score.f1) == pytest.approx(brute_force(similarity, source, 0.7))


def test_chains_join_in_components_and_only_the_test_images_count():
    source = np.array([0, 0, 0, 1, 2])
    edges = np.eye(5, dtype=bool)
    for i, j in ((0, 1), (1, 2), (2, 3), (3, 4)):
        edges[i, j] = edges[j, i] = True
    planted = EditedPictures([], source, [(), ("crop",), ("crop", "flip"), (), ()])
    test = np.array([True, True, True, True, False])
    score = score_edges(edges, planted, test, method="m", chosen="c", threshold=0.5, images_per_second=1.0)
    assert (score.precision, score.recall) == pytest.approx((2 / 3, 2 / 3))  # 01 12 are true, 23 is not
    assert (score.component_precision, score.component_recall) == pytest.approx((3 / 6, 1.0))
    assert score.recall_by_edit == {"crop": 0.5, "flip": 0.0}  # to the original: 1 is joined, 2 is not


def test_planting_is_seeded_and_names_sources_and_edits():
    pictures = load_pictures(PHOTOS, 4)
    first, again, other = (plant_copies(pictures, 3, max_edits=2, seed=seed) for seed in (1, 1, 2))
    assert first.source.tolist() == [0, 1, 2, 3, *[0] * 3, *[1] * 3, *[2] * 3, *[3] * 3]
    assert first.edits == again.edits != other.edits
    assert all(np.array_equal(a, b) for a, b in zip(first.pictures, again.pictures, strict=True))
    assert all(1 <= len(chain) <= 2 and set(chain) <= set(EDITS) for chain in first.edits[4:])


def test_hash_similarity_is_the_nearest_orientation():
    pictures = load_pictures(PHOTOS, 4)
    pictures += [pictures[0].transpose(Image.Transpose.ROTATE_90)]
    similarity, _ = hash_similarity(pictures)
    hashes = np.array([np.frombuffer(pdq(picture)[0], np.uint8) for picture in pictures])
    distance = np.unpackbits(dihedral(hashes)[:, :, None] ^ hashes, axis=-1).sum(axis=-1).min(axis=1)  # (N, N)
    np.testing.assert_allclose(similarity, 1 - np.minimum(distance, distance.T) / 128, atol=1e-6)
    assert similarity[0, 4] >= bits_to_cosine(MATCH_BITS) > similarity[1, 4]


def test_union_finds_what_either_method_finds():
    scores = measure_copies(num_pictures=12, copies_each=2, max_edits=1, models=["lite0-copy"], device="cpu")
    default = {score.method: score for score in scores if score.chosen == "default"}
    assert set(default) == {"pdq", "lite0-copy", "lite0-copy + pdq", "lite0-copy verified + pdq"}
    assert default["lite0-copy verified + pdq"].recall >= default["lite0-copy + pdq"].recall
    union = default["lite0-copy + pdq"]
    assert union.recall >= max(default["pdq"].recall, default["lite0-copy"].recall) > 0
    assert union.precision == 1.0
    text = format_copies(scores)
    assert len(text.splitlines()) == 1 + len(scores)
    assert "lite0-copy + pdq" in text
    assert [row["f1"] for row in json.loads(as_json(scores))] == [score.f1 for score in scores]


def test_too_few_pictures_and_no_edits_are_errors(tmp_path):
    with pytest.raises(SourceError, match="0 usable pictures, at least 4 are needed"):
        measure_copies(tmp_path)
    with pytest.raises(ConfigError, match="copies_each=0, max_edits=3: both must be 1 or more"):
        measure_copies(copies_each=0)
