"""A pool that is rejected almost whole: the error names the limit and the value that would have let most of it pass."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from benchmarks import encoders as enc
from benchmarks.formats import samples
from benchmarks.select import put
from curate.config import parse
from curate.engine.image_ids import CatalogFigures
from curate.engine.store import Store
from curate.errors import TooManyRejects
from curate.recipe import RecipeConfig
from curate.sources.config import Source, Sources
from curate.stages.images.catalog import Catalog
from curate.stages.images.inspect import Inspect
from curate.tables import CATALOG, IMAGES
from tests.ops.images.pictures import comment_bomb, encode


class Config(RecipeConfig):
    inspect: Inspect = Inspect()


def judge(folder: Path, workdir: Path, **inspect: object) -> None:
    """Inspect a folder and sum up, as the recipe of a config does."""
    values = {"recipe": "x", "workdir": str(workdir), "sources": str(folder), "inspect": inspect}
    stage = parse(Config, values, where="test").inspect
    ((_, rows),) = Catalog(sources=Sources(pool=(Source(name="pool", path=str(folder)),))).scan(None)
    store = Store(workdir)
    made = pa.Table.from_batches(list(stage.run(0, catalog=rows))).combine_chunks().to_batches()[0]
    put(store, "catalog", CATALOG, 1, {}, figures=CatalogFigures.of_parts([("pool", "pool", len(rows))]))
    put(store, "images", IMAGES, 1, {0: made})
    stage.summarize(store.table("images"), catalog=store.table("catalog"))


def write_many(folder: Path, count: int, make: Callable[[int], Image.Image | bytes]) -> None:
    folder.mkdir()
    for number in range(count):
        made = make(number)
        if isinstance(made, bytes):
            (folder / f"{number:02d}.bin.png").write_bytes(made)
        else:
            made.save(folder / f"{number:02d}.png")


def gradient(size: tuple[int, int]) -> Image.Image:
    return Image.linear_gradient("L").resize(size)


@pytest.mark.parametrize(
    ("make", "advice", "inspect"),
    [
        (lambda n: gradient((28, 28)), "too_small: inspect.limits.min_side=28 lets 10 of 10 pass", {}),
        (lambda n: gradient((31, 9 + n)), "too_small: inspect.limits.min_side=9 lets 10 of 10 pass", {}),
        (
            lambda n: gradient((40, 400)),
            "extreme_aspect: inspect.limits.max_aspect=10 lets 10 of 10 pass",
            {},
        ),
        (
            lambda n: Image.effect_noise((64, 64), 60),
            r"noise: inspect.limits.min_smoothness=-0\.\d+ lets \d+ of 10 pass",
            {},
        ),
        (lambda n: Image.new("RGB", (64, 64)), "uniform: inspect.limits.min_luma_std=0 lets 10 of 10 pass", {}),
        (
            lambda n: gradient((100, 100 + n)),
            "too_large: inspect.limits.max_pixels=10900 lets 10 of 10 pass",
            {"limits": {"max_pixels": 5000}},
        ),
        (
            lambda n: gradient((100, 100)),
            r"too_large: inspect.limits.max_bytes=\d+ lets 10 of 10 pass",
            {"limits": {"max_bytes": 100}},
        ),
        (
            lambda n: encode(gradient((700 + n, 500)), "WEBP"),
            r"too_large: inspect.limits.max_decode_bytes=\d+ lets 10 of 10 pass",
            {"limits": {"max_decode_bytes": 1 << 20}},
        ),
        (
            lambda n: comment_bomb(4 << 20),
            "too_slow: inspect.limits.max_seconds=0.2 would let honest ones pass.*more than 0.02 seconds",
            {"limits": {"max_seconds": 0.02}},
        ),
        (lambda n: b"<html>", "not_an_image: no limit accepts what is no picture.*10 of 10", {}),
        (lambda n: b"8BPS" + bytes(40), r"unsupported: no limit .*PSD \(Photoshop\): not read; convert it", {}),
        (
            lambda n: enc.png(samples(1, 9), 16),
            r"uniform: the 16-bit samples of 10 of 10 use 9 bits or fewer; set .* significant_bits: 9}",
            {},
        ),
    ],
)
def test_the_error_names_the_key_and_value_by_the_facts(
    tmp_path: Path, make: Callable[[int], Image.Image | bytes], advice: str, inspect: dict[str, object]
) -> None:
    write_many(tmp_path / "pool", 10, make)
    with pytest.raises(TooManyRejects, match=f"10 of 10 images were rejected .*none of the pool is left; {advice}"):
        judge(tmp_path / "pool", tmp_path / "run", **inspect)
    with pytest.raises(TooManyRejects, match="none of the pool is left"):  # whatever share is allowed
        judge(tmp_path / "pool", tmp_path / "again", **inspect, max_reject_fraction=1)


@pytest.mark.parametrize("make", [lambda n: gradient((20 + n // 5, 28)), lambda n: Image.effect_noise((64, 64), 60)])
def test_the_value_that_is_named_lets_most_pass(tmp_path: Path, make: Callable[[int], Image.Image]) -> None:
    write_many(tmp_path / "pool", 10, make)
    with pytest.raises(TooManyRejects) as caught:
        judge(tmp_path / "pool", tmp_path / "run")
    found = re.search(r"inspect\.limits\.(\w+)=(\S+) lets (\d+) of 10 pass", str(caught.value))
    assert found is not None
    limits = {found[1]: float(found[2]) if "." in found[2] else int(found[2])}
    judge(tmp_path / "pool", tmp_path / "again", limits=limits)
    assert int(found[3]) >= 9


def test_rare_reasons_are_not_spoken_of_and_the_share_is_named_by_its_key(tmp_path: Path) -> None:
    kinds = [gradient((28, 28))] * 11 + [gradient((64, 64))] * 8
    write_many(tmp_path / "pool", 20, lambda n: b"<html>" if n == 19 else kinds[n])
    with pytest.raises(TooManyRejects) as caught:
        judge(tmp_path / "pool", tmp_path / "run")
    text = str(caught.value)
    assert "12 of 20 images" in text
    assert "inspect.max_reject_fraction=0.5 allows; too_small: inspect.limits.min_side=28 lets 11 of 11" in text
    assert "pass, with --rebuild images;" in text
    assert "not_an_image: no limit" not in text
    assert text.endswith("run again with inspect.max_reject_fraction=1")
    judge(tmp_path / "pool", tmp_path / "again", max_reject_fraction=1)


def test_facts_say_how_many_pass_rather_than_all(tmp_path: Path) -> None:
    sides = np.r_[np.full(18, 30), 5, 6]
    write_many(tmp_path / "pool", 20, lambda n: gradient((int(sides[n]), int(sides[n]))))
    with pytest.raises(TooManyRejects, match=r"min_side=\d+ lets (18|19|20) of 20 pass"):
        judge(tmp_path / "pool", tmp_path / "run")
