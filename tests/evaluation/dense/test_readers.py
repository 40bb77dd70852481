"""Readers of patches: ridge regression beside scikit-learn, votes and matches beside brute force."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

from curate.evaluation.dense.discriminant import SHRINKAGES, choose_shrinkage, fit_discriminant
from curate.evaluation.dense.following import NEAREST, TEMPERATURE, follow
from curate.evaluation.dense.matching import match_points, sample, share_within
from curate.evaluation.dense.pooling import pool_depth, pool_labels
from curate.evaluation.dense.ridge import Moments, fit_ridge, predict
from curate.evaluation.dense.votes import TEMPERATURE as VOTE_TEMPERATURE
from curate.evaluation.dense.votes import Memory


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moments_of(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, *, pieces: int = 3) -> Moments:
    found = Moments(x.shape[1], y.shape[1])
    for parts in zip(x.chunk(pieces), y.chunk(pieces), w.chunk(pieces), strict=True):
        found.add(*parts)
    return found


def test_ridge_is_that_of_scikit_learn() -> None:
    x, y, w = randn(60, 5) + 2, randn(60, 3, seed=1), torch.rand(60, generator=torch.Generator().manual_seed(2))
    found = moments_of(x, y, w)
    penalty = 0.1 * float(found.gram.diagonal()[:-1].mean())
    peer = Ridge(alpha=penalty).fit(x.double().numpy(), y.double().numpy(), sample_weight=w.double().numpy())
    solution = found.solve(0.1)
    np.testing.assert_allclose(solution[:-1].numpy(), peer.coef_.T, atol=1e-6)
    np.testing.assert_allclose(predict(x, solution).numpy(), peer.predict(x.double().numpy()), atol=1e-5)


def test_error_of_the_sums_is_that_of_the_patches() -> None:
    x, y, w = randn(50, 4), randn(50, 2, seed=1), torch.rand(50, generator=torch.Generator().manual_seed(2))
    solution = randn(5, 2, seed=3).double()
    residual = (predict(x, solution) - y).square().sum(dim=1)
    expected = float((w * residual).sum() / w.sum())
    assert moments_of(x, y, w).error(solution) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_is_that_with_the_least_error_on_held_out_patches() -> None:
    x, noise = randn(30, 20), randn(60, 1, seed=1)
    held_x, ones = randn(30, 20, seed=2), torch.ones(30)
    fitted, held = moments_of(x, noise[:30], ones), moments_of(held_x, noise[30:], ones)
    solution, strength = fit_ridge(fitted, held, strengths=(1e-6, 1e3))
    assert strength == 1e3  # there is nothing to learn from noise
    torch.testing.assert_close(solution, (fitted + held).solve(1e3))


def test_the_discriminant_is_that_of_scikit_learn() -> None:
    labels = torch.arange(90) % 3
    x = randn(90, 4) + 2.0 * torch.nn.functional.one_hot(labels, 4)
    shares = torch.nn.functional.one_hot(labels, 3).float()
    ours = fit_discriminant(moments_of(x, shares, torch.ones(90)), 0.2)
    within = np.mean([np.cov(x[labels == c].double().numpy().T, bias=True) for c in range(3)], axis=0)
    shrunk = 0.8 * within + 0.2 * np.trace(within) / 4 * np.eye(4)
    peer = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=_Fixed(shrunk))
    peer.fit(x.double().numpy(), labels.numpy())
    asked = randn(50, 4, seed=1)
    log_p = predict(asked, ours).log_softmax(dim=1).numpy()
    np.testing.assert_allclose(log_p, peer.predict_log_proba(asked.double().numpy()), atol=1e-4)


class _Fixed:
    """What scikit-learn asks for a covariance; its own estimators standardize the features first."""

    def __init__(self, covariance: np.ndarray) -> None:
        self.covariance_ = covariance

    def fit(self, x: np.ndarray) -> "_Fixed":
        return self


def test_a_class_that_is_never_shown_is_never_told() -> None:
    labels = torch.arange(20) % 2
    shares = torch.nn.functional.one_hot(labels, 3).float()
    solution = fit_discriminant(moments_of(randn(20, 2), shares, torch.ones(20)), 0.1)
    assert (predict(randn(100, 2, seed=1), solution).argmax(dim=1) < 2).all()


def test_the_shrinkage_is_that_with_most_held_out_patches_right() -> None:
    labels = torch.arange(24) % 2
    x = torch.cat([randn(24, 1) * 0.3 + labels[:, None], randn(24, 20, seed=1)], dim=1)
    moments = moments_of(x, torch.nn.functional.one_hot(labels, 2).float(), torch.ones(24))
    held = torch.cat([labels[:, None].float(), randn(24, 20, seed=2)], dim=1)
    found = choose_shrinkage(moments, held, labels)
    right = {s: (predict(held, fit_discriminant(moments, s)).argmax(1) == labels).sum() for s in SHRINKAGES}
    assert right[found] == max(right.values())


def test_votes_are_those_of_the_nearest_by_brute_force() -> None:
    keys, shares, queries = randn(80, 6), randn(80, 3, seed=1).softmax(dim=1), randn(10, 6, seed=2)
    memory = Memory(4, seed=0)
    for x, y in zip(keys.chunk(4), shares.chunk(4), strict=True):
        memory.add(x, y)
    peer = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(keys.double().numpy())
    distances, rows = peer.kneighbors(queries.double().numpy())
    weights = np.exp((1 - distances) / VOTE_TEMPERATURE)
    weights /= weights.sum(axis=1, keepdims=True)
    expected = (weights[..., None] * shares.numpy()[rows]).sum(axis=1)
    np.testing.assert_allclose(memory.vote(queries, neighbors=7).numpy(), expected, atol=1e-5)


def test_a_memory_keeps_equally_many_patches_of_each_picture() -> None:
    memory = Memory(3, seed=0, most=12)
    for number in range(3):
        memory.add(randn(20, 4, seed=number), torch.full((20, 1), float(number)))
    features, shares = memory.freeze()
    assert shares[:, 0].int().bincount().tolist() == [4, 4, 4]
    np.testing.assert_allclose(features.norm(dim=1).numpy(), 1, atol=1e-6)


def test_shares_of_classes_are_counted_pixel_by_pixel() -> None:
    labels = np.random.default_rng(0).integers(-1, 3, (8, 12))
    found = pool_labels(labels, 3, (2, 3)).numpy()
    for i in range(2):
        for j in range(3):
            cell = labels[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            np.testing.assert_allclose(found[i, j], [(cell == c).mean() for c in range(3)], atol=1e-6)


def test_depth_of_a_patch_is_the_mean_of_its_known_pixels() -> None:
    depth = np.arange(16, dtype=np.float32).reshape(4, 4)
    depth[0, 0] = np.nan
    depth[2:, 2:] = np.nan
    mean, known = pool_depth(depth, (2, 2))
    np.testing.assert_allclose(mean.numpy(), [[(1 + 4 + 5) / 3, 4.5], [10.5, 0]], atol=1e-5)
    np.testing.assert_allclose(known.numpy(), [[0.75, 1], [1, 0]])


def test_features_between_patches_are_interpolated() -> None:
    features = torch.tensor([[[0.0], [10.0]], [[20.0], [30.0]]])  # patches of 8 pixels: centers at 4 and 12
    points = np.array([[4.0, 4.0], [12.0, 4.0], [8.0, 8.0], [6.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(sample(features, points, (16, 16))[:, 0].numpy(), [0, 10, 15, 2.5, 0], atol=1e-5)


def test_points_of_a_shifted_map_are_found() -> None:
    base = randn(12, 12, 32)
    points = np.array([[36.0, 44.0], [60.0, 28.0]])
    found = match_points(base, base.roll((2, 1), dims=(0, 1)), points, ((96, 96), (96, 96)))
    expected = points + np.array([8.0, 16.0])  # patches of 8 pixels, one to the right and two down
    assert np.abs(found - expected).max() <= 96 / 64
    assert share_within(found, expected, distance=2.0) == 1
    assert share_within(expected + np.array([[3.0, 0.0], [0.0, 0.0]]), expected, distance=2.0) == 0.5


def test_labels_follow_the_most_similar_patches_by_brute_force() -> None:
    frames = [randn(4, 5, 8, seed=number) for number in range(3)]
    labels = randn(4, 5, 2, seed=9).softmax(dim=2)
    found = list(follow(frames, labels))
    assert len(found) == 2
    told = {0: labels.numpy()}
    for t in (1, 2):
        expected = np.zeros((4, 5, 2))
        for i in range(4):
            for j in range(5):
                pairs = []
                for s in range(t):
                    for y in range(max(0, i - 2), min(4, i + 3)):  # 0.4 of 4 patches: 2
                        for x in range(max(0, j - 2), min(5, j + 3)):
                            a, b = frames[t][i, j].numpy(), frames[s][y, x].numpy()
                            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                            pairs.append((cosine, told[s][y, x]))
                best = sorted(pairs, key=lambda pair: -pair[0])[:NEAREST]
                weights = np.exp(np.array([cosine for cosine, _ in best]) / TEMPERATURE)
                expected[i, j] = (weights[:, None] * np.array([label for _, label in best])).sum(0) / weights.sum()
        np.testing.assert_allclose(found[t - 1].numpy(), expected, atol=1e-5)
        told[t] = expected
