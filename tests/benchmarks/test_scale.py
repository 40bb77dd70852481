"""Faked pools, and whole recipes over them: what the file systems count is what the laws say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.scale.measure import Ran, Row, read_rows
from benchmarks.scale.pool import (
    BLOCK,
    COPY_OF,
    CROWD_EVERY,
    Pool,
    bytes_of,
    copies_of,
    copy_vectors,
    hashes,
    is_crowd,
    looks_like,
    make_source,
)
from benchmarks.scale.recipes import RECIPES, Scale, make_config
from benchmarks.scale.verdicts import UNPLANNED, growing, law_of, misplanned
from curate.counting import Counts
from curate.engine.cost import Demand
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.running import run_config
from curate.sources.reading import read_part
from curate.stages.images.catalog import Catalog


def test_contents_are_those_of_all_images_once() -> None:
    for images in (1, 2, 7, 1000, 4321):
        contents = Pool(role="pool", images=images, pool_images=images).contents(np.arange(images))
        assert sorted(contents.tolist()) == list(range(images))


def test_copies_lie_near_each_other_and_nothing_else_does() -> None:
    contents = np.arange(BLOCK * 6)
    vectors = copy_vectors(contents, 64)
    cosine = vectors @ vectors.T
    same = copies_of(contents)[:, None] == copies_of(contents)
    alike = looks_like(contents)[:, None] == looks_like(contents)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert same.sum() > len(contents)
    assert cosine[same].min() > 0.85
    assert cosine[~alike].max() < 0.7
    bits = np.unpackbits(hashes(contents)[1:2] ^ hashes(contents)[0:1]).sum()
    assert 2 <= bits <= 31


def test_one_block_of_fifty_is_a_crowd_of_different_pictures_that_look_alike() -> None:
    contents = np.arange(BLOCK * CROWD_EVERY)
    crowd = contents[is_crowd(contents)]
    assert len(crowd) == BLOCK
    assert len(np.unique(copies_of(crowd))) == BLOCK
    assert len(np.unique(looks_like(crowd))) == 1
    vectors = copy_vectors(crowd, 64)
    assert (vectors @ vectors.T).min() > 0.75
    assert (copies_of(contents) != contents).sum() == len(COPY_OF) * (CROWD_EVERY - 1)


def test_images_have_the_same_bytes_however_many_are_read_and_copies_by_bytes_share_them(tmp_path: Path) -> None:
    source = make_source(tmp_path / "pool", Pool(role="pool", images=900, pool_images=900, container_images=400))
    ((_, rows),) = Catalog(sources={"pool": [source.model_dump()]}, rows_per_part=1000).scan(None)  # type: ignore[arg-type]
    every = [read.data for read in read_part(rows, source)]
    few = np.array([3, 4, 399, 400, 401, 650, 899])
    assert [read.data for read in read_part(rows.take(pa.array(few)), source)] == [every[row] for row in few]
    assert {len(data or b"") for data in every} == {4000}
    shown = bytes_of(Pool(role="pool", images=900, pool_images=900).contents(np.arange(900)))
    assert len(set(every)) == len(np.unique(shown)) < 900


def test_disk_holds_nothing_of_a_pool(tmp_path: Path) -> None:
    make_source(tmp_path / "pool", Pool(role="pool", images=50_000, pool_images=50_000))
    files = sorted((tmp_path / "pool").glob("*.faked"))
    assert [file.stat().st_size for file in files] == [40_000_000] * 5
    assert sum(file.stat().st_blocks * 512 for file in files) < 1_000_000


PART_ROWS = {"dedup": 150, "lvd142m": 150, "hierarchical": 400}
"""Images of a part; of `hierarchical`, which selects little more than half of them, enough that each part reads alike:
files are read through where half of their images are wanted."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_step_reads_what_its_law_says(tmp_path: Path, recipe: str) -> None:
    scale = Scale(rows_per_part=PART_ROWS[recipe], shard_bytes=1 << 20)
    config = make_config(recipe, 2000, tmp_path, scale)
    run_config(config, Flags())
    rows = read_rows(recipe, config, 2000, scale)
    assert all(row.counts.bytes_read > 0 and row.counts.requests > 0 for row in rows)
    assert {row.table: off for row in rows if (off := misplanned(row))} == {}
    kept = Store(config.workdir).table("duplicates").complete_manifest().figures["kept"]
    assert 0.7 < kept / 2000 < 0.85


def _row(images: int, cpu: float, *, read: int = 0, **law: Any) -> Row:
    counts = Counts(cpu_seconds=cpu, bytes_read=read, bytes_written=10 * images)
    return Row("dedup", "table", "Stage", images, 0.0, counts, 0, images, Demand(**{"read": read} | law))


def told(few: Row, many: Row) -> list[object]:
    """Figures that grow by more than they may."""
    return [one["figure"] for one in growing([Ran("dedup", [few], 0, None), Ran("dedup", [many], 0, None)])]


def test_more_than_linear_growth_is_told_and_n_log_n_where_the_law_says_so() -> None:
    assert told(_row(200_000, 100), _row(800_000, 400)) == []
    assert told(_row(200_000, 100), _row(800_000, 480)) == ["cpu_seconds"]
    assert told(_row(200_000, 100, n_log_n=True), _row(800_000, 480, n_log_n=True)) == []
    assert told(_row(200_000, 100, n_log_n=True), _row(800_000, 600, n_log_n=True)) == ["cpu_seconds"]
    assert told(_row(200_000, 0.01), _row(800_000, 0.2)) == []  # below the floor


def test_growth_that_ends_at_a_bound_may_be_what_the_law_foresees_and_no_more() -> None:
    few, many = 100 << 20, 800 << 20  # twice as many bytes an image
    assert told(_row(200_000, 1, read=few), _row(800_000, 4, read=many)) == ["bytes_read"]
    assert told(_row(200_000, 1, read=few), _row(800_000, 4, read=many, settles=True)) == []
    less = replace(_row(800_000, 4, read=many), planned=Demand(read=many / 2, settles=True))
    assert told(_row(200_000, 1, read=few), less) == ["bytes_read"]
    products = _row(800_000, 800, serial_products=1600, settles=True)
    assert told(_row(200_000, 100, serial_products=200), products) == []
    assert told(_row(200_000, 100, serial_products=400), products) == ["cpu_seconds"]
    assert [law_of(_row(1, 1, **law)) for law in ({}, {"n_log_n": True}, {"settles": True})] == [
        "N",
        "N log N",
        "N, settling",
    ]


def test_plan_is_held_to_a_factor_above_the_floor() -> None:
    row = _row(1000, 1, read=100 << 20)
    assert misplanned(row) == {}
    assert misplanned(replace(row, planned=Demand(read=60 << 20))) == {"bytes_read": pytest.approx(0.6)}
    many = replace(row, planned=Demand(read=100 << 20, requests=3000))
    assert misplanned(many) == {"requests": pytest.approx(3000 / UNPLANNED["requests"])}
