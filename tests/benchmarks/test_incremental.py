"""A pool that grows: old parts stay, new images alone are embedded, and copies are judged as by a full run."""

from pathlib import Path

from benchmarks.incremental import bench_incremental


def test_grown_pool_embeds_new_images_alone_and_judges_as_a_full_run(tmp_path: Path) -> None:
    figures = {figure.name: figure for figure in bench_incremental(100, workdir=tmp_path / "run")}
    assert figures["tables whose old parts are all as before"].value == 5
    again = figures["images read and embedded again"]
    assert again.value == again.peer_value == 20
    assert figures["images with the same component"].value == 1
    assert figures["images of components that touch held-out ones"].value == 1
    chosen = figures["components of the selected images"]
    assert chosen.peer_value is not None
    assert chosen.value > 0.6 * chosen.peer_value
