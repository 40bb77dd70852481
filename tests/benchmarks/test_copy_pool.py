"""A whole run on a pool of files: what is written, what is counted, and who is not run."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.copy_pool import (
    NOT_RUN,
    Cost,
    Pool,
    format_pool,
    measure_pool,
    parse_edits,
    pool_as_json,
    score_peer,
    score_pool,
    usable_files,
    write_pool,
)
from curate.errors import ConfigError, SourceError
from curate.ops.images.edits import BORDERS, EDITS
from curate.samples.bundled import PHOTOS

FILES = sorted(PHOTOS.rglob("*.jpg"))[:8]


def test_a_pool_holds_the_files_as_they_are_and_readable_copies_of_some(tmp_path: Path) -> None:
    how = {"copied": 0.5, "copies_each": 3, "max_edits": 2, "edits": "borders", "seed": 1}
    pool, again = (write_pool(FILES, tmp_path / name, **how) for name in ("a", "b"))
    written = sorted(pool.folder.iterdir())
    assert [file.read_bytes() for file in written] == [file.read_bytes() for file in sorted(again.folder.iterdir())]
    assert [file.read_bytes() for file in written[:8]] == [file.read_bytes() for file in FILES]
    assert pool.source.tolist() == [*range(8), *(i for i in pool.source[8::3] for _ in range(3))]
    assert len(set(pool.source[8:].tolist())) == 4
    assert pool.edits[:8] == [()] * 8
    assert all(sum(name in BORDERS for name in names) == 1 for names in pool.edits[8:])
    for file in written[8:]:
        with Image.open(file) as copy:
            assert copy.format == {".png": "PNG", ".jpg": "JPEG"}[file.suffix]


def test_scores_equal_a_count_of_pairs_and_of_copies() -> None:
    rng = np.random.default_rng(0)
    source = np.concatenate([np.arange(10), rng.integers(0, 10, 20)])
    chains = [(), *[()] * 9, *(tuple(rng.choice(sorted(EDITS), 2, replace=False).tolist()) for _ in range(20))]
    groups = rng.integers(0, 12, 30)
    score = score_pool(Pool(Path(), source, chains), "ours", groups, Cost(3.0, 1))
    pairs = list(itertools.combinations(range(30), 2))
    found = {(i, j) for i, j in pairs if groups[i] == groups[j]}
    true = {(i, j) for i, j in pairs if source[i] == source[j]}
    hits = len(found & true)
    assert (score.precision.hits, score.precision.of) == (hits, len(found))
    assert (score.recall.hits, score.recall.of) == (hits, len(true))
    assert score.f1.value == pytest.approx(2 * hits / (len(found) + len(true)))
    assert score.images_per_cpu_second == 10
    for name, share in score.recall_by_edit.items():
        copies = [i for i in range(30) if name in chains[i]]
        assert (share.of, share.hits) == (len(copies), sum(groups[i] == groups[source[i]] for i in copies))


def test_a_small_pool_is_judged_by_us_and_by_pdqhash() -> None:
    found = measure_pool(num_pictures=8, copies_each=2, max_edits=1, seed=1, runs=["default"])
    assert (found.pictures, found.images) == (8, 8 + 2 * 6)
    default, pdqhash = found.scores
    assert (default.method, pdqhash.method) == ("default", "pdqhash")
    assert default.precision.value == pdqhash.precision.value == 1
    assert default.recall.value > pdqhash.recall.value > 0.2
    assert default.cost.peak_bytes > pdqhash.cost.peak_bytes > 2**20
    assert default.stages is not None
    assert {"catalog", "images", "duplicates"} < set(default.stages)
    assert sum(default.stages.values()) == pytest.approx(default.cost.cpu_seconds, rel=0.05)
    assert "not installed: No module named 'imagededup'" in found.not_run["imagededup"]
    text = format_pool(found)
    assert all(f"{tool}: " in text for tool in (*NOT_RUN, "imagededup"))
    row, _ = json.loads(pool_as_json(found))["scores"]
    assert row["precision"]["bounds"][0] < row["precision"]["value"] == 1


def test_a_peer_that_fails_is_told(tmp_path: Path) -> None:
    pool = write_pool(FILES[:1], tmp_path / "pool", copied=1, copies_each=1, max_edits=1, edits="web", seed=0)
    (pool.folder / "000001.jpg").write_bytes(b"no picture")
    why = score_peer(pool, "pdqhash", tmp_path, None)
    assert isinstance(why, str)
    assert why.startswith("failed: PIL.UnidentifiedImageError: cannot identify image file")


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--edits frames: needed is one of web, borders"):
        parse_edits("frames")
    with pytest.raises(ConfigError, match="copied=0: at least 1, 1, and above 0 to 1"):
        measure_pool(copied=0)
    with pytest.raises(SourceError, match="0 usable pictures, at least 4"):
        usable_files(tmp_path, 10)
