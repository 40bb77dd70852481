"""What the framework itself costs where a table has many parts: tiny rows, so that nothing else takes time."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import typer

from benchmarks.figures import Figure, Measured, measured, show
from curate.cli.arguments import Json
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.image_ids import CatalogFigures, Parts
from curate.engine.pipeline import Pipeline
from curate.engine.plan import plan_run
from curate.engine.stage import Batches, Fold, Input, Map, Scan, each, whole
from curate.engine.store import Store
from curate.engine.table import Table
from curate.report.status import status
from curate.tables import CATALOG, IMAGE_ID

ROWS = 2
NUMBERS = pa.schema([IMAGE_ID])


class ManyParts(Scan):
    """A catalog of `num_parts_` parts of two rows."""

    num_parts_: int

    def output_schema(self, **inputs: Any) -> pa.Schema:
        """The columns of every catalog."""
        return CATALOG

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        """Every part with its number."""
        for part in range(self.num_parts_):
            rows = [
                {"image_id": part << 32 | row, "source": "s", "role": "pool", "uri": f"{part}/{row}", "key": f"{row}"}
                for row in range(ROWS)
            ]
            yield part, pa.Table.from_pylist(rows, schema=CATALOG)

    def summarize(self, table: Table, **inputs: Any) -> CatalogFigures:
        """The facts of the parts that other stages ask a catalog for."""
        return CatalogFigures.of_parts(("s", "pool", ROWS) for _ in range(self.num_parts_))


class Aligned(Map):
    """Reads its part and, as most stages do, the facts of all parts."""

    inputs: ClassVar[dict[str, Input]] = {"rows": each(NUMBERS), "catalog": whole(CATALOG)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        """Image ids alone."""
        return NUMBERS

    def run(self, part: int, *, rows: pa.Table, catalog: Table) -> Batches:
        """The ids of the part as they are."""
        assert Parts.of(catalog).rows[part] == len(rows)
        yield from rows.select(["image_id"]).cast(NUMBERS).to_batches()


class Folded(Fold):
    """Depends on every part of its input, and has as many itself."""

    inputs: ClassVar[dict[str, Input]] = {"rows": whole(NUMBERS), "catalog": whole(CATALOG)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        """Image ids alone."""
        return NUMBERS

    def num_parts(self, **inputs: Any) -> int:
        """As many as the input has."""
        return len(inputs["rows"].parts())

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        """One number for each part: how many rows it has."""
        counts = np.array([part.rows for part in tables["rows"].parts()], np.int64)
        yield pa.RecordBatch.from_arrays([pa.array(counts)], schema=NUMBERS)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        """The number of this part."""
        yield from state.slice(part, 1).to_batches()


def bench_parts(num_parts: int, *, workdir: Path | None = None) -> list[Figure]:
    """Seconds of each thing that a run does once a part, or once a table.

    Args:
        num_parts: parts of every table; 18,000 are 1.2 billion images.
        workdir: a folder that does not exist yet; None: a temporary one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root = str(workdir or Path(temporary) / "run")
        steps: list[tuple[str, Callable[..., Any], str]] = [
            ("catalog: written", _make, "catalog"),
            ("aligned table: made, every task reading the catalog's facts", _make, "aligned"),
            ("fold: made, every part depending on all", _make, "folded"),
            ("run again: nothing to do", _make, "folded"),
            ("run again after a kill: every footer read", _make_resumed, "aligned"),
            ("`curate run --dry-run`", _plan, "folded"),
            ("`curate status`", _status, ""),
        ]
        return [_figure(name, measured(step, root, num_parts, last), num_parts) for name, step, last in steps]


def _figure(name: str, cost: Measured, num_parts: int) -> Figure:
    each_part = f"{1000 * cost.seconds / num_parts:.2f} ms a part"
    return Figure(name, cost.seconds, "s", cpu_seconds=cost.cpu_seconds, peak_bytes=cost.peak_bytes, note=each_part)


def _declared(root: str, num_parts: int, last: str) -> Pipeline:
    """The pipeline up to the table `last`."""
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", ManyParts(num_parts_=num_parts))
    if last != "catalog":
        aligned = p.add("aligned", Aligned(), rows=catalog, catalog=catalog)
    if last == "folded":
        p.add("folded", Folded(), rows=aligned, catalog=catalog)
    return p


def _make(root: str, num_parts: int, last: str) -> None:
    _declared(root, num_parts, last).run(InProcess(1), Flags())


def _make_resumed(root: str, num_parts: int, last: str) -> None:
    Path(root, last, "_table.json").unlink()
    _make(root, num_parts, last)


def _plan(root: str, num_parts: int, last: str) -> None:
    plan_run(_declared(root, num_parts, last), Flags(), num_images=num_parts * ROWS)


def _status(root: str, num_parts: int, last: str) -> None:
    status(Store(root), _declared(root, num_parts, last).names)


def command(
    num_parts: Annotated[int, typer.Option("-n", help="parts of every table; 18,000 are 1.2 billion images")] = 20_000,
    json_: Json = False,
) -> None:
    """What many parts cost the framework: tables of two rows a part made, resumed, planned, listed."""
    show(bench_parts(num_parts), json_)
