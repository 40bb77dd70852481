from pathlib import Path

import pytest

from curate.errors import WeightsError
from curate.models.files.publish import publishing, same_content


def test_what_is_made_beside_the_file_moves_along(tmp_path: Path) -> None:
    with publishing(tmp_path / "new/graph.onnx") as partial:
        partial.write_text("graph")
        partial.with_name("graph.onnx.data").write_text("weights")
    assert {entry.name: entry.read_text() for entry in (tmp_path / "new").iterdir()} == {
        "graph.onnx": "graph",
        "graph.onnx.data": "weights",
    }


def test_an_error_leaves_all_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), publishing(tmp_path / "a") as partial:  # noqa: PT012
        partial.write_text("new")
        raise RuntimeError
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a", "old")]


def test_equal_content_is_no_conflict(tmp_path: Path) -> None:
    def write(text: str, *, overwrite: bool = False) -> None:
        with publishing(tmp_path / "folder", overwrite=overwrite) as partial:
            partial.mkdir()
            (partial / "a").write_text(text)

    write("one")
    write("one")
    with pytest.raises(WeightsError, match="folder: exists and differs; choose another output, or give --overwrite"):
        write("two")
    write("two", overwrite=True)
    assert (tmp_path / "folder/a").read_text() == "two"


def test_folders_are_compared_by_names_and_bytes(tmp_path: Path) -> None:
    for name, files in {"a": {"x": "1"}, "b": {"x": "1"}, "c": {"x": "2"}, "d": {"x": "1", "y": "1"}}.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    assert same_content(tmp_path / "a", tmp_path / "b")
    assert not any(same_content(tmp_path / "a", tmp_path / other) for other in ("c", "d"))
    assert not same_content(tmp_path / "a", tmp_path / "a/x")
