import csv
import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.errors import ConfigError, SourceError
from curate.samples import pool
from curate.samples.bundled import SAMPLES
from curate.samples.plan import SHARES
from curate.samples.pool import make_pool
from curate.samples.truth import JUNK_KINDS, NEAR_KINDS, TRUTH_COLUMNS

NUM = 400


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pool") / "out"
    make_pool(out, num_images=NUM, seed=1)
    return out


def read_truth(out: Path) -> list[dict[str, str]]:
    with (out / "truth.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == TRUTH_COLUMNS
    return rows


def digests(out: Path) -> dict[str, str]:
    files = sorted(p for p in out.rglob("*") if p.is_file())
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_parameters_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_pool(tmp_path / name, num_images=40, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")


def test_truth_names_every_file_once(made: Path) -> None:
    files = [row["file"] for row in read_truth(made)]
    assert sorted(files) == sorted(set(digests(made)) - {"truth.csv", "pool.json"})
    assert sum(file.startswith("pool/") for file in files) == NUM


def test_kinds_have_their_shares(made: Path) -> None:
    kinds = Counter(row["kind"] for row in read_truth(made))
    assert sum(kinds[kind] for kind in NEAR_KINDS) == round(NUM * SHARES["near"])
    assert all(kinds[kind] for kind in (*NEAR_KINDS, *JUNK_KINDS))
    for kind in ("frame", "exact_copy", "heldout_copy"):
        assert kinds[kind] == round(NUM * SHARES[kind])
    assert kinds["heldout"] == 60
    assert set(kinds) <= {"original", "view", "exact_copy", "frame", "heldout_copy", "curated", "heldout"} | set(
        NEAR_KINDS
    ) | set(JUNK_KINDS)


def test_copies_are_what_the_truth_says(made: Path) -> None:
    sums = digests(made)
    for row in read_truth(made):
        if row["kind"] == "exact_copy":
            assert sums[row["file"]] == sums[row["copy_of"]]
        elif row["kind"].startswith("near_"):
            assert sums[row["file"]] != sums[row["copy_of"]]
        elif row["kind"] == "heldout_copy":
            assert row["copy_of"].startswith("heldout/")
        elif row["kind"] == "original":
            assert row["copy_of"] == ""


def test_photograph_is_in_one_role_unless_planted(made: Path) -> None:
    roles: dict[str, set[str]] = {}
    for row in read_truth(made):
        if row["source"] and row["kind"] != "heldout_copy":
            roles.setdefault(row["source"], set()).add(row["file"].split("/")[0])
    assert all(len(found) == 1 for found in roles.values())


def test_junk_is_junk(made: Path) -> None:
    for row in read_truth(made):
        data = (made / row["file"]).read_bytes()
        if row["kind"] == "junk_empty":
            assert data == b""
        elif row["kind"] == "junk_text":
            assert data.startswith(b"<html>")
        elif row["kind"] == "junk_truncated":
            with pytest.raises(OSError, match=r"truncated|identify"):
                Image.open(io.BytesIO(data)).load()
        elif row["kind"] == "junk_tiny":
            assert min(Image.open(io.BytesIO(data)).size) < 48
        elif row["kind"] == "junk_uniform":
            assert np.ptp(np.asarray(Image.open(io.BytesIO(data))), axis=(0, 1)).max() == 0
        elif row["kind"] == "junk_aspect":
            size = Image.open(io.BytesIO(data)).size
            assert max(size) / min(size) > 5


def test_made_again_nothing_is_written(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_write_items", None)
    before = digests(made)
    make_pool(made, num_images=NUM, seed=1)
    assert digests(made) == before


def test_another_pool_or_a_foreign_folder_is_never_overwritten(made: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"made with num_images=400, not 50; delete it or choose another"):
        make_pool(made, num_images=50, seed=1)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(SourceError, match="no pool of this generator; choose another folder"):
        make_pool(tmp_path, num_images=50)
    assert (tmp_path / "mine.txt").read_text() == "x"


def test_unfinished_pool_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "out.unfinished" / "pool").mkdir(parents=True)
    (tmp_path / "out.unfinished" / "pool" / "999999.jpg").write_bytes(b"left over")
    (tmp_path / "out").mkdir()
    make_pool(tmp_path / "out", num_images=20)
    assert len(list((tmp_path / "out/pool").iterdir())) == 20
    assert not (tmp_path / "out.unfinished").exists()


def test_parameters_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_images is 19, it must be at least 20"):
        make_pool(tmp_path / "a", num_images=19)
    with pytest.raises(ConfigError, match=r"contaminated is 2, it must lie in 0\.\.1"):
        make_pool(tmp_path / "a", contaminated=2)
    with pytest.raises(ConfigError, match="no category 'unicorns'"):
        make_pool(tmp_path / "a", curated_categories=["unicorns"])


def test_every_bundled_picture_has_its_attribution() -> None:
    with (SAMPLES / "ATTRIBUTION.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    bundled = [p.relative_to(SAMPLES).as_posix() for p in SAMPLES.rglob("*") if p.suffix in (".jpg", ".npz")]
    assert sorted(rows) == sorted(bundled)
    assert all(row["licence"] and row["author"] and row["licence_evidence"] for row in rows.values())
