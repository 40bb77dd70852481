"""The benchmark of faces counts what was planted, and its marks lie in their pictures."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.faces import Marks, bench_faces, count_found, read_marks
from curate.samples.bundled import PHOTOS
from tests.models.screening.networks import SIDE, save_face_finder


def test_marks_lie_in_pictures_that_are_there() -> None:
    marks = read_marks()
    assert sum(len(one.faces) for one in marks.values()) == 23
    for name, one in marks.items():
        width, height = Image.open(PHOTOS / name).size
        for left, top, right, bottom in one.faces:
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height


def test_a_face_is_found_once_and_detections_in_unclear_parts_do_not_count() -> None:
    face, other = np.array([10, 10, 30, 30]), np.array([60, 60, 80, 80])
    marks = {"a": Marks([face, other], [np.array([100, 0, 200, 100])])}
    found = {
        "a": np.array([[11, 11, 31, 31, 0.9], [10, 12, 30, 32, 0.8], [120, 20, 140, 40, 0.7], [61, 61, 80, 80, 0.3]]),
        "b": np.array([[0, 0, 9, 9, 0.6]]),
    }
    assert count_found(found, marks, least=0.5) == (2, 1, 3)
    assert count_found(found, marks, least=0.2) == (2, 2, 4)
    assert count_found(found, marks, least=0.95) == (2, 0, 0)


def test_planted_faces_are_all_found(tmp_path: Path) -> None:
    lines = ["picture,left,top,right,bottom,kind"]
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        picture = Image.new("RGB", (256, 256), "gray")
        left, top = 40 + 20 * number, 100
        ImageDraw.Draw(picture).rectangle((left, top, left + SIDE - 1, top + SIDE - 1), (255, 0, 0))
        picture.save(tmp_path / f"pictures/{number}.jpg", quality=98)
        lines.append(f"{number}.jpg,{left},{top},{left + SIDE},{top + SIDE},face")
    (tmp_path / "marks.csv").write_text("\n".join(lines))
    weights = str(save_face_finder(tmp_path / "faces.onnx"))
    figures = bench_faces(tmp_path / "pictures", tmp_path / "marks.csv", sides=[256], weights=weights)
    by_name = {one.name: one.value for one in figures}
    assert by_name["recall at 256 pixels, confidence 0.3"] == 1
    assert by_name["precision at 256 pixels, confidence 0.3"] == 1
    assert {"faces at 256 pixels", "decoding", "looks"} <= by_name.keys()
