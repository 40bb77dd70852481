"""Where a workdir stands: the tables of its recipe in the order they are made. Reads manifests alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from curate.engine.numbers import count
from curate.engine.store import Store
from curate.engine.table import Manifest


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
