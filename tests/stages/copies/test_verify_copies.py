"""VerifyCopies: the verified pairs against a direct computation over all candidates."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.executors import ExecutorConfig, start_executor
from curate.engine.freshness import Flags
from curate.errors import ConfigError
from curate.ops.copies.alignment import align, alignment_score
from curate.stages.copies.verify_copies import VerifyCopies, VerifyFigures
from tests.engine.test_finished import opened
from tests.stages.copies.given_pairs import declare, is_heldout, made, pictures, rows_of


def test_verified_pairs_equal_a_direct_computation(tmp_path: Path) -> None:
    p = made(tmp_path)
    x = pictures()
    expected = {}
    for (a, b), cosine in rows_of(p, "pairs").items():
        small = [x[i >> 32, i & 0xFFFFFFFF][None] for i in (a, b)]
        score = alignment_score(np.array([cosine], np.float32), align(*small), weight=0.45)[0]
        if score >= np.float32(0.75 if is_heldout(a) else 0.8):
            expected[a, b] = float(score)
    found = rows_of(p, "aligned")
    assert found == pytest.approx(expected, abs=1e-6)
    assert 5 < len(found) < len(rows_of(p, "pairs"))
    figures = VerifyFigures.of(p.store.table("aligned"))
    assert (figures.tried, figures.verified) == (len(rows_of(p, "pairs")), len(found))


def test_dask_gives_equal_tables(tmp_path: Path) -> None:
    here, there = made(tmp_path / "here"), declare(tmp_path / "there")
    with start_executor(ExecutorConfig(kind="local", workers=1, threads=1)) as executor:
        there.run(executor, Flags())
    for name in ("sure", "pairs", "aligned"):
        assert here.store.table(name).read_all().equals(there.store.table(name).read_all())


def test_thresholds_are_told(tmp_path: Path) -> None:
    run = opened(made(tmp_path))
    stage, table = run.only(VerifyCopies)
    assert list(stage.facts(table, run)) == [
        ("Similarity thresholds", "aligned: copies from 0.8 on, of held-out images from 0.75 on")
    ]
    assert [section.title for section in stage.show(table, run)] == ["Similarity of the pairs"]


def test_cost_is_that_of_aligning_every_candidate() -> None:
    inputs = {"candidates": Shape(pool=100, row_bytes=1024), "pictures": Shape(pool=10, row_bytes=1000)}
    demand, made_of = VerifyCopies(model="x").cost(inputs, Assumptions(images=10))
    assert (demand.pairs, demand.scratch, made_of.rows) == (100, 102_400, 50)
    assert demand.read == 2 * 102_400 + 10_000


def test_a_model_without_calibration_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"timm/x: no calibrated values to verify .* set copies.verify=false"):
        VerifyCopies(model="timm/x").resolve()
