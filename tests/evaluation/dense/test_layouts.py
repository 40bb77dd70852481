from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.errors import ConfigError, SourceError
from curate.evaluation.dense.layouts import nyu
from curate.evaluation.dense.layouts.files import read_16_bits, read_indices
from curate.evaluation.dense.layouts.find import find_truth
from curate.evaluation.dense.layouts.voc import read_boxes
from curate.evaluation.evaluate import evaluate
from curate.evaluation.scores import Score
from curate.models.backbones.load import load_backbone
from tests.evaluation.dense.folders import SIDE, write_ade, write_davis, write_nyu, write_voc

WRITERS: dict[str, Callable[[Path], Path]] = {
    "ADE20k": write_ade,
    "VOC": write_voc,
    "DAVIS": write_davis,
    "NYU": write_nyu,
}


def scores_of(folder: Path) -> dict[tuple[str, str], Score]:
    truth = find_truth(str(folder))
    assert truth
    found = evaluate(load_backbone("pixels16"), None, truth=truth, measures=tuple(truth.known()), grid=4)  # type: ignore[arg-type]
    assert found.data == truth.name
    return {score.name: score for score in found.scores}


def test_pixels_tell_bright_from_dark_on_every_set(tmp_path: Path) -> None:
    found = {name: scores_of(write(tmp_path / name)) for name, write in WRITERS.items()}
    assert {name: sorted({measure for measure, _ in scores}) for name, scores in found.items()} == {
        "ADE20k": ["segmentation"],
        "VOC": ["discovery", "segmentation"],
        "DAVIS": ["propagation"],
        "NYU": ["depth"],
    }
    assert found["ADE20k"]["segmentation", "in context, mIoU"].value > 0.7
    assert found["VOC"]["segmentation", "in context, mIoU"].value > 0.7
    assert found["DAVIS"]["propagation", "J"].value > 0.8
    depth = found["NYU"]["depth", "RMSE"]
    assert depth.unit == "m"
    assert depth.value < 1.0  # one depth for all is off by about 1.5 m


def test_labels_are_those_of_the_files(tmp_path: Path) -> None:
    ade, voc = find_truth(str(write_ade(tmp_path / "ade"))), find_truth(str(write_voc(tmp_path / "voc")))
    assert ade
    assert ade.segmentation
    assert set(np.unique(ade.segmentation.test[0].labels)) == {1, 4}  # 2 and 5 of the file, whose 0 does not count
    assert voc
    assert voc.segmentation
    assert set(np.unique(voc.segmentation.test[0].labels)) == {-1, 0, 15}
    assert voc.segmentation.classes[15] == "person"
    assert voc.discovery
    (box,) = voc.discovery.pictures[2].boxes
    labels = voc.segmentation.train[2].labels
    assert box.tolist() == [0, 0, (labels[0] == 15).sum() + 1, SIDE]  # the first column does not count there


def test_pictures_are_bounded_and_spread(tmp_path: Path) -> None:
    truth = find_truth(str(write_ade(tmp_path)), num=2)
    assert truth
    assert truth.segmentation
    assert (len(truth.segmentation.train), len(truth.segmentation.test)) == (8, 2)


def test_a_plain_folder_is_no_set(tmp_path: Path) -> None:
    assert find_truth(str(tmp_path)) is None
    assert find_truth("bundled") is None


def test_a_set_without_a_truth_for_a_task_says_which_it_has(tmp_path: Path) -> None:
    truth = find_truth(str(write_nyu(tmp_path)))
    with pytest.raises(ConfigError, match="NYU Depth v2 in .* holds no truth for segmentation, but for depth"):
        evaluate(load_backbone("pixels16"), None, truth=truth, measures=("segmentation",))
    with pytest.raises(ConfigError, match="holds a truth for every pixel and no classes of pictures"):
        evaluate(load_backbone("pixels16"), None, truth=truth, measures=("knn",))


def test_depths_count_within_eigens_crop_and_ten_meters(tmp_path: Path) -> None:
    depth = np.full((480, 640), 3000, np.uint16)
    depth[100, 100], depth[100, 101] = 0, 12000
    Image.fromarray(depth).save(tmp_path / "depth.png")
    found = nyu.read_depth(tmp_path / "depth.png")
    known = np.isfinite(found)
    assert known.sum() == (471 - 45) * (601 - 41) - 2
    assert (found[known] == 3).all()


def test_damaged_files_are_errors_that_name_them(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(SourceError, match=r"x\.png: no readable PNG"):
        read_indices(tmp_path / "x.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    with pytest.raises(SourceError, match=r"rgb\.png: a PNG of mode RGB; one of P, L, 1 is needed"):
        read_indices(tmp_path / "rgb.png")
    with pytest.raises(SourceError, match=r"rgb\.png: a PNG of mode RGB; one of I"):
        read_16_bits(tmp_path / "rgb.png")
    with pytest.raises(SourceError, match=r"gone\.png: cannot be read"):
        read_indices(tmp_path / "gone.png")
    (tmp_path / "a.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>')
    with pytest.raises(SourceError, match=r"a\.xml: an annotation of VOC has no declarations"):
        read_boxes(tmp_path / "a.xml")
    (tmp_path / "b.xml").write_text("<annotation/>")
    with pytest.raises(SourceError, match=r"b\.xml: no object with a box"):
        read_boxes(tmp_path / "b.xml")
    (tmp_path / "c.xml").write_text("<annotation>")
    with pytest.raises(SourceError, match=r"c\.xml: no annotation of VOC"):
        read_boxes(tmp_path / "c.xml")


def test_lists_may_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    root = write_davis(tmp_path)
    (root / "ImageSets/2017/val.txt").write_text("../../secret\n")
    truth = find_truth(str(root))
    assert truth
    assert truth.propagation
    with pytest.raises(SourceError, match="leads out of the folder"):
        truth.propagation.clips[0]


def test_classes_beyond_those_known_are_errors(tmp_path: Path) -> None:
    root = write_ade(tmp_path)
    path = root / "annotations/validation/ADE_0000.png"
    Image.fromarray(np.full((SIDE, SIDE), 151, np.uint8)).save(path)
    truth = find_truth(str(root))
    assert truth
    assert truth.segmentation
    with pytest.raises(SourceError, match="its annotation has class 151, 150 are known"):
        truth.segmentation.test[0]
