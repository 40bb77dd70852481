"""Where a workdir stands: its tables in the order they are made."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from curate.engine.store import Manifest, Store
from curate.report.numbers import count

READ_FROM = ("catalog", "images", "embeddings", "hashes", "lists", "assignments", "selection")
"""Inputs whose rows a stage works through, the last one that it has counts."""


@dataclass(frozen=True)
class StageStatus:
    """One table of a workdir."""

    table: str
    stage: str
    complete: bool
    parts_done: int
    parts_total: int | None
    """None: only the finished stage knows."""
    rows_in: int | None
    """Rows of the input that the stage works through; None: it lists what lies outside."""
    rows_out: int
    seconds: float
    """Summed over tasks."""
    phase: str = ""
    """What a table in the making is busy with: scatter, partial, combine or run."""

    @property
    def images_per_second(self) -> float | None:
        """Rows that went in (or were listed) a second; None: too short to say, or no such thing."""
        rows = self.rows_out if self.stage == "Catalog" else self.rows_in
        return rows / self.seconds if rows and self.seconds >= 0.01 else None

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """Table, parts, rows in, rows out, seconds and images/s as text; a table in the making is marked."""
        total = "?" if self.parts_total is None else str(self.parts_total)
        speed = self.images_per_second
        return (
            self.table if self.complete else f"{self.table} ({self.phase or 'begun'})",
            f"{self.parts_done}/{total}",
            "" if self.rows_in is None else count(self.rows_in),
            count(self.rows_out),
            f"{self.seconds:.1f}",
            "" if speed is None else f"{speed:,.1f}",
        )


def status(store: Store) -> list[StageStatus]:
    """The tables of a workdir, inputs before what is made of them; also those in the making."""
    found = {name: store.table(name).manifest() for name in store.table_names()}
    manifests = {name: manifest for name, manifest in found.items() if manifest is not None}
    return [_status(store, name, manifests) for name in in_order(manifests)]


def in_order(manifests: Mapping[str, Manifest]) -> list[str]:
    """Names of tables, every input before what is made of it; of equal ones, first what more tables read."""
    left, done = sorted(manifests), list[str]()
    used = Counter(i for manifest in manifests.values() for i in _inputs(manifest))
    while left:
        ready = [n for n in left if all(i in done or i not in left for i in _inputs(manifests[n]))]
        chosen = min(ready or left, key=lambda name: (_depth(name, manifests), -used[name], name))
        done.append(chosen)
        left.remove(chosen)
    return done


def _depth(name: str, manifests: Mapping[str, Manifest], seen: frozenset[str] = frozenset()) -> int:
    inputs = [i for i in _inputs(manifests[name]) if i in manifests and i not in seen]
    return 1 + max((_depth(i, manifests, seen | {name}) for i in inputs), default=0)


def _inputs(manifest: Manifest) -> Iterable[str]:
    return [name for names in manifest.inputs.values() for name in names]


def _status(store: Store, name: str, manifests: Mapping[str, Manifest]) -> StageStatus:
    manifest = manifests[name]
    rows_in = rows_read(manifest, manifests)
    if manifest.complete:
        parts = len(manifest.parts)
        return StageStatus(name, manifest.stage, True, parts, parts, rows_in, manifest.rows, manifest.seconds)
    table = store.table(name)
    log = table.task_log()
    rows = {entry["part"]: entry["rows"] for entry in log if entry["phase"] == "run"}
    return StageStatus(
        name,
        manifest.stage,
        False,
        len(table.committed()),
        manifest.num_parts,
        rows_in,
        sum(rows.values()),
        sum(entry["seconds"] for entry in log),
        phase=log[-1]["phase"] if log else "",
    )


def rows_read(manifest: Manifest, manifests: Mapping[str, Manifest]) -> int | None:
    """Rows of the input that a stage works through; of an embedding that has no use for all, those it embedded."""
    if "embedded" in manifest.metrics:
        return int(manifest.metrics["embedded"])
    found = [manifest.inputs[key] for key in READ_FROM if key in manifest.inputs]
    if not found:
        return None
    return sum(manifests[name].rows for name in found[-1] if name in manifests)
