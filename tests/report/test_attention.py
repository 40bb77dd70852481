import io
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.models.files.export import write_export
from curate.models.files.header import ExportInfo
from curate.models.nets.config import ViTConfig
from curate.report.page import write_report
from curate.report.pictures import Pictures
from curate.report.run import Run
from curate.report.sections import attention
from curate.tables import TRAINING_LOG
from tests.models.nets.seeded import seeded
from tests.report.test_markup import read
from tests.report.workdir import Workdir, put, rows

TINY = ViTConfig(dim=24, depth=2, heads=3, image_size=28, layer_scale_init=1.0)
EXPORT, INITIAL = "pretrain/run-1/backbone.safetensors", "pretrain/run-1/backbone-init.safetensors"


@pytest.fixture
def trained(workdir: Workdir) -> Workdir:
    for seed, name in enumerate((EXPORT, INITIAL)):
        info = ExportInfo(image_size=28, short_edge=28)
        write_export(Path(workdir.store.join(name)), seeded(TINY, seed=seed), info)
    log = rows(TRAINING_LOG, (1, "loss", 1.0))
    put(workdir.store, "pretrain", [log], stage="Pretrain", metrics={"export": EXPORT, "initial": INITIAL})
    return workdir


def section(workdir: Workdir) -> str | None:
    return attention.section(Run.open(workdir.store), Pictures(workdir.store))


def pictures(text: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    return [np.asarray(Image.open(io.BytesIO(b64decode(each))), int) for each in found]


def test_each_picture_stands_beside_what_both_backbones_make_of_it(trained: Workdir) -> None:
    text = section(trained)
    assert text is not None
    captions = re.findall(r"<figcaption><span>([^<]+)", text)
    one = ["image", *(f"{what}, {of}" for what in ("attention", "patches") for of in ("initialisation", "pretrained"))]
    assert captions == one * 2  # the workdir's selection holds two pool images
    shown = pictures(text)
    assert {picture.shape for picture in shown} == {(211, 264, 3)}
    before, after = shown[3], shown[4]
    assert np.abs(before - after).mean() > 5


def test_the_section_is_part_of_the_page_and_made_twice_is_the_same(trained: Workdir) -> None:
    first = Path(write_report(trained.store)).read_text(encoding="utf-8")
    assert [a["id"] for tag, a in read(first).tags if tag == "section"][-2:] == ["attention", "timings"]
    assert Path(write_report(trained.store)).read_text(encoding="utf-8") == first


def test_without_exports_or_selected_images_there_is_no_section(workdir: Workdir, tmp_path: Path) -> None:
    assert section(workdir) is None  # a training that names no exports
    assert section(Workdir(tmp_path / "other").catalog()) is None


def test_exports_that_are_gone_are_named_without_their_place(trained: Workdir, tmp_path: Path) -> None:
    Path(trained.store.join(EXPORT)).unlink()
    text = section(trained)
    assert text is not None
    assert f"{EXPORT}: no longer there" in text
    assert str(tmp_path) not in text


def test_images_that_are_gone_leave_a_line_that_says_so(trained: Workdir) -> None:
    for path in Path(trained.sources.pool[0].path).iterdir():
        path.unlink()
    text = section(trained)
    assert text is not None
    assert "can no longer be read" in text
    assert pictures(text) == []
