"""The Python front door: the same runs as on the command line, and what can be asked of them."""

import io
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import curate
from curate.errors import ConfigError, CurateError, SourceError, TableError, WorkdirError
from curate.samples.bundled import photos_by_category

NUM_ORIGINALS = 26
COPIED = {"copy_a.jpg": "00.jpg", "copy_b.jpg": "00.jpg", "copy_c.jpg": "01.jpg"}
"""Copies in the pool by the picture that they were made of."""
TINY_TRAINING: dict[str, Any] = {
    "model": {"preset": "tiny", "depth": 1, "patch_size": 16, "num_registers": 0},
    "crops": {"global_size": 32, "local_size": 16},
    "objective": {"prototypes": 32, "head_hidden": 32},
    "batch_size": 4,
    "iterations": 2,
    "workers": 0,
}


PHOTOS = [path for paths in photos_by_category().values() for path in paths[:2]][:NUM_ORIGINALS]


def photo(number: int) -> Image.Image:
    """One of the bundled photographs, small; no two are alike."""
    with Image.open(PHOTOS[number]) as file:
        return file.convert("RGB").resize((160, 120))


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 files: 26 pictures, three of them copies of others, and one that is no picture."""
    folder = tmp_path_factory.mktemp("api") / "pool"
    folder.mkdir()
    for number in range(NUM_ORIGINALS):
        photo(number).save(folder / f"{number:02d}.jpg", quality=95)
    for name, original in COPIED.items():
        with Image.open(folder / original) as picture:
            picture.resize((120, 90)).save(folder / name, quality=60 if name == "copy_b.jpg" else 80)
    (folder / "broken.jpg").write_bytes(b"<html>gone</html>")
    return folder


@pytest.fixture(scope="session")
def made(pool: Path) -> curate.Run:
    """The pool, deduplicated."""
    return curate.run("dedup", workdir=str(pool.parent / "run"), sources={"pool": str(pool)})


def listed_in(run: curate.Run, table: str, where: str = "true") -> int:
    """Rows of a table, counted by DuckDB."""
    found = duckdb.sql(f"select count(*) from '{run.workdir}/{table}/part-*.parquet' where {where}").fetchall()
    return int(found[0][0])


def test_every_public_name_is_there() -> None:
    for name in curate.__all__:
        assert getattr(curate, name).__doc__, name
    assert set(curate.__all__) <= set(dir(curate))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        curate.absent  # noqa: B018


def test_tables_are_those_of_the_workdir(made: curate.Run) -> None:
    assert [*made.tables][:2] == ["catalog", "images"]
    assert {"duplicates", "selection", "shards/data"} <= made.tables.keys()
    frame = made.tables["duplicates"].to_pandas()
    files = sorted(Path(made.workdir, "duplicates").glob("part-*.parquet"))
    assert frame["image_id"].tolist() == [i for file in files for i in pq.read_table(file)["image_id"].to_pylist()]
    with pytest.raises(KeyError):
        made.tables["nothing"]


def test_summary_counts_what_lies_in_the_tables(made: curate.Run) -> None:
    found = made.summary
    assert found.listed == listed_in(made, "catalog") == NUM_ORIGINALS + len(COPIED) + 1
    assert found.rejected == {"not_an_image": listed_in(made, "images", "reject is not null")}
    assert found.duplicates == listed_in(made, "duplicates", "verdict = 'duplicate'") == len(COPIED)
    assert found.contaminated == 0
    assert found.selected == listed_in(made, "selection") == NUM_ORIGINALS


def test_shards_and_report_are_files(made: curate.Run) -> None:
    assert pq.read_table(made.shards).num_rows == NUM_ORIGINALS
    assert Path(made.report).read_text().startswith("<!doctype html>")
    assert made.finished.tables[0].name == "catalog"


def test_a_run_is_opened_again_and_has_nothing_to_do(made: curate.Run, pool: Path) -> None:
    again = curate.open_run(made.workdir)
    assert again.summary == made.summary
    assert made.workdir in repr(again)
    before = made.tables["selection"].complete_manifest()
    curate.run("dedup", workdir=made.workdir, sources={"pool": str(pool)})
    assert made.tables["selection"].complete_manifest() == before


def test_name_path_and_dict_are_one_config_and_keywords_change_single_keys(pool: Path, tmp_path: Path) -> None:
    """Of a dict of one setting the others stay: without the model there would be no config at all."""
    values: dict[str, Any] = {"recipe": "dedup", "copies": {"embed": {"model": "lite0-copy"}, "hashes": False}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "pool").mkdir()
    for name in ("00.jpg", "copy_a.jpg", "02.jpg"):
        (tmp_path / "pool" / name).write_bytes((pool / name).read_bytes())
    tables = []
    for number, config in enumerate((values, tmp_path / "mine.yaml", str(tmp_path / "mine.yaml"), "dedup")):
        changes: dict[str, Any] = {
            "sources": {"pool": str(tmp_path / "pool")},
            "copies": {"verify": False, "hashes": False},
        }
        run = curate.run(config, workdir=str(tmp_path / f"run{number}"), seed=5, **changes)
        assert run.finished.config["copies"]["embed"]["model"] == "lite0-copy"
        assert run.finished.config["seed"] == 5
        assert "internal/neighbors/pdq" not in run.tables
        assert "internal/neighbors/aligned" not in run.tables
        tables.append(run.tables["duplicates"].read_all())
    assert all(table.equals(tables[0]) for table in tables)
    assert "workdir" not in values


def test_copies_of_a_folder_are_found_and_nothing_is_left_behind(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    groups = curate.find_copies(str(pool))
    assert [*tmp_path.iterdir()] == []
    assert [len(group.images) for group in groups] == [3, 2]
    for group in groups:
        names = {image.key for image in group.images}
        originals = names - COPIED.keys()
        assert names - originals == {name for name, original in COPIED.items() if {original} == originals}
        assert group.kept is group.images[0]
        assert group.images[1:] == group.copies
        assert [image.kept for image in group.images] == [True] + [False] * len(group.copies)
        assert (group.kept.similarity, group.kept.evidence) == (None, None)
        assert all((image.similarity or 0) > 0.5 and image.evidence for image in group.copies)
        for image in group.images:
            assert image.uri == str(pool / image.key)
            with Image.open(pool / image.key) as file:
                assert np.array_equal(np.asarray(image.picture()), np.asarray(file.convert("RGB")))


def test_a_picture_that_is_gone_says_so(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(1).save(tmp_path / name)
    (group,) = curate.find_copies(str(tmp_path))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(SourceError, match=r"a\.jpg"):
        group.kept.picture()


def test_a_pool_without_copies_has_no_groups(tmp_path: Path) -> None:
    for number in range(3):
        photo(number).save(tmp_path / f"{number}.jpg")
    assert curate.find_copies({"path": str(tmp_path), "name": "mine"}) == []


def test_a_backbone_embeds_the_same_picture_alike_however_it_is_given(tmp_path: Path) -> None:
    picture = photo(3)
    picture.save(tmp_path / "a.png")
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    given = [str(tmp_path / "a.png"), tmp_path / "a.png", picture, np.asarray(picture), encoded.getvalue(), photo(4)]
    backbone = curate.load_backbone("lite0", device="cpu", precision="fp32")
    vectors = backbone.embed(given, batch_size=4)
    assert vectors.shape == (6, backbone.dim)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(vectors[:5], vectors[0], atol=1e-6)
    assert vectors[5] @ vectors[0] < 0.95
    assert backbone.embed([]).shape == (0, backbone.dim)


def test_pictures_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    backbone = curate.load_backbone("lite0", device="cpu")
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    for name in ("a.jpg", "absent.jpg"):
        with pytest.raises(SourceError, match=name):
            backbone.embed([tmp_path / name])


def test_a_backbone_is_trained_on_the_shards_of_a_run(made: curate.Run, tmp_path: Path) -> None:
    result = curate.train("train/tiny", shards=made.shards, output=str(tmp_path / "out"), **TINY_TRAINING)
    assert result.log[-1]["step"] == 2
    vectors = curate.load_backbone(str(result.export), device="cpu").embed([photo(0), photo(1)])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_folders_without_a_run_and_configs_that_cannot_be_are_errors(tmp_path: Path, pool: Path) -> None:
    with pytest.raises(WorkdirError, match="no run of curate here"):
        curate.open_run(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        curate.run("dedup", workdir=str(tmp_path / "run"), sources={"pool": str(pool)}, sed=1)
    with pytest.raises(CurateError, match="absent"):
        curate.run("dedup", workdir=str(tmp_path / "run"), sources={"pool": str(tmp_path / "absent")})
    with pytest.raises(ConfigError, match="absent"):
        curate.run("absent", workdir=str(tmp_path / "run"))


def test_a_run_that_ends_with_verdicts_selects_nothing_and_has_no_shards(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    for number in range(3):
        photo(number).save(tmp_path / f"pool/{number}.jpg")
    run = curate.run("dedup", workdir=str(tmp_path / "run"), sources={"pool": str(tmp_path / "pool")}, write=None)
    assert (run.summary.listed, run.summary.selected) == (3, None)
    assert "selection" not in run.tables
    with pytest.raises(TableError, match="makes no shards"):
        run.shards  # noqa: B018
    assert not Path(run.workdir, "shards").exists()
