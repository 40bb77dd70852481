"""Drawn domains are distinct and seeded, and their scores equal a count of pairs."""

import itertools
import json

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.domains import CONTROL, DOMAINS, draw_domain
from benchmarks.look_alikes import (
    Share,
    clustered_share,
    domains_as_json,
    format_domains,
    measure_domains,
    score_groups,
)
from curate.errors import ConfigError
from curate.ops.images.edits import MIN_SIDE


@pytest.mark.parametrize("name", DOMAINS)
def test_pictures_of_a_domain_are_distinct_and_follow_from_the_seed(name: str) -> None:
    drawn, again = draw_domain(name, 4, seed=1), draw_domain(name, 4, seed=1)
    assert [picture.tobytes() for picture in drawn] == [picture.tobytes() for picture in again]
    everything = [*drawn, *draw_domain(name, 4, seed=2)]
    assert len({picture.tobytes() for picture in everything}) >= len(everything) - (name == CONTROL)
    assert all(picture.mode == "RGB" and min(picture.size) >= 2 * MIN_SIDE for picture in everything)


def test_an_unknown_domain_is_refused() -> None:
    assert len(DOMAINS) > 10
    with pytest.raises(ConfigError, match="--domain pagse: not known; pages, forms, "):
        draw_domain("pagse", 1, seed=0)


def test_bounds_are_those_of_wilson() -> None:
    for hits, of in ((0, 5), (9, 10), (40, 40), (73, 200)):
        expected = binomtest(hits, of).proportion_ci(0.95, method="wilson")
        assert Share(hits, of).bounds == pytest.approx((expected.low, expected.high), abs=1e-4)
    assert (Share(0, 0).value, Share(0, 0).bounds) == (1.0, (0.0, 1.0))


def test_bounds_of_clusters_hold_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        size = rng.integers(1, 7, 60).astype(np.float64)
        hits = np.where(rng.random(60) < 0.8, size, 0.0)  # the cases of a cluster hit together, or not at all
        low, high = clustered_share(hits, size).bounds
        held += low <= 0.8 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_clusters_are_worth_no_more_cases_than_they_are() -> None:
    ones = np.ones(9)
    assert clustered_share(6 * ones, 6 * ones).bounds == Share(9, 9).bounds
    assert clustered_share(np.zeros(9), np.zeros(9)).bounds == (0.0, 1.0)
    assert clustered_share(np.array([1.0]), np.array([2.0])).independent == 1


def test_scores_equal_a_count_of_pairs() -> None:
    rng = np.random.default_rng(0)
    groups, source, stays = rng.integers(0, 8, 30), rng.integers(0, 10, 30), rng.random(30) < 0.4
    score = score_groups("pages", "default", groups, stays, source, seconds=1)
    pairs = list(itertools.combinations(range(30), 2))
    found = {(i, j) for i, j in pairs if groups[i] == groups[j]}
    true = {(i, j) for i, j in pairs if source[i] == source[j]}
    assert (score.precision.hits, score.precision.of) == (len(found & true), len(found))
    assert (score.recall.hits, score.recall.of) == (len(found & true), len(true))
    assert (score.pictures, score.left) == (len(set(source.tolist())), len(set(source[stays].tolist())))


def test_a_small_pool_of_forms_loses_no_picture() -> None:
    default, pdq = measure_domains(["forms"], num_pictures=12, copies_each=1, max_edits=1)
    assert (default.method, pdq.method) == ("default", "PDQ at 31")
    assert (default.pictures, default.left) == (12, 12)
    assert default.precision.value >= 0.97
    assert default.recall.value >= pdq.recall.value
    lines = format_domains([default, pdq]).splitlines()
    assert len(lines) == 3
    assert "12 of 12" in lines[1]
    (first, _) = json.loads(domains_as_json([default, pdq]))
    assert first["recall"]["of"] == 12
    assert first["precision"]["value"] == default.precision.value
