"""KeepNear: the pairs of a strict cosine, and what it tells of them."""

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.pipeline import Pipeline
from curate.engine.show import Beside, Histogram
from curate.stages.copies.keep_near import KeepNear
from tests.engine.test_finished import opened
from tests.stages.copies.given_pairs import STRICT, is_heldout, pairs, rows_of


def test_pairs_of_a_strict_cosine_are_kept_as_they_are(verified: Pipeline) -> None:
    expected = {(a, b): c for a, b, c in pairs() if c >= np.float32(0.85 if is_heldout(a) else 0.9)}
    assert rows_of(verified, "sure") == pytest.approx(expected)
    assert len(expected) > 20


def test_every_pair_is_sure_or_doubtful(verified: Pipeline) -> None:
    sure, tried = ({tuple(sorted(pair)) for pair in rows_of(verified, name)} for name in ("sure", "pairs"))
    assert not sure & tried
    assert sure | tried == {tuple(sorted(pair[:2])) for pair in pairs()}


def test_thresholds_and_similarities_are_shown(verified: Pipeline) -> None:
    run = opened(verified)
    stage, table = run.only(KeepNear)
    ((title, line),) = stage.facts(table, run)
    assert (title, line) == ("Similarity thresholds", "sure: copies from 0.9 on, of held-out images from 0.85 on")
    (section,) = stage.show(table, run)
    assert section.title == "Similarity of the pairs"
    charts = [block for beside in section.blocks if isinstance(beside, Beside) for block in beside.columns[0]]
    (plot,) = (block for block in charts if isinstance(block, Histogram))
    assert sum(int(series.values.sum()) for series in plot.series) == table.num_rows()
    assert sorted(marker.at for marker in plot.markers) == [0.85, 0.9]


def test_cost_is_one_reading_of_the_pairs() -> None:
    found = Shape(pool=100, row_bytes=24)
    demand, made_of = KeepNear(**STRICT).cost({"neighbors": found}, Assumptions(images=1000))
    assert (demand.rows, demand.written) == (100, 1200)
    assert made_of == found._replace(pool=50)
