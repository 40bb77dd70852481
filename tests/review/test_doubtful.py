"""Pairs about a threshold, against planted distances and against a count in plain Python."""

from pathlib import Path

import numpy as np

from curate.review.doubtful import find_doubtful
from curate.review.session import Session
from tests.report.workdir import Workdir
from tests.review.large_run import LargeRun


def test_pairs_on_both_sides_the_nearest_first(session: Session, large_run: LargeRun) -> None:
    (found,) = find_doubtful(large_run.finished)
    groups = large_run.group[np.searchsorted(large_run.ids, found.ids[:, 0])]
    assert groups.tolist() == list(range(2, 31))  # the first has equal bytes, which leave no doubt
    assert ((found.margin < 0) == (groups % 3 == 0)).all()
    np.testing.assert_allclose(np.abs(found.margin), groups / 1000, atol=1e-6)
    assert session.queues["doubtful-aligned"].items.ids.reshape(-1, 2).tolist() == found.ids.tolist()


def test_at_most_so_many_and_the_nearest_ones(large_run: LargeRun) -> None:
    (found,) = find_doubtful(large_run.finished, most=4)
    groups = large_run.group[np.searchsorted(large_run.ids, found.ids[:, 0])]
    assert groups.tolist() == [2, 3, 4]  # of the four nearest the first is out of doubt


def test_heldout_images_come_first_and_have_their_own_threshold(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path).catalog().images().copies()
    ids = workdir.ids
    (found,) = find_doubtful(workdir.run)
    pairs = {
        tuple(pair): round(float(margin), 3) for pair, margin in zip(found.ids.tolist(), found.margin, strict=True)
    }
    assert pairs == {
        (ids["h.jpg"], ids["bench.jpg"]): 0.025,
        (ids["a.jpg"], ids["a_copy.jpg"]): 0.05,
        (ids["bench.jpg"], ids["bench_copy.jpg"]): 0.09,
    }
