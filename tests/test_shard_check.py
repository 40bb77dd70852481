"""Shards against their manifest: what was flipped, lost, added or changed is found and named, from the folder alone."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from typer.testing import CliRunner

from curate.cli import app
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.shard_check import ShardCheck, check_shards
from curate.shard_manifest import NAME, SIGNATURE
from curate.signing import read_public_keys
from curate.verifying import verify
from tests.shards_on_disk import commit_shard, list_shards, read_manifest, shard_rows, write_shards

FIRST, SECOND = "data/part-00000.parquet", "data/part-00001.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shards alone, copied away from their workdir, without manifests of tables."""
    copied = shutil.copytree(write_shards(tmp_path / "run"), tmp_path / "copied")
    return copied


def look(folder: Path) -> ShardCheck:
    return check_shards(LocalFileSystem(), str(folder))


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """The shard with other rows, as a program that is not ours writes it: no checksum inside tells of it."""
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), path)


def named(found: ShardCheck) -> set[tuple[str, str, int, str]]:
    return {(image.shard, image.kind, image.image_id, image.key) for image in found.images}


def test_what_was_written_is_whole(folder: Path) -> None:
    found = look(folder)
    assert (found.shards, found.rows, found.problems, found.images) == (2, 5, {}, ())
    assert found.digest == read_manifest(folder)["digest"]


def test_digests_of_files_are_those_of_their_bytes(folder: Path) -> None:
    for shard in read_manifest(folder)["shards"]:
        data = (folder / shard["name"]).read_bytes()
        assert (shard["sha256"], shard["num_bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))


def test_each_flipped_bit_is_found_wherever_it_is(folder: Path) -> None:
    data = (folder / FIRST).read_bytes()
    for place in (0, 5, len(data) // 3, len(data) // 2, len(data) - 1000, len(data) - 1):
        flipped = bytearray(data)
        flipped[place] ^= 4
        (folder / FIRST).write_bytes(flipped)
        assert look(folder).problems.keys() == {FIRST}, place
    (folder / FIRST).write_bytes(data)
    assert not look(folder).problems


def test_a_picture_whose_bytes_were_changed_is_named_though_the_file_has_right_checksums(folder: Path) -> None:
    def flip(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        data = bytearray(rows[1]["image"]["bytes"])
        data[7] ^= 1
        rows[1]["image"]["bytes"] = bytes(data)
        return rows

    rewrite(folder / FIRST, flip)
    found = look(folder)
    assert named(found) == {(FIRST, "changed", 1, "1.jpg")}
    assert "1 image changed: 1.jpg (image 1)" in found.problems[FIRST]


def test_a_missing_an_added_and_a_renamed_row_are_named(folder: Path) -> None:
    rewrite(folder / FIRST, lambda rows: rows[:1] + rows[2:])
    rewrite(folder / SECOND, lambda rows: [*rows, *shard_rows([9])])
    found = look(folder)
    assert named(found) == {(FIRST, "missing", 1, "1.jpg"), (SECOND, "added", 9, "9.jpg")}
    rewrite(folder / SECOND, lambda rows: [rows[0] | {"key": "other.jpg"}, rows[1]])
    assert (SECOND, "changed", 5, "5.jpg") in named(look(folder))


def test_a_row_that_stands_twice_is_an_added_one(folder: Path) -> None:
    rewrite(folder / FIRST, lambda rows: [*rows, rows[0]])
    assert named(look(folder)) == {(FIRST, "added", 3, "3.jpg")}


def test_other_captions_are_told_from_other_images(folder: Path) -> None:
    rewrite(folder / FIRST, lambda rows: [row | {"caption": "x"} for row in rows])
    found = look(folder)
    assert not found.images
    assert "its images are those that were written: other columns changed" in found.problems[FIRST]


def test_a_missing_and_an_added_shard_are_named_with_their_images(folder: Path, tmp_path: Path) -> None:
    (folder / FIRST).rename(folder / "data/other.parquet")
    found = look(folder)
    assert found.problems["data/other.parquet"] == "added: the manifest does not know it"
    assert found.problems[FIRST].startswith("gone, with 3 images: 3.jpg (image 3), 1.jpg")
    assert named(found) == {(FIRST, "missing", n, f"{n}.jpg") for n in (1, 2, 3)}


def test_a_repaired_picture_counts_with_the_bytes_that_are_stored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (row,) = shard_rows([1], repaired="EXIF")
    row["sha256"] = "00" * 32
    commit_shard(store, 0, [row])
    list_shards(store, [0])
    assert not look(tmp_path / "shards").problems


def test_without_lists_what_is_wrong_is_told_without_names(folder: Path) -> None:
    shutil.rmtree(folder / ".rows")
    rewrite(folder / FIRST, lambda rows: rows[1:])
    found = look(folder)
    assert not found.images
    assert "the list of its images is gone or damaged, so that none can be named" in found.problems[FIRST]


def test_a_list_that_somebody_changed_with_the_shard_does_not_count(folder: Path) -> None:
    rewrite(folder / FIRST, lambda rows: rows[1:])
    lists = folder / ".rows/part-00000.parquet"
    table = pq.read_table(lists)
    pq.write_table(table.slice(1), lists)
    assert "none can be named" in look(folder).problems[FIRST]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace('"rows": 3', '"rows": 4'), "does not have the sha256"),
        (lambda text: "[]", "its format is"),
        (lambda text: '{"format": "curate-shards-2"}', "its format is 'curate-shards-2'"),
        (lambda text: '{"format": "curate-shards-1", "digest": "", "shards": [{"name": "x"}]}', "is not told by name"),
        (lambda text: text[: len(text) // 2], "damaged"),
    ],
)
def test_a_manifest_that_is_none_is_told(folder: Path, change: Callable[[str], str], told: str) -> None:
    (folder / NAME).write_text(change((folder / NAME).read_text()))
    assert told in look(folder).problems[NAME]
    assert verify(str(folder)).damaged[f"{folder}/{NAME}"].startswith(f"{folder}/{NAME}: damaged")


@pytest.mark.parametrize("name", ["../x.parquet", "data/../../x.parquet", "data/.x.parquet", "/data/x.parquet", 3])
def test_a_manifest_leads_nowhere_else(folder: Path, name: Any) -> None:
    found = read_manifest(folder)
    found["shards"][0]["name"] = name
    del found["sha256"]
    (folder / NAME).write_text(json.dumps(found))
    assert "is no name of a shard" in look(folder).problems[NAME]


def test_a_remote_folder_is_held_against_its_manifest_as_a_local_one(folder: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(str(folder), "/shards-of-another", recursive=True)
    try:
        assert not verify("memory://shards-of-another").damaged
        fs.rm("/shards-of-another/" + SECOND)
        (damaged,) = verify("memory://shards-of-another").damaged.values()
        assert "gone, with 2 images" in damaged
    finally:
        fs.rm("/shards-of-another", recursive=True)


def test_the_command_names_shards_and_images_and_leaves_with_status_1(folder: Path) -> None:
    whole = CliRunner().invoke(app, ["verify", str(folder)])
    assert whole.exit_code == 0, whole.output
    assert "5 images in 2 shards" in " ".join(whole.output.split())
    rewrite(folder / FIRST, lambda rows: rows[1:])
    one = CliRunner().invoke(app, ["verify", str(folder), "--json"])
    found = json.loads(one.stdout)
    assert one.exit_code == 1
    assert found["images"] == [
        {"folder": str(folder), "shard": FIRST, "kind": "missing", "image_id": 3, "key": "3.jpg"}
    ]


def test_a_signed_manifest_tells_whose_it_is(folder: Path, tmp_path: Path) -> None:
    key, other = make_key(tmp_path / "mine"), make_key(tmp_path / "other")
    signed = CliRunner().invoke(app, ["sign", str(folder), "--key", str(key)])
    assert signed.exit_code == 0, signed.output
    assert str(key) not in signed.output
    good = CliRunner().invoke(app, ["verify", str(folder), "--key", f"{key}.pub"])
    assert good.exit_code == 0, good.output
    assert "the key you gave" in " ".join(good.output.split())
    assert "signed by SHA256:" in look(folder).signed
    wrong = CliRunner().invoke(app, ["verify", str(folder), "--key", f"{other}.pub"])
    assert wrong.exit_code == 1
    assert "is not the key you gave" in " ".join(wrong.output.split())


def test_a_manifest_made_anew_over_changed_shards_is_not_the_signed_one(folder: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path / "mine")
    CliRunner().invoke(app, ["sign", str(folder), "--key", str(key)])
    text = (folder / SIGNATURE).read_bytes()
    shutil.rmtree(folder)
    folder = write_shards(tmp_path / "forged", [(3, 1), (5, 4)])
    (folder / SIGNATURE).write_bytes(text)
    assert look(folder).problems == {SIGNATURE: "the signature is not of this manifest, or not for this purpose"}
    (folder / SIGNATURE).unlink()
    unsigned = check_shards(LocalFileSystem(), str(folder), keys=read_public_keys(f"{key}.pub", where="--key"))
    assert unsigned.problems[SIGNATURE].startswith("not signed")


def test_a_key_without_a_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"no manifest.json of shards is there"):
        verify(str(tmp_path), keys=[b"0" * 32])


def make_key(path: Path) -> Path:
    """An Ed25519 key of OpenSSH, and its public half beside it."""
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.OpenSSH, s.NoEncryption()))
    public = key.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH)
    path.with_name(f"{path.name}.pub").write_bytes(public + b" somebody@example\n")
    return path
