import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import logsumexp

from curate.trainer import sinkhorn
from curate.trainer.heads import Projection
from curate.trainer.parallel import World
from curate.trainer.sinkhorn import projected_sinkhorn, sinkhorn_offsets, sinkhorn_targets


def scores(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def teacher(rows, prototypes=30, dim=8, seed=0):
    return Projection(F.normalize(scores(rows, dim, seed=seed), dim=-1), scores(prototypes, dim, seed=seed + 1))


@pytest.fixture
def in_chunks(monkeypatch):
    """No matrix is held, and a chunk has 4 rows of 30 prototypes."""
    monkeypatch.setitem(sinkhorn.HELD, "cpu", 0)
    monkeypatch.setitem(sinkhorn.CHUNK, "cpu", 4 * 4 * 30)


def plain_sinkhorn(x, temperature):
    q = [[math.exp(float(v) / temperature) for v in row] for row in x]
    rows, columns = len(q), len(q[0])
    for _ in range(3):
        for j in range(columns):
            total = sum(q[i][j] for i in range(rows))
            for i in range(rows):
                q[i][j] /= total * columns
        for i in range(rows):
            total = sum(q[i])
            q[i] = [v / (total * rows) for v in q[i]]
    return np.array(q) * rows


def log_sinkhorn(x, temperature):
    """In float64 and in logarithms: nothing overflows, nothing vanishes."""
    q = x.double().numpy() / temperature
    for _ in range(3):
        q = q - logsumexp(q, axis=0) - math.log(q.shape[1])
        q = q - logsumexp(q, axis=1, keepdims=True)
    return np.exp(q)


def test_sinkhorn_equals_plain_loops():
    x = scores(6, 5) / 10
    found = sinkhorn_targets(x, temperature=0.05, world=World())
    np.testing.assert_allclose(found.numpy(), plain_sinkhorn(x.numpy(), 0.05), atol=1e-5)


def test_sinkhorn_rows_sum_to_one_and_many_iterations_use_prototypes_equally():
    targets = sinkhorn_targets(scores(64, 8), temperature=0.5, world=World(), num_iterations=200)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(64))
    torch.testing.assert_close(targets.sum(dim=0), torch.full((8,), 8.0), atol=1e-3, rtol=0)


def test_sinkhorn_survives_scores_whose_exponentials_overflow():
    targets = sinkhorn_targets(1000 * scores(8, 4), temperature=0.04, world=World())
    assert targets.isfinite().all()


def test_no_rows_give_no_targets():
    assert sinkhorn_targets(scores(0, 4), temperature=0.04, world=World()).shape == (0, 4)


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_prototypes_far_below_the_others_keep_their_share(in_chunks, rows):
    """Beside the largest entry of all, whole columns of these vanish in float32."""
    for seed in range(10):
        given = teacher(rows, seed=seed)
        given = given._replace(prototypes=given.prototypes * torch.logspace(-1, 1, 30)[:, None])
        wanted = log_sinkhorn(given.scores(), 0.05)
        held = sinkhorn_targets(given.scores(), temperature=0.05, world=World())
        np.testing.assert_allclose(held.numpy(), wanted, atol=1e-4)
        chunks = projected_sinkhorn(given, temperature=0.05, world=World())(slice(None))
        np.testing.assert_allclose(chunks.numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 4, 19])
def test_targets_of_chunks_equal_those_of_a_held_matrix(in_chunks, rows):
    given = teacher(rows)
    held = sinkhorn_targets(given.scores(), temperature=0.05, world=World())
    targets = projected_sinkhorn(given, temperature=0.05, world=World())
    torch.testing.assert_close(targets(slice(None)), held, atol=1e-6, rtol=1e-5)
    some = torch.tensor([rows - 1, 0])
    torch.testing.assert_close(targets(some), held[some], atol=1e-6, rtol=1e-5)


def test_chunks_survive_scores_whose_exponentials_overflow(in_chunks):
    given = teacher(19)
    targets = projected_sinkhorn(given._replace(units=1000 * given.units), temperature=0.04, world=World())
    assert targets(slice(None)).isfinite().all()


def test_a_small_matrix_is_held(monkeypatch):
    monkeypatch.setattr(sinkhorn, "sinkhorn_offsets", lambda *_, **__: pytest.fail("it was computed in chunks"))
    assert projected_sinkhorn(teacher(5), temperature=0.05, world=World())(slice(2)).shape == (2, 30)


class Threads:
    """Ranks as threads: what each brings is combined when all have come."""

    def __init__(self, size):
        self.size, self.barrier, self.brought = size, threading.Barrier(size, timeout=20), [None] * size

    def rank(self, number):
        def combine(how, values):
            self.brought[number] = values.clone()
            self.barrier.wait()
            found = how(torch.stack([value.flatten() for value in self.brought]))
            self.barrier.wait()
            return found.view(values.shape)

        return SimpleNamespace(
            sum=lambda values: combine(lambda all_of: all_of.sum(dim=0), values),
            max=lambda values: combine(lambda all_of: all_of.amax(dim=0), values),
        )

    def run(self, work):
        found = [None] * self.size
        threads = [threading.Thread(target=lambda i=i: found.__setitem__(i, work(i))) for i in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def test_ranks_with_unequal_numbers_of_rows_find_the_targets_of_one_process(monkeypatch):
    """One rank has no rows, one holds its matrix, one goes through its rows in chunks."""
    given, counts = teacher(19), [0, 4, 15]
    monkeypatch.setitem(sinkhorn.HELD, "cpu", 4 * 4 * 30)
    monkeypatch.setitem(sinkhorn.CHUNK, "cpu", 4 * 4 * 30)
    wanted = sinkhorn_targets(given.scores(), temperature=0.05, world=World()).split(counts)
    parts, world = given.units.split(counts), Threads(3)

    def work(rank):
        own = given._replace(units=parts[rank])
        return projected_sinkhorn(own, temperature=0.05, world=world.rank(rank))(slice(None))

    for found, rows in zip(world.run(work), wanted, strict=True):
        torch.testing.assert_close(found, rows, atol=1e-6, rtol=1e-5)


def test_offsets_are_one_number_a_prototype(in_chunks):
    given = teacher(19)
    offsets = sinkhorn_offsets(given, temperature=0.05, world=World())
    held = sinkhorn_targets(given.scores(), temperature=0.05, world=World())
    torch.testing.assert_close((given.scores() / 0.05 + offsets).softmax(dim=-1), held, atol=1e-6, rtol=1e-5)
