"""Where a workdir stands: the tables of its recipe in the order they are made. Reads manifests alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from curate.counting import Counts
from curate.engine.numbers import count
from curate.engine.store import Store
from curate.engine.table import DRIVER, Manifest


@dataclass(frozen=True)
class TableStatus:
    """One table of a workdir."""

    table: str
    stage: str
    complete: bool
    parts_done: int
    parts_total: int | None
    """None: only the finished stage knows."""
    rows_in: int | None
    """Rows that the stage worked through; None: not known yet, or it lists what lies outside."""
    rows_out: int
    seconds: float
    """Summed over tasks."""
    phase: str = ""
    """What a table in the making is busy with: scatter, partial, combine or run."""
    outdated: str = ""
    """Why the current settings would make another table; empty: they would not, or it is not known."""
    num_open: int = 0
    """Rows that an error which may pass kept away: the next run reads them again."""
    cleaned: bool = False
    """Whether rows were removed, since nothing needs them."""

    @property
    def rows_per_second(self) -> float | None:
        """Rows that went in (or were listed) a second; None: too short to say, or no such thing."""
        rows = self.rows_out if self.rows_in is None and self.complete else self.rows_in
        return rows / self.seconds if rows and self.seconds >= 0.01 else None

    @property
    def _name(self) -> str:
        if not self.complete:
            return f"{self.table} ({self.phase or 'begun'})"
        marks = ["outdated"] * bool(self.outdated) + ["cleaned"] * self.cleaned
        marks += [f"{count(self.num_open)} open"] * bool(self.num_open)
        return f"{self.table} ({', '.join(marks)})" if marks else self.table

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """Table, parts, rows in, rows out, seconds and rows/s as text; a table in the making is marked."""
        total = "?" if self.parts_total is None else str(self.parts_total)
        speed = self.rows_per_second
        return (
            self._name,
            f"{self.parts_done}/{total}",
            "" if self.rows_in is None else count(self.rows_in),
            count(self.rows_out),
            f"{self.seconds:.1f}",
            "" if speed is None else f"{speed:,.1f}",
        )


@dataclass(frozen=True)
class TableCost:
    """What making a table took, as counted where its bytes passed (`curate.counting`)."""

    table: str
    counts: Counts
    """Of its tasks and of the driver; the peak is that of a task."""
    shared: str = ""
    """The table whose tasks made this one too: these counts are those of both; empty: it has its own."""

    def cells(self) -> tuple[str, ...]:
        """Table, CPU seconds, MB read, MB written, requests and peak in MB as text."""
        if self.shared:
            return (f"{self.table} (with {self.shared})", *[""] * 5)
        found = self.counts
        megabytes = (f"{size / 1e6:,.1f}" for size in (found.bytes_read, found.bytes_written))
        requests, peak = count(found.requests), f"{found.peak_task_bytes / 1e6:,.1f}"
        return (self.table, f"{found.cpu_seconds:,.1f}", *megabytes, requests, peak)


def costs(store: Store, names: Sequence[str]) -> list[TableCost]:
    """What the finished tables among the named ones took; none for those that earlier versions made."""
    found: list[TableCost] = []
    for name in names:
        manifest = store.table(name).manifest()
        if manifest is not None and manifest.complete and manifest.counted:
            tasks = [counts for phase, counts in manifest.counted.items() if phase != DRIVER]
            peak = max((counts.peak_task_bytes for counts in tasks), default=0)
            shared = next((one.table for one in found if one.table in manifest.made_with), "")
            found.append(TableCost(name, replace(manifest.counts(), peak_task_bytes=peak), shared))
    return found


def status(store: Store, names: list[str], *, outdated: Mapping[str, str] | None = None) -> list[TableStatus]:
    """Those of the named tables that are there or in the making, in their order.

    Args:
        outdated: why the current settings would make others, see `Finished.outdated`.
    """
    found = {name: store.table(name).manifest() for name in names}
    rows = [_status(store, name, manifest) for name, manifest in found.items() if manifest is not None]
    return [replace(row, outdated=(outdated or {}).get(row.table, "")) for row in rows]


def _status(store: Store, name: str, manifest: Manifest) -> TableStatus:
    if manifest.complete:
        parts = len(manifest.parts)
        seen = TableStatus(name, manifest.stage, True, parts, parts, manifest.rows_in, manifest.rows, manifest.seconds)
        num_open = sum(part.get("open", 0) for part in manifest.parts)
        return replace(seen, num_open=num_open, cleaned=bool(manifest.cleaned))
    table = store.table(name)
    log = table.task_log()
    rows = {entry["part"]: entry["rows"] for entry in log if entry["phase"] == "run"}
    return TableStatus(
        name,
        manifest.stage,
        False,
        len(table.committed()),
        manifest.num_parts,
        None,
        sum(rows.values()),
        sum(entry["seconds"] for entry in log),
        phase=log[-1]["phase"] if log else "",
    )
