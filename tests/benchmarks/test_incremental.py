"""A workdir that grows: each run reads and embeds what is new, and copies are judged as by a full run."""

from pathlib import Path

from benchmarks.incremental import bench_incremental


def test_each_run_reads_and_embeds_what_is_new_and_judges_as_a_full_run(tmp_path: Path) -> None:
    figures = {figure.name: figure for figure in bench_incremental(80, num_new=20, workdir=tmp_path / "run")}
    costs = {name: found for name, found in figures.items() if name.endswith((": inspected", ": embedded"))}
    assert {name: found.value for name, found in costs.items()} == {
        name: found.peer_value for name, found in costs.items()
    }
    inspected = [int(found.value) for name, found in costs.items() if name.endswith("inspected")]
    assert inspected == [80, 60, 0, 20, 0, 0]
    assert figures["the pool grows by 20: embedded"].value > 0
    assert figures["tables of the first pass whose old parts are all as before"].value == 4
    assert figures["images with the same component"].value == 1
    assert figures["images of components that touch held-out ones"].value == 1
    chosen = figures["components of the selected images"]
    assert chosen.peer_value is not None
    assert chosen.value > 0.6 * chosen.peer_value
