import numpy as np
import pytest

from curate.feed import mixture
from curate.feed.mixture import Mixture


def test_places_before_of_the_same_kind_are_counted_across_chunks(monkeypatch):
    monkeypatch.setattr(mixture, "CHUNK", 50)
    found = [Mixture([0.7, 0.2, 0.1], seed=(1, 2)).locate(place) for place in range(180)]
    seen = [0, 0, 0]
    for kind, earlier in found:
        assert earlier == seen[kind]
        seen[kind] += 1
    draws = Mixture([0.7, 0.2, 0.1], seed=(1, 2))
    assert [draws.locate(place) for place in reversed(range(180))] == found[::-1]


def test_kinds_come_by_their_chances_and_seed():
    kinds = {seed: [Mixture([0.9, 0.1], seed=(seed,)).locate(i)[0] for i in range(500)] for seed in (0, 1)}
    assert kinds[0] != kinds[1]
    assert np.mean(kinds[0]) == pytest.approx(0.1, abs=0.04)


def test_one_kind_alone_numbers_places_by_themselves():
    assert Mixture([1.0], seed=(0,)).locate(70_000) == (0, 70_000)
