"""Curated and held-out images of any size: they are used, and what cannot be is told wherever a result speaks of it."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from curate.cli import app
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.feed.crops import decode_tensor, make_crops
from curate.feed.settings import CropSettings
from curate.recipe import load_config
from curate.report.explain import explain
from curate.running import run_config
from curate.samples.bundled import photos_by_category
from curate.samples.mnist import load_mnist5k
from curate.workdir import open_tables

NUM_DIGITS = 3


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over photographs and enlarged digits; the digits, 28 pixels wide, are the benchmark."""
    root = tmp_path_factory.mktemp("trusted")
    pool, heldout, curated = (root / name for name in ("pool", "heldout", "curated"))
    for folder in (pool, heldout, curated):
        folder.mkdir()
    photos = [paths[0] for paths in photos_by_category().values()][:8]
    for number, path in enumerate(photos):
        with Image.open(path) as photo:
            photo.convert("RGB").resize((96, 72)).save(pool / f"photo{number}.png")
    digits = [Image.fromarray(digit) for digit in load_mnist5k()[0][:NUM_DIGITS]]
    for number, digit in enumerate(digits):
        digit.save(heldout / f"{number}.png")
        digit.resize((112, 112), Image.Resampling.BICUBIC).save(pool / f"digit{number}.png")
    Image.new("RGB", (1, 1), "teal").save(heldout / "dot.png")
    Image.new("RGB", (2, 3000), "white").save(heldout / "line.png")
    (heldout / "cut.png").write_bytes((heldout / "0.png").read_bytes()[:80])
    (heldout / "page.jpg").write_bytes(b"<html>")
    digits_of_a_set = Image.fromarray(np.tile(np.asarray(digits[0])[:, ::-1], (1, 9)))  # 28 x 252
    digits_of_a_set.save(curated / "strip.png")
    sources = [f"sources.{name}={root / name}" for name in ("pool", "curated", "heldout")]
    run_config(load_config("dedup", [*sources, f"workdir={root}/run", "executor.threads=1"]), Flags())
    return root / "run"


def told(workdir: Path) -> str:
    found = CliRunner().invoke(app, ["status", str(workdir)], catch_exceptions=False)
    return " ".join(found.output.split())


def test_small_heldout_pictures_keep_their_enlarged_copies_out_of_the_shards(workdir: Path) -> None:
    keys = set(pq.read_table(workdir / "shards/data")["key"].to_pylist())
    assert keys == {f"photo{number}.png" for number in range(8)} | {"strip.png"}
    rows = Store(workdir).table("images").read_all(["reject"])["reject"].to_pylist()
    assert sorted(filter(None, rows)) == ["not_an_image", "truncated"]


def test_heldout_pictures_that_do_not_decode_are_named_by_page_card_status_and_story(workdir: Path) -> None:
    why = "1 truncated, 1 not an image: cut.png, page.jpg"
    assert f"5 of 7 held-out images could be compared; not {why}" in (workdir / "shards/README.md").read_text()
    said = (
        f"5 of 7 held-out images could be compared with the pool, so the result may hold copies of the others ({why})"
    )
    page = (workdir / "report/index.html").read_text()
    assert "Look at this first" in page
    assert said in page
    assert said in told(workdir)
    assert "not compared, since it was rejected" in explain(open_tables(Store(workdir)), "cut.png")
    assert "digit0.png" in explain(open_tables(Store(workdir)), "heldout/0.png")


def test_small_curated_pictures_in_the_shards_feed_the_trainer(workdir: Path) -> None:
    rows = pq.read_table(workdir / "shards/data").to_pylist()
    (strip,) = (row for row in rows if row["role"] == "curated")
    assert (strip["width"], strip["height"]) == (252, 28)
    image = decode_tensor(strip["image"]["bytes"], min_side=256)
    large, _ = make_crops(image, CropSettings(global_size=32, local_size=16), rng=np.random.default_rng(0))[:2]
    assert large.float().std() > 10
