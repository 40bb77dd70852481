"""Figures of benchmarks: ratios, the table, and calls measured in a process of their own."""

import json
import platform
from pathlib import Path

import numpy as np
import pytest

from benchmarks.figures import Figure, as_json, format_figures, measured, processor, show


def _use_memory(num_bytes: int) -> int:
    return int(np.ones(num_bytes, np.uint8).sum())


@pytest.mark.parametrize(("better", "ratio"), [("higher", 4.0), ("lower", 0.25)])
def test_a_ratio_above_one_is_better_than_the_peer(better: str, ratio: float) -> None:
    assert Figure("join", 8.0, "s", "faiss", 2.0, better=better).ratio == ratio  # type: ignore[arg-type]


def test_a_figure_without_a_peer_has_no_ratio() -> None:
    assert Figure("recall", 0.99, "").ratio is None


def test_a_measured_call_returns_its_result_and_its_own_peak_memory() -> None:
    small, large = measured(_use_memory, 1), measured(_use_memory, 256 << 20)
    assert (small.result, large.result) == (1, 256 << 20)
    assert large.peak_bytes - small.peak_bytes > 200 << 20
    assert large.seconds > 0


def test_json_holds_every_figure_and_the_machine() -> None:
    loaded = json.loads(as_json([Figure("join", 8.0, "s", "faiss", 16.0, better="lower", peak_bytes=1 << 20)]))
    assert loaded["figures"][0]["ratio"] == 2.0
    assert loaded["machine"]["cores"] >= 1
    assert loaded["machine"]["processor"] == processor()


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the system tells the processor's name elsewhere")
def test_figures_for_people_name_the_processor(capsys: pytest.CaptureFixture[str]) -> None:
    show([Figure("a", 1.0, "s")], json_=False)
    first, *table = capsys.readouterr().out.splitlines()
    assert len(table) == 2
    name = first.split(",")[0]
    assert name
    assert name in Path("/proc/cpuinfo").read_text() or name == platform.machine()


def test_the_table_has_a_line_for_each_figure() -> None:
    lines = format_figures([Figure("a", 1.0, "s"), Figure("b", 2.0, "s", "peer", 1.0)]).splitlines()
    assert len(lines) == 3
    assert "peer" in lines[2]
