"""Whether files are still what was written: every file that carries a digest is read whole.

Readers check what they read, when they read it; a shard that nobody opens for a year is not looked at. `verify` looks
at everything: a workdir, shards, the folder of a training, an export. Shards beside which a manifest of digests lies
are held against it (`shard_check.py`), which finds also what is gone, what was added, and what somebody changed who
made the checksums inside a file anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.engine.store import MANIFEST, TEMPORARY
from curate.engine.table import PROGRESS
from curate.errors import ConfigError, CurateError, first_line
from curate.filesystems import open_filesystem
from curate.locking import LOCK
from curate.progress import track
from curate.sealed_json import KEY, load_sealed
from curate.sealing import check_parquet, is_sealed
from curate.shard_check import ImageProblem, ShardCheck, check_shards
from curate.shard_manifest import DATA, FORMAT, NAME, ROWS
from curate.workdir import RUN

MADE_OF = "made_of.json"
CHECKPOINT = "checkpoint.json"
HINTS = {
    MANIFEST: "remove it and run its config again: parts that are whole are kept",
    RUN: "run its config again, which writes it anew",
    MADE_OF: "the next run or `curate report` writes it anew",
    CHECKPOINT: "the training goes on from the one before it",
    ".parquet": "of a table or of the shards of a workdir: remove it and run its config again; else fetch it again",
    ".safetensors": "export or fetch it again",
}
"""By name or end of name: what to do."""


@dataclass(frozen=True)
class Verified:
    """What `verify` found."""

    checked: tuple[str, ...]
    """Paths of the files that carry digests, and are as they were written or damaged."""
    damaged: Mapping[str, str]
    """By path: what is wrong, and what to do."""
    unchecked: tuple[str, ...]
    """Paths of the other files: they carry no digest (pages and pictures, and what earlier versions wrote)."""
    num_bytes: int
    """Of the files that were checked."""
    shards: Mapping[str, ShardCheck] = field(default_factory=dict)
    """By folder of shards: what holding them against their manifest found."""

    @property
    def images(self) -> list[tuple[str, ImageProblem]]:
        """(folder, image) of all images that are not what a manifest vouches for."""
        return [(folder, image) for folder, found in self.shards.items() for image in found.images]


def verify(place: str, *, keys: Sequence[bytes] | None = None) -> Verified:
    """Read every file below a path or URL that carries a digest.

    Args:
        place: a folder, such as a workdir or one of shards, or a file.
        keys: Ed25519 keys one of which must have signed the manifest of the shards; None: whoever signed is told.

    Raises:
        ConfigError: nothing is there, or with `keys` no manifest.
    """
    filesystem, root = open_filesystem(place)
    sizes = {path: info["size"] for path, info in filesystem.find(root, detail=True).items()}
    if not sizes:
        raise ConfigError(f"{place}: no file is there; give a workdir, a folder of shards or of a training, or a file")
    checked: list[str] = []
    unchecked: list[str] = []
    damaged: dict[str, str] = {}
    skipped = (TEMPORARY, LOCK, PROGRESS)
    inside = {path.rpartition("/")[0] for path in sizes if _name(path) == CHECKPOINT}
    named = [path for path in sizes if _name(path) == NAME]
    lists = {path.rpartition(f"/{ROWS}/")[0] for path in sizes if f"/{ROWS}/" in path}
    shards = {path.rpartition("/")[0] for path in named if _tells_of_shards(filesystem.cat_file(path))}
    shards |= lists & {path.rpartition("/")[0] for path in named}
    if keys is not None and not shards:
        raise ConfigError(f"{place}: no {NAME} of shards is there, so no key can vouch for any; leave --key out")
    held = {f"{folder}/{DATA}" for folder in shards}
    with track("verify", len(sizes), unit="files") as advance:
        for path in sorted(sizes):
            advance(1)
            if _name(path).startswith(skipped) or any(path.startswith(f"{one}/") for one in inside):
                continue
            if path.rpartition("/")[0] in held and path.endswith(".parquet"):
                checked.append(path)  # beside a manifest, which tells more
                continue
            try:
                (checked if check_file(filesystem, path) else unchecked).append(path)
            except _DAMAGE as error:
                checked.append(path)
                damaged[path] = _describe(path, first_line(error))
        for folder in sorted(inside):
            found, wrong = _check_checkpoint(filesystem, folder)
            checked += found
            damaged |= wrong
        found_of = {folder: check_shards(filesystem, folder, keys=keys) for folder in sorted(shards)}
    damaged |= dict(_lost_parts(filesystem, sizes))
    for folder, of_shards in found_of.items():
        damaged |= {f"{folder}/{name}": f"{folder}/{name}: {text}" for name, text in of_shards.problems.items()}
    num_bytes = sum(sizes.get(path, 0) for path in checked)
    return Verified(tuple(checked), damaged, tuple(unchecked), num_bytes, found_of)


_DAMAGE = (pa.ArrowException, OSError, ValueError, CurateError)


def check_file(filesystem: Any, path: str) -> bool:
    """Read a file whole; returns whether it carries a digest.

    Raises:
        ArrowException, OSError, ValueError, CurateError: it is not what was written.
    """
    name = _name(path)
    if name.endswith(".parquet"):
        with filesystem.open(path, "rb") as file:
            check_parquet(file)
            return is_sealed(file)
    data = filesystem.cat_file(path) if name in (MANIFEST, RUN, MADE_OF, NAME) else b""
    if name in (MANIFEST, RUN, MADE_OF) or (name == NAME and _tells_of_shards(data)):
        if load_sealed(data) is None:
            raise ValueError("it says null")
        return f'"{KEY}"'.encode() in data[-100:]
    if name.endswith(".safetensors"):
        from curate.models.files.description import find_description
        from curate.models.files.sealed_tensors import check_seal

        find_description(Path(path))
        return check_seal(Path(path))
    return False


def _check_checkpoint(filesystem: Any, folder: str) -> tuple[list[str], dict[str, str]]:
    """The files of a checkpoint that carry digests, and the checkpoint where it is damaged."""
    from curate.trainer.checkpoint import FILES, check_files, read_metadata

    names = sorted(filesystem.find(folder))
    try:
        check_files(Path(folder))
        return (names if FILES in read_metadata(Path(folder)) else []), {}
    except CurateError as error:
        return names, {folder: f"{first_line(error).partition(';')[0]}; {HINTS[CHECKPOINT]}"}


def _lost_parts(filesystem: Any, sizes: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Parts that the manifest of a complete table tells of and that are gone, or of another size."""
    for path in (path for path in sizes if _name(path) == MANIFEST):
        try:
            manifest = load_sealed(filesystem.cat_file(path))
            parts = manifest["parts"] if manifest["complete"] else []
            cleaned, folder = set(manifest.get("cleaned", ())), path.rpartition("/")[0]
            parts = [one for one in parts if one["number"] not in cleaned]
            wanted = {f"{folder}/part-{one['number']:05d}.parquet": one["num_bytes"] for one in parts}
        except (ValueError, KeyError, TypeError):
            continue  # named already, or of an earlier version
        for part, size in wanted.items():
            if size and sizes.get(part) != size:
                yield part, _describe(part, "gone" if part not in sizes else f"{sizes[part]} bytes, not {size}")


def _tells_of_shards(data: bytes) -> bool:
    """Whether this is a manifest of shards, whichever bit of it is wrong: other programs have files of its name."""
    return FORMAT.rpartition("-")[0].encode() in data[:200] or f'"{KEY}": "'.encode() in data[-100:]


def _describe(path: str, what: str) -> str:
    hint = next((text for end, text in HINTS.items() if path.endswith(end)), "")
    return f"{path}: damaged ({what}); {hint}"


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
