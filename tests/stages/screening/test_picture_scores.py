"""Looks, nudity, faces and text of images in a run: scored where they are decoded, by networks of planted answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import curate
from curate.config import parse
from curate.engine.cost import Assumptions, Shape
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import ConfigError, MissingExtra
from curate.models.files.digest import hash_file
from curate.models.screening import shipped
from curate.ops.screening.looks import LOOKS, Pictured, measure_looks
from curate.pipelines.screening import Screening
from curate.stages.screening import network_scores
from curate.stages.screening.find_faces import FindFaces
from curate.stages.screening.find_text import FindText
from curate.stages.screening.measure_looks import MeasureLooks
from tests.models.screening.networks import SIDE, save_face_finder, save_nudity_scorer, save_text_finder

NAMES = ("birds/heron.jpg", "birds/duck.jpg", "places/hall.jpg", "tools/hammer5.jpg", "space/earth.jpg")
PHOTOS = Path(curate.__file__).parent / "samples/photos"
PLACES = {0: [(60, 60)], 1: [(40, 100), (200, 60)], 2: []}
"""Where each picture of the pool gets red squares, which the stand-in takes for faces."""


def picture(number: int) -> Image.Image:
    """A photograph of 384 x 256 pixels with its red squares."""
    found = Image.open(PHOTOS / NAMES[number]).convert("L").convert("RGB").resize((384, 256))
    for left, top in PLACES.get(number, []):
        ImageDraw.Draw(found).rectangle((left, top, left + SIDE - 1, top + SIDE - 1), (255, 0, 0))
    return found


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "pool"
    folder.mkdir()
    for number in range(len(NAMES)):
        picture(number).save(folder / f"{number}.png")
    (folder / "5.jpg").write_bytes(b"<html>")
    return folder


def networks(root: Path) -> dict[str, Any]:
    """The stand-ins, as groups of the config."""
    makes = {"nudity": save_nudity_scorer, "text": save_text_finder, "faces": save_face_finder}
    files = {name: str(make(root / f"{name}.onnx")) for name, make in makes.items()}
    small = {"weights": files["faces"], "side": 256}
    return {
        "nudity": {"weights": files["nudity"]},
        "text": {"weights": files["text"]},
        "faces": {"find": small},
    }


def table(made: curate.Run, name: str) -> Table:
    return Store(str(made.workdir)).table(name)


def run(root: Path, pool: Path, screen: dict[str, Any], *, update: bool = False, **changes: Any) -> curate.Run:
    config = {"recipe": "dedup", "sources": {"pool": str(pool)}, "workdir": str(root / "run"), "screen": screen}
    config |= {"write": None, "map": None, "copies": {"embed": {"model": "lite0-copy", "device": "cpu"}}}
    return curate.run(config | changes, update=update)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pool: Path) -> curate.Run:
    """A run that measures everything, with a rule on one of the scores."""
    root = tmp_path_factory.mktemp("made")
    return run(root, pool, {"looks": True, **networks(root), "drop": {"num_faces": {"above": 1}}})


def rows_of(made: curate.Run, name: str) -> dict[str, dict[str, Any]]:
    """Rows of a table aligned with the catalog, by key."""
    keys = table(made, "catalog").read_all(["key"])["key"].to_pylist()
    return dict(zip(keys, table(made, name).read_all().to_pylist(), strict=True))


def test_scores_of_a_run_are_those_of_its_pictures(made: curate.Run, pool: Path) -> None:
    looks, faces = rows_of(made, "internal/scores/looks"), rows_of(made, "internal/scores/faces")
    scores = rows_of(made, "scores")
    for number in range(len(NAMES)):
        key = f"{number}.png"
        seen = Pictured(picture(number), 384, 256, (pool / key).read_bytes())
        for name, value in measure_looks(seen, list(LOOKS)).items():
            assert looks[key][name] == scores[key][name] == pytest.approx(value, abs=1e-6)
        places = PLACES.get(number, [])
        assert faces[key]["num_faces"] == scores[key]["num_faces"] == len(places)
        boxes = sorted([box["left"], box["top"], box["right"], box["bottom"]] for box in faces[key]["faces"])
        expected = [(x / 384, y / 256, (x + SIDE) / 384, (y + SIDE) / 256) for x, y in sorted(places)]
        np.testing.assert_allclose(boxes, expected or np.empty((0,)), atol=0.02)
        largest = SIDE * SIDE / (384 * 256) if places else 0
        assert scores[key]["largest_face"] == pytest.approx(largest, rel=0.1)
        assert 0 <= scores[key]["nudity"] <= 1
        assert 0 <= scores[key]["text_area"] <= 1
    assert "faces" not in scores["0.png"]
    assert all(scores["5.jpg"][name] is None for name in (*LOOKS, "num_faces", "nudity", "text_area"))


def test_columns_tell_their_network_and_its_weights(made: curate.Run) -> None:
    screen = made.finished.config["screen"]
    for which, file, name in (
        ("nudity", screen["nudity"]["weights"], "nudity"),
        ("text", screen["text"]["weights"], "text_area"),
        ("faces", screen["faces"]["find"]["weights"], "num_faces"),
    ):
        digest = hash_file(Path(file))
        for where in (f"internal/scores/{which}", "scores"):
            metadata = table(made, where).schema().field(name).metadata
            assert metadata[b"curate.weights"].decode() == digest
            assert metadata[b"curate.model"]
            assert metadata[b"doc"]
        assert table(made, f"internal/scores/{which}").complete_manifest().pins["weights"] == digest


def test_rules_on_them_reject_and_say_why(made: curate.Run) -> None:
    scores = rows_of(made, "scores")
    assert {key for key, row in scores.items() if row["reject"]} == {"1.png"}
    assert (scores["1.png"]["reject"], scores["1.png"]["value"]) == ("num_faces", 2)


def test_what_needs_larger_pictures_is_read_in_a_pass_of_its_own(tmp_path: Path, pool: Path) -> None:
    screen = Screening.model_validate({"looks": True, "faces": True, "text": {"side": 1024}, "nudity": True})
    assert screen.picture_stages(decode_side=256).keys() == {
        f"internal/scores/{name}" for name in ("origin", "looks", "nudity", "faces")
    }
    assert screen.larger_stages(decode_side=256).keys() == {"internal/scores/text"}
    assert screen.larger_stages(decode_side=683) == {}
    given = networks(tmp_path)
    given["faces"]["find"]["side"] = 512
    rows = rows_of(run(tmp_path, pool, {"faces": given["faces"]}), "internal/scores/faces")
    assert len(rows) == len(NAMES) + 1
    assert rows["5.jpg"]["num_faces"] is None
    assert rows["0.png"]["num_faces"] is not None


def test_a_change_of_scores_leaves_the_other_tables_as_they_are(tmp_path: Path, pool: Path) -> None:
    before = run(tmp_path, pool, {"looks": ["blur"]})
    kept = ("images", "embeddings/copy", "internal/scores/looks")
    parts = {name: (tmp_path / "run" / name / "part-00000.parquet").stat().st_mtime_ns for name in kept}
    assert "blur" in table(before, "scores").schema().names
    run(tmp_path, pool, {"looks": ["blur"], "drop": {"blur": "preset"}}, update=True)
    assert parts == {name: (tmp_path / "run" / name / "part-00000.parquet").stat().st_mtime_ns for name in kept}


def test_words_stand_for_the_defaults() -> None:
    for given, blurs in ((True, False), ("score", False), ("blur", True), ({"blur": True}, True), ({}, False)):
        faces = Screening.model_validate({"faces": given}).faces
        assert faces is not None
        assert (faces.blur is not None) == blurs
    none = Screening.model_validate({"faces": False, "nudity": False, "text": None, "looks": False, "opt_outs": None})
    assert none.looked_at == {}
    assert Screening.model_validate({"looks": True}).looked_at["internal/scores/looks"].score_names() == tuple(LOOKS)


def test_settings_that_cannot_be_meant_are_errors() -> None:
    with pytest.raises(ConfigError, match="blur stands there twice"):
        parse(Screening, {"looks": ["blur", "blur"]}, where="config")
    with pytest.raises(ConfigError, match="least=0.6: boxes below it are not kept; set it to 0.5 or less"):
        parse(Screening, {"faces": {"find": {"least": 0.6}}}, where="config")
    with pytest.raises(ConfigError, match="faces"):
        parse(Screening, {"faces": "blurred"}, where="config")


def test_what_is_not_installed_is_told_before_the_run(
    tmp_path: Path, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = shipped.ShippedNetwork("CenterFace", "no-such-package", "a.onnx", extra="faces", license="", alone=True)
    monkeypatch.setattr("curate.stages.screening.find_faces.FindFaces.network", absent)
    with pytest.raises(MissingExtra, match=r"no-such-package, which ships the weights of CenterFace, is not installed"):
        run(tmp_path, pool, {"faces": True})
    assert not (tmp_path / "run/catalog").exists()
    monkeypatch.setattr(network_scores, "_is_installed", lambda library: library != "onnxruntime")
    with pytest.raises(MissingExtra, match=r"onnxruntime is not installed; .*\[nudity\]"):
        run(tmp_path, pool, {"nudity": networks(tmp_path)["nudity"]})


def test_rows_are_the_same_in_parts_of_any_size(tmp_path: Path, made: curate.Run, pool: Path) -> None:
    many = run(tmp_path, pool, {"looks": True, **networks(tmp_path)}, rows_per_part=2)
    for name in ("looks", "nudity", "faces", "text"):
        rows = [table(one, f"internal/scores/{name}").read_all().drop_columns("image_id") for one in (made, many)]
        assert rows[0].equals(rows[1])


def test_cost_of_a_detector_grows_with_the_square_of_its_side() -> None:
    given = Assumptions(images=1000)
    shapes = {"catalog": Shape(pool=1000, row_bytes=100)}
    costs = [FindFaces(side=side).cost(shapes, given)[0].forward for side in (256, 512)]
    assert costs[1] == 4 * costs[0] > 0
    (demand, made), (alone, _) = (FindText().cost(inputs, given) for inputs in (shapes, shapes | {"images": Shape()}))
    assert (made.rows, demand.megapixels) == (1000, 0)
    assert alone.megapixels > 0
    assert MeasureLooks().cost(shapes, given)[0].forward == 0
