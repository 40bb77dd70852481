"""A condition over facts, scores and the sources' own columns, on many images: the tables alone, beside DuckDB.

The images do not exist; their facts lie in tables as a run has them, own columns as JSON. What is measured is what a
change of `screen.where` makes: the own columns read out of their JSON, which is kept for the next condition, and the
condition on every image, with its reasons in words. DuckDB asks the same files the same question, and keeps nothing.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import duckdb
import numpy as np
import pyarrow as pa
import typer

from benchmarks.figures import Figure, measured, show
from curate.cli.arguments import Json
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.stages.screening.read_columns import ReadColumns
from curate.stages.screening.screen import MEASURED, Screen
from curate.tables import CATALOG, IMAGE_ID, IMAGES, score

ROWS_PER_PART = 65_536
WHERE = "punsafe < 0.2 and license in ('cc0', 'by') and width >= 256"
QUERY = """
    select count(*) from '{root}/images/*.parquet' i join '{root}/unsafe/*.parquet' s using (image_id)
    where s.punsafe < 0.2 and i.extra->>'license' in ('cc0', 'by') and i.width >= 256
"""
LICENSES = ("cc0", "by", "by-nc", "by-nd", None)
FACTS = pa.schema([IMAGE_ID, *(IMAGES.field(name) for name in (*MEASURED, "reject", "extra"))])
UNSAFE = pa.schema([IMAGE_ID, score("punsafe", pa.float32(), "0..1")])
OWN = ReadColumns(names=("license",))
SCREEN = Screen(where=WHERE, column_types={"license": "string"})


def bench_where(*, num_images: int = 1_000_000, seed: int = 0) -> list[Figure]:
    """Plant the tables, then make what a condition needs, each step in a process of its own."""
    num_parts = -(-num_images // ROWS_PER_PART)
    with tempfile.TemporaryDirectory() as root:
        plant(root, num_parts=num_parts, seed=seed)
        steps = [measured(step, root, num_parts) for step in (read_columns, ask, ask_duckdb)]
    reading, asking, peer = steps
    if asking.result != peer.result:
        raise AssertionError(f"{asking.result} images are within the rule, by DuckDB {peer.result}")
    images = num_parts * ROWS_PER_PART
    named = ("own columns read", reading), ("condition asked", asking)
    return [
        *(
            Figure(
                name,
                step.seconds,
                "s",
                peer="DuckDB, both at once",
                peer_value=peer.seconds,
                better="lower",
                cpu_seconds=step.cpu_seconds,
                peak_bytes=step.peak_bytes,
            )
            for name, step in named
        ),
        Figure("images", images, "images", note=f"{asking.result / images:.1%} within the rule"),
    ]


def plant(root: str, *, num_parts: int, seed: int) -> None:
    """Facts, scores and own columns of images of one part, which all parts have."""
    rng, size = np.random.default_rng(seed), ROWS_PER_PART
    extra = [
        json.dumps({"caption": "a photograph of " + "x" * int(n), "license": LICENSES[at], "similarity": float(s)})
        for n, at, s in zip(rng.integers(5, 80, size), rng.integers(0, 5, size), rng.random(size), strict=True)
    ]
    known = {"width": rng.integers(64, 2048, size, np.int32), "height": rng.integers(64, 2048, size, np.int32)}
    known |= {"extra": pa.array(extra), "reject": pa.nulls(size, pa.string())}
    facts = [known.get(field.name, pa.nulls(size, field.type)) for field in list(FACTS)[1:]]
    unsafe = rng.random(size, np.float32) ** 2
    store = Store(Path(root))
    done: dict[str, list[dict[str, Any]]] = {"images": [], "unsafe": []}
    for part in range(num_parts):
        ids = np.arange(size, dtype=np.int64) + (part << 32)
        for name, schema, columns in (("images", FACTS, facts), ("unsafe", UNSAFE, [unsafe])):
            rows = pa.RecordBatch.from_arrays([pa.array(ids), *map(pa.array, columns)], schema=schema)
            done[name].append(store.table(name).commit(part, schema, [rows]).__dict__)
    for name, parts in done.items():
        store.table(name).write_manifest(Manifest("Given", 1, {}, {}, {}, {}, complete=True, parts=parts))


def _parts(root: str, num_parts: int, names: Sequence[str]) -> Iterator[tuple[int, pa.Table, pa.Table]]:
    """Number, rows of the catalog and facts of each part."""
    images = Store(Path(root)).table("images")
    for part in range(num_parts):
        facts = images.read(part, ["image_id", *names])
        role = pa.array(["pool"]).take(pa.array(np.zeros(len(facts), np.int64)))
        yield part, pa.table([facts["image_id"], role], schema=pa.schema([IMAGE_ID, CATALOG.field("role")])), facts


def read_columns(root: str, num_parts: int) -> int:
    """Make the table of own columns; returns its rows."""
    table, schema = Store(Path(root)).table("columns"), OWN.output_schema()
    made = (
        table.commit(part, schema, OWN.run(part, catalog=catalog, images=facts))
        for part, catalog, facts in _parts(root, num_parts, ["extra"])
    )
    return sum(part.rows for part in made)


def ask(root: str, num_parts: int) -> int:
    """Make the table of scores and rejects; returns how many images the condition lets pass."""
    store, kept = Store(Path(root)), 0
    for part, catalog, facts in _parts(root, num_parts, ["reject", *MEASURED]):
        given = {"scores": [store.table("unsafe").read(part)], "columns": [store.table("columns").read(part)]}
        rows = SCREEN.run(part, catalog=catalog, images=facts, named=None, measured=facts.select(MEASURED), **given)
        batches = list(rows)
        store.table("scores").commit(part, batches[0].schema, batches)
        kept += sum(batch["reject"].null_count for batch in batches)
    return kept


def ask_duckdb(root: str, num_parts: int) -> int:
    """The same question to the same files."""
    with duckdb.connect() as connection:
        connection.execute("set enable_progress_bar = false")
        ((found,),) = connection.execute(QUERY.format(root=root)).fetchall()
    return int(found)


def command(
    num_images: Annotated[int, typer.Option("-n", help="images")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="seed of the tables")] = 0,
    json_: Json = False,
) -> None:
    """Seconds of a condition `screen.where` over facts, scores and own columns, beside DuckDB."""
    show(bench_where(num_images=num_images, seed=seed), json_)
