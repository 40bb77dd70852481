"""Shards held against their manifest: what was changed, lost or added since they were written, image by image.

A folder of shards is enough: it may have been copied, or lie on an object store. Each shard is read once, as a stream,
while its SHA-256 is made and the checksums inside it are checked. Only a shard that differs is read a second time, row
group by row group, and its images are compared with the list that was written beside it; so the memory is that of one
row group and of one list. A list counts only where its digest is in the manifest.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import MissingExtra, first_line
from curate.late_files import LateFile
from curate.sealed_json import load_sealed
from curate.sealing import DamagedBytes, digest_parquet, open_parquet
from curate.shard_manifest import DATA, NAME, SIGNATURE, RowsDigest, ShardEntry, ShardManifest
from curate.signing import check, fingerprint, parse_signature
from curate.tables import SHARD_ROWS

MAX_MANIFEST = 256 << 20
"""Bytes of a manifest that are read: those of about a million shards."""
MAX_IMAGES = 10_000
"""Images that are named of one folder; of more, the number."""
SHOWN = 5
"""Images that a line names."""

Kind = Literal["missing", "added", "changed"]
_UNREADABLE = (pa.ArrowException, OSError, KeyError, ValueError)


class ImageProblem(NamedTuple):
    """One image that is not what the manifest vouches for."""

    shard: str
    """Path within the folder."""
    kind: Kind
    image_id: int
    key: str


@dataclass(frozen=True)
class ShardCheck:
    """What was found of one folder of shards."""

    shards: int
    """Shards of the manifest."""
    rows: int
    """Images of the manifest."""
    digest: str
    """Of the manifest."""
    problems: Mapping[str, str]
    """By path within the folder: what is wrong with a shard, the manifest, a list or the signature."""
    images: tuple[ImageProblem, ...]
    """Images that are not what was written, `MAX_IMAGES` of them at most."""
    signed: str
    """What is known of the signature, in words."""


@dataclass
class _Found:
    problems: dict[str, str] = field(default_factory=dict)
    images: list[ImageProblem] = field(default_factory=list)


def check_shards(filesystem: Any, folder: str, *, keys: Sequence[bytes] | None = None) -> ShardCheck:
    """Hold the shards of a folder against `manifest.json` in it.

    Args:
        keys: Ed25519 keys one of which must have signed the manifest; None: whoever signed is told.

    Raises:
        FileNotFoundError: there is no manifest.
    """
    found = _Found()
    data = _read(filesystem, f"{folder}/{NAME}", MAX_MANIFEST)
    signed = _check_signature(filesystem, folder, data, keys, found)
    try:
        manifest = ShardManifest.from_json(load_sealed(data))
    except ValueError as error:
        found.problems[NAME] = f"damaged ({first_line(error)}); fetch it again"
        return ShardCheck(0, 0, "", found.problems, (), signed)
    there = _list_shards(filesystem, folder)
    for name in sorted(there - {shard.name for shard in manifest.shards}):
        found.problems[name] = "added: the manifest does not know it"
    for shard in manifest.shards:
        _check_shard(filesystem, folder, shard, shard.name in there, found)
    rows = sum(shard.rows for shard in manifest.shards)
    images = tuple(found.images[:MAX_IMAGES])
    return ShardCheck(len(manifest.shards), rows, manifest.digest, found.problems, images, signed)


def _check_signature(filesystem: Any, folder: str, data: bytes, keys: Sequence[bytes] | None, found: _Found) -> str:
    try:
        text = _read(filesystem, f"{folder}/{SIGNATURE}", MAX_MANIFEST)
    except FileNotFoundError:
        text = b""
    if not text:
        if keys is not None:
            found.problems[SIGNATURE] = "not signed: there is no signature to hold against the key"
        return "not signed"
    try:
        signature = parse_signature(text)
        valid = check(data, signature)
    except ValueError as error:
        found.problems[SIGNATURE] = f"damaged ({first_line(error)})"
        return "signature damaged"
    except MissingExtra as error:
        if keys is not None:
            raise
        return f"signature not checked: {first_line(error)}"
    if not valid:
        found.problems[SIGNATURE] = "the signature is not of this manifest, or not for this purpose"
        return "signature wrong"
    if keys is None:
        return f"signed by {signature.fingerprint}; --key FILE tells whether that is whom you trust"
    if signature.public_key not in keys:
        trusted = ", ".join(map(fingerprint, keys))
        found.problems[SIGNATURE] = f"signed by {signature.fingerprint}, which is not the key you gave ({trusted})"
        return "signed by another key"
    return f"signed by {signature.fingerprint}, the key you gave"


def _read(filesystem: Any, path: str, most: int) -> bytes:
    with filesystem.open(path, "rb") as file:
        data: bytes = file.read(most + 1)
    return data


def _list_shards(filesystem: Any, folder: str) -> set[str]:
    """Names of the Parquet files that are there, hidden ones left aside."""
    try:
        paths = filesystem.ls(f"{folder}/{DATA}", detail=False)
    except FileNotFoundError:
        return set()
    names = (path.rstrip("/").rpartition("/")[2] for path in paths)
    return {f"{DATA}/{name}" for name in names if name.endswith(".parquet") and not name.startswith(".")}


def _check_shard(filesystem: Any, folder: str, shard: ShardEntry, is_there: bool, found: _Found) -> None:
    if not is_there:
        expected = _read_list(filesystem, folder, shard)
        gone = [] if expected is None else [_problem(shard, "missing", row) for row in expected.values()]
        found.images += gone
        found.problems[shard.name] = f"gone, with {_images(shard.rows)}{_named(gone)}"
        return
    path, damage = f"{folder}/{shard.name}", ""
    try:
        with filesystem.open(path, "rb") as file:
            sha256, num_bytes = digest_parquet(file)
        if (sha256, num_bytes) == (shard.sha256, shard.num_bytes):
            return
        if num_bytes != shard.num_bytes:
            damage = f"{num_bytes} bytes, not {shard.num_bytes}"
    except DamagedBytes as error:
        damage = f"damaged: {first_line(error)}"
    except OSError as error:
        found.problems[shard.name] = f"cannot be read ({first_line(error)})"
        return
    found.problems[shard.name] = _describe(filesystem, folder, shard, damage, found)


def _describe(filesystem: Any, folder: str, shard: ShardEntry, damage: str, found: _Found) -> str:
    """What is wrong with a shard whose bytes are others, image by image where these can be compared."""
    said = [damage] if damage else ["its bytes are not those of the manifest"]
    expected = _read_list(filesystem, folder, shard)
    if expected is None:
        return f"{said[0]}; the list of its images is gone or damaged, so that none can be named"
    try:
        with filesystem.open(f"{folder}/{shard.name}", "rb") as file:
            problems = list(_compare(pq.ParquetFile(LateFile(file)), expected, shard))
    except _UNREADABLE as error:
        return f"{said[0]}; its rows cannot be read ({first_line(error)})"
    found.images += problems
    for kind in ("missing", "added", "changed"):
        of_kind = [problem for problem in problems if problem.kind == kind]
        said += [f"{_images(len(of_kind))} {kind}{_named(of_kind)}"] if of_kind else []
    return "; ".join(said if problems else [*said, "its images are those that were written: other columns changed"])


class _Row(NamedTuple):
    image_id: int
    key: str
    sha256: bytes
    stored: bytes


def _read_list(filesystem: Any, folder: str, shard: ShardEntry) -> dict[int, _Row] | None:
    """The images of a shard as they were written, by id; None: their list is gone, or is not the one."""
    digest, rows = RowsDigest(), dict[int, _Row]()
    try:
        with filesystem.open(f"{folder}/{shard.list_name}", "rb") as file, open_parquet(file) as parquet:
            if parquet.metadata.num_rows != shard.rows:
                return None
            for batch in parquet.iter_batches(columns=SHARD_ROWS.names):
                digest.add(batch)
                for row in batch.to_pylist():
                    stored = row["stored"] or row["sha256"]
                    rows[row["image_id"]] = _Row(row["image_id"], row["key"], row["sha256"], stored)
    except (*_UNREADABLE, TypeError):
        return None
    return rows if digest.hex() == shard.rows_sha256 else None


def _compare(parquet: pq.ParquetFile, expected: Mapping[int, _Row], shard: ShardEntry) -> Iterator[ImageProblem]:
    """Images that differ; every picture of the shard is digested."""
    left = dict(expected)
    for group in range(parquet.num_row_groups):
        rows = parquet.read_row_group(group, columns=["image_id", "key", "sha256", "image"])
        data = pc.struct_field(rows["image"].combine_chunks(), "bytes")
        for place, row in enumerate(rows.drop_columns("image").to_pylist()):
            digest = hashlib.sha256(data[place].as_py() or b"").digest()
            is_ = _Row(row["image_id"], row["key"], bytes.fromhex(row["sha256"]), digest)
            was = left.pop(is_.image_id, None)
            if was is None:
                yield _problem(shard, "added", is_)
            elif is_ != was:
                yield _problem(shard, "changed", was)
    yield from (_problem(shard, "missing", row) for row in left.values())


def _problem(shard: ShardEntry, kind: Kind, row: _Row) -> ImageProblem:
    return ImageProblem(shard.name, kind, row.image_id, row.key)


def _images(number: int) -> str:
    return f"{number:,} image{'' if number == 1 else 's'}"


def _named(problems: Sequence[ImageProblem]) -> str:
    if not problems:
        return ""
    names = ", ".join(f"{problem.key} (image {problem.image_id})" for problem in problems[:SHOWN])
    return f": {names}{f' and {len(problems) - SHOWN:,} more' if len(problems) > SHOWN else ''}"
