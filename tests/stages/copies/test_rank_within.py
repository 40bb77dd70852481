"""RankWithin: the sweep of eps tells what each would keep, so that only verdicts are made again."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.show import Curves, Numbers, Text
from curate.stages.copies.drop_similar import DropSimilarFigures
from curate.stages.copies.rank_within import SWEEP, RankFigures, RankWithin
from tests.engine.test_finished import opened
from tests.stages.copies.semdedup import declare
from tests.stages.planted import make


def test_sweep_tells_what_every_eps_would_keep_and_only_verdicts_are_made_again(tmp_path: Path) -> None:
    p = declare(tmp_path, eps=0.15)
    make(p)
    ranked = p.store.table("ranked")
    sweep = {point.eps: point.kept for point in RankFigures.of(ranked).sweep}
    similarity = ranked.read_all()["similarity"].drop_null().to_numpy()
    assert sweep[0.15] == ranked.num_rows() - int((similarity > 1 - 0.15).sum())
    assert sorted(sweep.values(), reverse=True) == list(sweep.values())
    p = declare(tmp_path, eps=0.3)
    assert p.run(InProcess(1), Flags(frozenset({"verdicts"}))) == ["verdicts"]
    assert DropSimilarFigures.of(p.store.table("verdicts")).similar >= ranked.num_rows() - sweep[0.3]


def test_sweep_is_shown_with_the_eps_that_was_chosen(tmp_path: Path) -> None:
    p = declare(tmp_path, eps=0.15)
    make(p)
    run = opened(p)
    stage, table = run.only(RankWithin)
    (section,) = stage.show(table, run)
    assert section.title == "Images alike to the backbone"
    chart, numbers, text = section.blocks
    assert isinstance(chart, Curves)
    assert np.array_equal(chart.lines[0].x, SWEEP)
    assert isinstance(numbers, Numbers)
    assert [row[:2] for row in numbers.rows] == [(point.eps, point.kept) for point in RankFigures.of(table).sweep]
    assert isinstance(text, Text)
    assert "This run: eps 0.15." in text.text


def test_cost_is_the_square_of_the_images_over_the_clusters() -> None:
    lists = Shape(pool=1000, row_bytes=100, dim=8, lists=10)
    demand, made = RankWithin().cost({"lists": lists}, Assumptions(images=1000))
    assert demand.products == pytest.approx(2 * 2 * 1000 * 100 * 8)
    assert (made.rows, demand.written) == (1000, 32_000)
