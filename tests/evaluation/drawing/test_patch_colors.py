import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.decomposition import PCA

from curate.evaluation.drawing.patch_colors import BACKGROUND, color_patches, principal_scores

HEIGHT, WIDTH, DIM = 8, 10, 12


def planted(seed: int = 0, *, num: int = 2) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures of one object, its halves a little apart, before a background far away; (h, w) bool of the object."""
    rng = np.random.default_rng(seed)
    background, left, right = (rng.normal(size=DIM) for _ in range(3))
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[2:6, 3:8] = True
    means = np.broadcast_to(10 * background, (HEIGHT, WIDTH, DIM)).copy()
    means[2:6, 3:8] = left
    means[2:6, 5:8] = left + 2 * right
    return [means + 0.1 * rng.normal(size=means.shape) for _ in range(num)], inside


def test_scores_equal_those_of_scikit_learn_up_to_the_signs() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 7)) * np.arange(1, 8)
    expected = PCA(3).fit_transform(rows)
    found = principal_scores(rows, 3)
    np.testing.assert_allclose(found * np.sign((found * expected).sum(axis=0)), expected, atol=1e-9)


def test_components_beyond_the_rank_are_zero() -> None:
    rows = np.outer(np.arange(5.0), [1.0, 2.0, 0.0])
    found = principal_scores(rows, 4)
    np.testing.assert_allclose(np.abs(found[:, 0]), np.abs(np.arange(5) - 2) * 5**0.5)
    np.testing.assert_array_equal(found[:, 1:], np.zeros((5, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_the_foreground_is_the_object_whatever_the_sign_of_the_component(seed: int) -> None:
    patches, inside = planted(seed)
    turned = ortho_group.rvs(DIM, random_state=seed)
    for features in (patches, [-part for part in patches], [part @ turned for part in patches]):
        for seen in color_patches(features):
            np.testing.assert_array_equal(seen.foreground, inside)
            assert (seen.colors[~inside] == BACKGROUND).all()


def test_a_share_as_threshold_is_the_share_of_background() -> None:
    patches, _ = planted()
    for share in (0.25, 0.5, 0.9):
        found = np.concatenate([seen.foreground.ravel() for seen in color_patches(patches, threshold=share)])
        assert found.mean() == pytest.approx(1 - share, abs=1 / found.size)


def test_threshold_zero_leaves_no_background() -> None:
    assert all(seen.foreground.all() for seen in color_patches(planted()[0], threshold=0))


def test_alike_patches_have_alike_colors_in_every_picture_and_unlike_ones_others() -> None:
    first, second = color_patches(planted()[0])
    left, right = (slice(2, 6), slice(3, 5)), (slice(2, 6), slice(5, 8))
    main = [seen.colors[part].reshape(-1, 3).mean(axis=0) for seen in (first, second) for part in (left, right)]
    np.testing.assert_allclose(main[0], main[2], atol=40)
    np.testing.assert_allclose(main[1], main[3], atol=40)
    assert np.abs(main[0] - main[1]).max() > 200


def test_pictures_are_colored_together() -> None:
    patches, _ = planted()
    alone = color_patches(patches[:1])[0].colors
    assert not np.array_equal(color_patches([patches[0], patches[1] + 3.0])[0].colors, alone)


def test_single_patches_do_not_set_the_scale() -> None:
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(30, 30, 4))
    patches[10, 10] = 1e4
    seen = color_patches([patches], threshold=0)[0]
    assert np.median(seen.colors[..., 1:].astype(float).std(axis=(0, 1))) > 30


def test_pictures_of_other_shapes_keep_them() -> None:
    rng = np.random.default_rng(0)
    shapes = [(1, 2), (2, 5), (7, 3)]
    found = color_patches([rng.normal(size=(*shape, 6)) for shape in shapes])
    assert [seen.colors.shape for seen in found] == [(*shape, 3) for shape in shapes]


@pytest.mark.parametrize("threshold", ["sign", 0.0])
def test_features_without_any_spread_give_one_color(threshold: float) -> None:
    seen = color_patches([np.ones((4, 4, 5))], threshold=threshold)[0]
    assert len(np.unique(seen.colors.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_out_of_range_is_an_error(threshold: float) -> None:
    with pytest.raises(ValueError, match=f'threshold {threshold:g}: "sign", or a share of 0 to below 1 is needed'):
        color_patches(planted()[0], threshold=threshold)


@pytest.mark.parametrize("patches", [[], [np.ones((2, 2, 3)), np.ones((2, 2, 4))]])
def test_patches_of_one_width_are_needed(patches: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="no patches of one width: give those of at least one picture"):
        color_patches(patches)
