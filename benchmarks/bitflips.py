"""Flipped bits: every file of a small finished run is damaged at many places, and its next reader has to find it.

A run of the sample pool with a small training leaves every kind of file that there is: tables, shards, manifests,
checkpoints, exports, a report. In one file after the other a bit is flipped, what reads such files is called, and the
bit is put back. Found is what ends in an error that names the file. Pages and pictures are looked at by people, and
never read again: they are listed apart.
"""

import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from curate.cli.arguments import Json
from curate.cli.consoles import say
from curate.engine.freshness import Flags
from curate.engine.store import MANIFEST, Store
from curate.engine.table import PART_NAME
from curate.errors import CurateError
from curate.models.files.description import find_description
from curate.models.files.state_dict import read_state_dict
from curate.recipe import load_config
from curate.running import REPORT_MADE_OF, report_is_behind, run_config
from curate.samples.pool import make_pool
from curate.sealed_json import load_sealed
from curate.shard_manifest import NAME as SHARD_MANIFEST
from curate.shard_manifest import ShardManifest
from curate.trainer.checkpoint import METADATA, check_files
from curate.workdir import RUN, open_record

TRAINING = {
    "model.preset": "tiny",
    "model.depth": 1,
    "model.patch_size": 16,
    "model.num_registers": 0,
    "crops.global_size": 32,
    "crops.local_size": 16,
    "crops.num_local": 2,
    "objective.prototypes": 32,
    "objective.head_hidden": 32,
    "batch_size": 4,
    "iterations": 3,
    "workers": 0,
}
NUM_MISSED = 20
"""Missed flips that are printed."""


@dataclass(frozen=True)
class Flipped:
    """What became of the flips."""

    files: int
    """Files that something reads."""
    flips: int
    missed: tuple[tuple[str, int, int], ...]
    """File, byte and bit of each flip that its reader did not name."""
    unread: tuple[str, ...]
    """Files that nothing reads again."""


def flip_bits(workdir: Path, *, flips: int, seed: int = 0) -> Flipped:
    """Damage each file of a finished run at `flips` places in turn, the first and the last byte among them."""
    store, rng = Store(workdir), random.Random(seed)
    missed: list[tuple[str, int, int]] = []
    unread: list[str] = []
    num_files, num_flips = 0, 0
    for path in sorted(path for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"):
        name, whole = path.relative_to(workdir).as_posix(), path.read_bytes()
        found = reader_of(store, path)
        if found is None:
            unread.append(name)
            continue
        read, named = found
        places = {0, len(whole) - 1, *rng.sample(range(len(whole)), min(len(whole), flips - 2))}
        num_files, num_flips = num_files + 1, num_flips + len(places)
        try:
            for place in sorted(places):
                bit = rng.randrange(8)
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
                if not _is_told(read, named):
                    missed.append((name, place, bit))
        finally:
            path.write_bytes(whole)
    return Flipped(num_files, num_flips, tuple(missed), tuple(unread))


def reader_of(store: Store, path: Path) -> tuple[Callable[[], object], str] | None:
    """What reads a file next, as the program does, and what its error must name; None: nothing does."""
    folder, part = path.parent.relative_to(store.path).as_posix(), PART_NAME.fullmatch(path.name)
    checkpoint = next((one for one in path.parents if (one / METADATA).exists()), None)
    if checkpoint is not None:
        return lambda: check_files(checkpoint), str(checkpoint)
    if part is not None:
        return lambda: store.table(folder).read(int(part[1])), str(path)
    if path.name == MANIFEST:
        return store.table(folder).manifest, str(path)
    if path.name == RUN:
        return lambda: open_record(store), str(path)
    if path == Path(store.path, REPORT_MADE_OF):
        return lambda: _expect_report(store), path.name
    if path.name == SHARD_MANIFEST:
        return lambda: _expect_manifest(path), str(path)
    if path.suffix == ".safetensors":
        return lambda: (find_description(path), read_state_dict(path)), str(path)
    return None


def _expect_manifest(path: Path) -> None:
    """Whoever verifies shards reads their manifest first."""
    try:
        ShardManifest.from_json(load_sealed(path.read_bytes()))
    except ValueError as error:
        raise CurateError(f"{path}: {error}") from error


def _expect_report(store: Store) -> None:
    """A damaged record of what the report tells of is no error: the next run writes both anew."""
    if report_is_behind(store):
        raise CurateError(f"{REPORT_MADE_OF}: is written anew")


def _is_told(read: Callable[[], object], named: str) -> bool:
    """Whether reading ends in an error that names the file."""
    try:
        read()
    except CurateError as error:
        return named in str(error)
    return False


def make_run(workdir: Path, *, num_images: int) -> None:
    """A finished run over the sample pool, with a training."""
    with tempfile.TemporaryDirectory() as folder:
        make_pool(Path(folder), num_images=num_images, seed=3, curated_each=2, num_heldout=8)
        roles = [f"sources.{role}={folder}/{role}" for role in ("pool", "curated", "heldout")]
        training = [f"pretrain.train.{name}={value}" for name, value in TRAINING.items()]
        overrides = [*roles, *training, f"workdir={workdir}", "executor.threads=1", "rows_per_part=25", "evaluate=null"]
        run_config(load_config("quickstart", overrides), Flags())


def command(
    images: Annotated[int, typer.Option(help="images of the pool")] = 60,
    flips: Annotated[int, typer.Option(help="flipped bits of each file, one at a time")] = 200,
    workdir: Annotated[Path | None, typer.Option(help="of a finished run; none: one is made")] = None,
    json_: Json = False,
) -> None:
    """Bits flipped in every file of a finished run, and those that the next reader does not find."""
    with tempfile.TemporaryDirectory() as folder:
        place = workdir or Path(folder) / "run"
        if workdir is None:
            make_run(place, num_images=images)
        found = flip_bits(place, flips=flips)
    if json_:
        values = {"files": found.files, "flips": found.flips, "missed": found.missed, "unread": found.unread}
        typer.echo(json.dumps(values, indent=2))
        return
    say(f"{found.flips:,} bits flipped in {found.files} files, one at a time; {len(found.missed)} not found")
    for name, byte, bit in found.missed[:NUM_MISSED]:
        say(f"  {name}: byte {byte:,}, bit {bit}")
    say(f"{len(found.unread)} files that nothing reads again: {', '.join(found.unread)}")
