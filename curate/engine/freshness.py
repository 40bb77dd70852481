"""When a part is fresh: fingerprints of what it is made of, and what counts as another configuration.

A fingerprint is a digest of everything that could change a part's rows: the stage and its version, the fields that
change results (`Execution` fields do not), the contents it pins (weights), and the fingerprints of the parts it
reads. So equality of two strings answers for the whole history of a part, and nothing has to be compared with inputs
that may be gone. Three cases follow. Equal fingerprint: the part is kept. The same configuration but other inputs,
since data came in: that part alone is made again. Another configuration: `StaleTable`, since a table in which parts
of two configurations stand side by side is worth nothing, and replacing what a user has paid for takes his word.

Fitted tables (centroids, thresholds) would make every added image refit everything behind them. They are pinned: a part
carries the digest of its own rows as fingerprint, so that what depends on it depends on its content, not on its origin.

A part some of whose rows could not be had carries the digest of the wanted fingerprint and of its content; see
`part_writer.py`.

In a pass of several stages over one reading, a table's fingerprint holds the stages before it: the facts of an image
decide whether it is embedded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from curate.config import differences, digest, identity
from curate.engine.stage import Fold, Input, Shuffle, Stage
from curate.engine.table import Manifest, Table

StageT = TypeVar("StageT", bound=Stage)


@dataclass(frozen=True)
class Flags:
    """What the user allows a run to replace."""

    rebuild: frozenset[str] = frozenset()
    """Tables to make again under the current configuration; `all` for every one."""
    refit: bool = False
    """Fit pinned tables (centroids) again."""
    rescan: bool = False
    """List the sources again and append what is new."""

    def may_rebuild(self, table: str) -> bool:
        return table in self.rebuild or "all" in self.rebuild


def part_fingerprints(stages: Mapping[str, Stage], inputs: Mapping[str, Any], num_parts: int) -> dict[str, list[str]]:
    """Table name to the fingerprint of each part."""
    wanted: dict[str, list[str]] = {}
    before: list[Any] = []
    for name, stage in stages.items():
        before = [*before, [type(stage).__name__, stage.version, identity(stage), stage.pins()]]
        aligned = not isinstance(stage, Shuffle | Fold)
        known = {key: inputs.get(key) for key in stage.inputs}
        read = {k: _reading(stage.inputs[k], v, aligned=aligned) for k, v in known.items()}
        wanted[name] = [
            digest([before, part, {k: of_part(part) for k, of_part in read.items()}]) for part in range(num_parts)
        ]
    return wanted


def _reading(spec: Input, tables: Any, *, aligned: bool) -> Callable[[int], str]:
    """What each part reads of one input: its own part, or all parts (digested once, not once a part)."""
    fingerprints = [[part.fingerprint for part in table.parts()] for table in as_list(tables)]
    if aligned and spec.how == "each" and fingerprints:
        return lambda part: fingerprints[0][part]
    everything = digest(fingerprints)
    return lambda part: everything


def why_stale(table: Table, stage: Stage, schema: pa.Schema, flags: Flags) -> str | None:
    """What is wrong with a table that was made under another configuration and that no flag allows to replace.

    Args:
        schema: the one the stage now declares; a fitted table must hold vectors of the same model.
    """
    found = table.manifest()
    if found is None or flags.may_rebuild(table.name) or (stage.pinned and flags.refit):
        return None
    if not found.complete and not table.committed():
        return None  # nothing came of it, for example after a wrong path
    changes = _changes(found, stage)
    if stage.pinned and found.complete and not changes:
        changes = _other_vectors(table.schema(), schema)
    if not changes:
        return None
    flag = "--refit" if stage.pinned else f"--rebuild {table.name}"
    return (
        f"{table.name} was made with another configuration: {'; '.join(changes)}. Put the old value back, choose "
        f"another workdir, or run again with {flag} to replace it (what depends on it follows)"
    )


def _other_vectors(found: pa.Schema, needed: pa.Schema) -> list[str]:
    if (found.metadata or {}) == (needed.metadata or {}):
        return []
    return [f"fitted on {_vector_text(found)} -> its inputs now hold {_vector_text(needed)}"]


def _vector_text(schema: pa.Schema) -> str:
    meta = schema.metadata or {}
    model, dim, weights = (meta.get(f"curate.{key}".encode(), b"?").decode() for key in ("model", "dim", "weights"))
    return f"{model}, {dim} dims, weights {weights[:12]}"


def _changes(found: Manifest, stage: Stage) -> list[str]:
    """What differs, as `field: old -> new` lines."""
    if found.stage != type(stage).__name__:
        return [f"stage: {found.stage} -> {type(stage).__name__}"]
    changes = []
    if found.version != stage.version:
        changes.append(f"version of the stage: {found.version} -> {stage.version}")
    for label, old, new in (("", found.config, identity(stage)), ("", found.pins, stage.pins())):
        changes += [f"{label}{k}: {a!r} -> {b!r}" for k, a, b in differences(old, new)]
    return changes


def previous_resolved(found: Manifest | None, stage: Stage) -> dict[str, Any] | None:
    """Resolved fields of an earlier run of the same configuration."""
    return found.resolved if found is not None and not _changes(found, stage) else None


def resolved_stage(stage: StageT, manifest: Manifest) -> StageT:
    """A declared stage with the values that its `auto` fields had when the table was made."""
    resolved = type(stage).model_validate(stage.model_dump() | manifest.resolved)
    changed = {name: value for name in manifest.resolved if (value := getattr(resolved, name)) != getattr(stage, name)}
    return stage.model_copy(update=changed)  # what is as declared keeps the key that errors name


def as_list(value: Any) -> list[Any]:
    """An input as a list: empty where it is left out."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
