"""`curate list` and `curate write`: which images stay, which go and why, as rows, files and data sets."""

import itertools
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.arguments import Workdir
from curate.cli.consoles import say, show_table
from curate.errors import CurateError
from curate.interrupt import die
from curate.text import visible_text

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.answers.saving import NotAPath
    from curate.answers.staying import Staying

SHOWN = 20
"""Rows of a listing on a terminal."""
SHOWN_COLUMNS = {
    "all": ("key", "verdict", "reason", "partner_key"),
    "kept": ("key", "width", "height", "selected", "cluster"),
    "dropped": ("key", "reason", "similarity", "evidence", "partner_key"),
    "rejected": ("key", "reason", "score", "detail"),
    "groups": ("group", "key", "verdict", "similarity", "evidence"),
    "contaminated": ("key", "similarity", "evidence", "partner_key"),
    "selected": ("key", "role", "width", "height", "cluster"),
}
"""Columns that fit on a terminal, by what is listed."""
STDOUT = "-"
"""Name of a file that means the standard output."""


class Role(StrEnum):
    """Of a source."""

    pool = "pool"
    curated = "curated"
    heldout = "heldout"


Kept = Annotated[bool, typer.Option("--kept", help="images that stay")]
Dropped = Annotated[bool, typer.Option("--dropped", help="copies, with the image that stays instead")]
Rejected = Annotated[bool, typer.Option("--rejected", help="images that cannot be used or that rules reject, and why")]
Contaminated = Annotated[
    bool, typer.Option("--contaminated", help="images that go since they or copies of them resemble held-out ones")
]
Selected = Annotated[bool, typer.Option("--selected", help="images of the selection, curated ones among them")]
All = Annotated[bool, typer.Option("--all", help="every image")]
Roles = Annotated[
    list[Role] | None,
    typer.Option("--role", metavar="ROLE", help="pool, curated or heldout; may be repeated; none: pool"),
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="at most so many images")]


def list_(
    workdir: Workdir,
    kept: Kept = False,
    dropped: Dropped = False,
    rejected: Rejected = False,
    groups: Annotated[bool, typer.Option("--groups", help="groups of copies, those that stay first")] = False,
    contaminated: Contaminated = False,
    selected: Selected = False,
    all_: All = False,
    role: Roles = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="write a CSV; - for standard output")] = None,
    parquet: Annotated[str | None, typer.Option(metavar="FILE", help="write a Parquet file")] = None,
    jsonl: Annotated[str | None, typer.Option(metavar="FILE", help="write JSON lines; - for standard output")] = None,
    paths: Annotated[bool, typer.Option("--paths", help="print paths of local files alone, one a line")] = False,
    paths0: Annotated[bool, typer.Option("--paths0", help="the same for xargs -0: each ends with a NUL byte")] = False,
    columns: Annotated[str | None, typer.Option(metavar="A,B,...", help="columns, in this order")] = None,
    limit: Limit = None,
    force: Annotated[bool, typer.Option("--force", help="replace FILE where it is there already")] = False,
) -> None:
    """List images with their verdict, its reason, and the image that stays instead: one row an image.

    On a terminal the first rows are shown as a table. Into a pipe or a file all of them are printed as CSV, with
    control characters in names written out; --parquet and --jsonl hold names as they are.

    Examples:
        # what there is, and the first copies
        curate list runs/mine
        # all copies, for a spreadsheet
        curate list runs/mine --dropped --csv copies.csv
        # groups of copies, those that stay first
        curate list runs/mine --groups --parquet groups.parquet
        # copies of benchmark images, for other programs
        curate list runs/mine --contaminated --jsonl -
        # delete the files of copies, once you have looked at them
        curate list runs/mine --dropped --paths0 | xargs -0 rm
    """
    from curate.answers.counts import Counts
    from curate.answers.rows import Wanted, list_images, listed_schema
    from curate.answers.staying import Staying
    from curate.engine.store import Store
    from curate.workdir import open_tables

    asked = {"kept": kept, "dropped": dropped, "rejected": rejected, "groups": groups, "contaminated": contaminated}
    wanted = _one_of(asked | {"selected": selected, "all": all_})
    format_, place = _target({"csv": csv, "parquet": parquet, "jsonl": jsonl, "paths": paths, "paths0": paths0})
    listed, run = Wanted(wanted or "dropped"), open_tables(Store(workdir))
    names = _columns(columns, format_, listed)
    most = (limit or SHOWN) + 1 if format_ == "table" else limit
    roles = None if role is None else [str(one) for one in role]
    batches = _first(list_images(run, listed, names, roles=roles), most)
    if wanted is None:
        to = sys.stdout if format_ == "table" else sys.stderr
        print(visible_text(Counts.of(run).sentence()), file=to)
    if format_ == "table":
        _show(batches, listed_schema(names), limit or SHOWN, [workdir, *([f"--{wanted}"] if wanted else [])])
    elif format_.startswith("paths"):
        _write_paths(batches, Staying.beside(run, listed, roles), end=b"\0" if format_ == "paths0" else b"\n")
    else:
        _write(batches, listed_schema(names), format_, place, overwrite=force)


def write(
    workdir: Workdir,
    output: Annotated[str, typer.Argument(help="new or empty folder, or a URL; of csv a file")],
    to: Annotated[
        str, typer.Option(metavar="FORMAT", help="folder, webdataset, huggingface, csv, coco or fiftyone")
    ] = "folder",
    kept: Kept = False,
    dropped: Dropped = False,
    rejected: Rejected = False,
    contaminated: Contaminated = False,
    selected: Selected = False,
    all_: All = False,
    role: Roles = None,
    link: Annotated[bool, typer.Option("--link", help="symbolic links to files of this machine, not copies")] = False,
    hard_link: Annotated[bool, typer.Option("--hard-link", help="hard links to them")] = False,
    shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="encoded bytes of a shard: webdataset, huggingface")
    ] = "256MB",
) -> None:
    """Write images as a data set for other tools: what the selection holds, unless it is said otherwise.

    Bytes are those of the source, with caption, label and provenance beside them. Nothing is moved, deleted or
    replaced. Run the same command again to go on with a writing that was interrupted.

    Examples:
        # the selection as WebDataset tars
        curate write runs/mine tars --to webdataset --shard-size 1GB
        # as a folder of links with metadata.jsonl, which `datasets` loads as an image folder
        curate write runs/mine chosen --to folder --link
        # every image with its verdict, to look at in FiftyOne
        curate write runs/mine look --to fiftyone --all --link
        # Parquet with the pictures, for `datasets.load_dataset`
        curate write runs/mine hub --to huggingface
    """
    from curate.answers.rows import Wanted
    from curate.answers.write.write import write_images
    from curate.engine.numbers import plural
    from curate.engine.store import Store
    from curate.workdir import open_tables

    asked = {"kept": kept, "dropped": dropped, "rejected": rejected, "contaminated": contaminated}
    wanted = _one_of(asked | {"selected": selected, "all": all_})
    linked = _one_of({"link": link, "hard-link": hard_link})
    made = write_images(
        open_tables(Store(workdir)),
        to,
        output,
        wanted=None if wanted is None else Wanted(wanted),
        roles=None if role is None else [str(one) for one in role],
        link=None if linked is None else "symbolic" if linked == "link" else "hard",
        shard_bytes=_bytes_of(shard_size),
    )
    links = f", {plural(made.linked, 'link')} among them" if made.linked else ""
    lost = f"; {plural(made.lost, 'image')} could not be had any more" if made.lost else ""
    say(f"{output}: {plural(made.images, 'image')}{links}{lost}")


def _bytes_of(shard_size: str) -> int:
    """The number of bytes that a text such as 256MB says."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(shard_size))
    except ValidationError as error:
        raise CurateError(f"--shard-size {shard_size}: not a size; write 256MB or 1GiB") from error


def _one_of(given: Mapping[str, Any]) -> str | None:
    """Name of the one option that was given; None: none was."""
    found = [name for name, value in given.items() if value]
    if len(found) > 1:
        raise CurateError(f"{' and '.join(f'--{name}' for name in found)}: they exclude each other; give one")
    return found[0] if found else None


def _target(given: Mapping[str, str | bool | None]) -> tuple[str, str]:
    """Format and file of a listing: on a terminal a table, unless it is said otherwise."""
    name = _one_of(given)
    if name is None:
        return "table" if sys.stdout.isatty() else "csv", STDOUT
    place = given[name]
    return name, place if isinstance(place, str) else STDOUT


def _columns(asked: str | None, format_: str, listed: str) -> list[str] | None:
    """The columns to list; None: all."""
    from curate.answers.saving import PATH_COLUMNS

    if format_.startswith("paths"):
        if asked:
            raise CurateError("--columns: paths have none; leave it out, or choose --csv or --jsonl")
        return list(PATH_COLUMNS)
    if asked:
        return asked.split(",")
    return list(SHOWN_COLUMNS[listed]) if format_ == "table" else None


def _first(batches: "Iterator[pa.RecordBatch]", limit: int | None) -> "Iterator[pa.RecordBatch]":
    """As many rows as that; None: all."""
    left = limit
    for batch in batches:
        if left is None:
            yield batch
            continue
        yield batch.slice(0, left)
        left -= len(batch)
        if left <= 0:
            return


def _show(batches: "Iterator[pa.RecordBatch]", schema: "pa.Schema", limit: int, command: Sequence[str]) -> None:
    """The first rows as a table, and how to have the others."""
    rows = list(itertools.chain.from_iterable(batch.to_pylist() for batch in batches))
    if not rows:
        say("no such image")
        return
    show_table(schema.names, ([_cell(value) for value in row.values()] for row in rows[:limit]))
    if len(rows) > limit:
        say(f"the first {limit}; all of them, in all columns: curate list {shlex.join(command)} --csv FILE")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _write(
    batches: "Iterator[pa.RecordBatch]", schema: "pa.Schema", format_: str, place: str, *, overwrite: bool
) -> None:
    """A listing into a file, or to whoever reads the standard output; nothing is said once that has enough."""
    from curate.answers.outputs import new_file
    from curate.answers.saving import WRITERS

    if place != STDOUT:
        with new_file(place, overwrite=overwrite) as file:
            WRITERS[format_](batches, schema, file)
        return
    if format_ == "parquet":
        raise CurateError("--parquet: not to standard output, which cannot be sought in; name a file")
    try:
        WRITERS[format_](batches, schema, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        die(signal.SIGPIPE)


def _write_paths(batches: "Iterator[pa.RecordBatch]", staying: "Staying", *, end: bytes) -> None:
    """Paths for whoever reads the standard output."""
    from curate.answers.saving import write_paths

    try:
        _say_not_paths(write_paths(batches, sys.stdout.buffer, end=end, staying=staying))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        die(signal.SIGPIPE)


def _say_not_paths(found: "NotAPath") -> None:
    """On standard error, what has no path."""
    from curate.engine.numbers import plural

    for number, why in (
        (found.within, "inside an archive or a table, without a path of its own"),
        (found.remote, "on the web or in an object store"),
        (found.kept, "left out, since its file is also that of an image that stays"),
    ):
        if number:
            print(f"{plural(number, 'image')}: {why}", file=sys.stderr)
