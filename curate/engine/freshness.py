"""When a part is fresh: fingerprints of what it is made of, and what counts as another configuration.

A fingerprint is a digest of everything that could change a part's rows: the stage and its version, the fields that
change results (`Execution` fields do not), the contents it pins (weights), and the contents of the parts it reads. So
equality of two strings answers for all that a part is made of, and nothing has to be compared with inputs that may be
gone. Contents are asked for, and not the fingerprints of inputs, so that a change ends where it has no effect: verdicts
that are made again, since some image was added, and turn out as they were cost nothing behind them.

Three cases follow. Equal fingerprint: the part is kept. The same configuration but other inputs, since data came in:
that part alone is made again. Another configuration: `StaleTable`, since a table in which parts of two configurations
stand side by side is worth nothing, and replacing what a user has paid for takes his word: `--update`, which makes
what the change needs beside what is there (`running.py`), and replaces that when all is complete.

Fitted tables (centroids, thresholds) would make every added image refit everything behind them. They are pinned: a part
carries the digest of its own rows as fingerprint, and stays whatever its inputs become. A listing whose images moved
stands for the one before (`Part.moved_from`): where images lie is nothing that is made of them.

Some contents that a stage pins are data that people add, such as their decisions (`Stage.pins_are_data`). Others are no
other configuration: what depends on them is made again without a word from the user. Who only looks takes those of the
last run, so that a line which was written since takes no table away.

A part some of whose rows could not be had carries the digest of the wanted fingerprint and of its content; see
`part_writer.py`.

In a pass of several stages over one reading, a table's fingerprint holds the stages before it: the facts of an image
decide whether it is embedded.

Those who only look (report, card, status) ask the same questions of the tables that are there (`why_outdated`): after a
change of the settings and a run that was cut off, complete tables of the earlier ones lie beside the new ones, and
telling of both as one run would be untrue.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from curate.config import differences, digest, identity, merge
from curate.engine.stage import Fold, Input, Scan, Shuffle, Stage, as_list
from curate.engine.table import Manifest, Table
from curate.errors import TableError
from curate.tables import VECTOR_META

FOLLOWS = "made from an earlier "
"""How the reason of a table begins that is outdated since one of its inputs is."""

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
    update: bool = False
    """Make again, under the settings of now, what they make otherwise; fitted tables where their own have changed."""

    def may_rebuild(self, table: str) -> bool:
        return table in self.rebuild or "all" in self.rebuild


def part_fingerprints(
    stages: Mapping[str, Stage],
    inputs: Mapping[str, Any],
    num_parts: int,
    *,
    pins: Mapping[str, dict[str, str]] | None = None,
) -> dict[str, list[str]]:
    """Table name to the fingerprint of each part.

    Args:
        pins: by table; None: the stages look them up, which may need their weights.
    """
    wanted: dict[str, list[str]] = {}
    for (name, stage), before in zip(stages.items(), _made_by(stages, pins), strict=True):
        aligned = not isinstance(stage, Shuffle | Fold)
        known = {key: inputs.get(key) for key, spec in stage.inputs.items() if inputs.get(key) or not spec.added}
        read = {k: _reading(stage.inputs[k], v, aligned=aligned) for k, v in known.items()}
        wanted[name] = [
            digest([before, part, {k: of_part(part) for k, of_part in read.items()}]) for part in range(num_parts)
        ]
    return wanted


def _made_by(stages: Mapping[str, Stage], pins: Mapping[str, dict[str, str]] | None) -> Iterator[list[Any]]:
    """What makes each table of a step: its stage, after those before it that it depends on."""
    found: dict[str, list[Any]] = {}
    for name, stage in stages.items():
        pinned = stage.pins() if pins is None else pins[name]
        found[name] = [type(stage).__name__, stage.version, identity(stage), pinned]
        yield [found[one] for one in [*_held(stages, name), name]]


def _held(stages: Mapping[str, Stage], name: str) -> list[str]:
    """The tables of a step before one whose stages its fingerprint holds, see `SharedMap.stands_alone`."""
    before = list(stages)[: list(stages).index(name)]
    leading = [one for one in before if getattr(stages[one], "leads", False)]
    if not leading:
        return before
    if getattr(stages[name], "stands_alone", False):
        return leading
    return [one for one in before if not getattr(stages[one], "stands_alone", False)]


def stage_digests(stages: Mapping[str, Stage]) -> dict[str, str]:
    """Table name to the digest of all that its rows are made by: stages, versions, settings and pins, but no input."""
    return dict(zip(stages, map(digest, _made_by(stages, None)), strict=True))


def _reading(spec: Input, tables: Any, *, aligned: bool) -> Callable[[int], str]:
    """What each part reads of one input: its own part, or all parts (digested once, not once a part)."""
    contents = [
        [part.fingerprint if spec.beyond_rows else part.read_as for part in table.parts()] for table in as_list(tables)
    ]
    if aligned and spec.how == "each" and contents:
        return lambda part: digest([one[part] for one in contents]) if spec.many else contents[0][part]
    everything = digest(contents)
    return lambda part: everything


def why_stale(
    table: Table,
    stage: Stage,
    schema: pa.Schema,
    flags: Flags,
    *,
    inputs: Mapping[str, Collection[str] | None] | None = None,
) -> list[str]:
    """What differs of a table that was made under another configuration and that no flag allows to replace.

    An update replaces all but a listing: other rows there would have other image ids.

    Args:
        schema: the one the stage now declares; a fitted table must hold vectors of the same model.
        inputs: names of the tables that the stage reads, by input; None: they are not compared.

    Returns:
        A text for each field, `field: old -> new`; empty where nothing is wrong.
    """
    found = table.manifest()
    if found is None or flags.may_rebuild(table.name) or (stage.pinned and flags.refit):
        return []
    if flags.update and not isinstance(stage, Scan):
        return []
    if not found.complete and not table.committed():
        return []  # nothing came of it, for example after a wrong path
    changes = _changes(found, stage)
    if stage.pinned and found.complete and not changes:
        changes = _other_vectors(table, schema)
    return changes if inputs is None else [*changes, *_added_or_gone(found, stage, inputs)]


def _added_or_gone(found: Manifest, stage: Stage, inputs: Mapping[str, Collection[str] | None]) -> Iterator[str]:
    """Tables that a config asks for or does not, and that were, or were not, read when a table was made."""
    for key in (key for key, spec in stage.inputs.items() if spec.added) if found.complete else ():
        had, has = bool(found.inputs.get(key)), bool(inputs.get(key))
        if had != has:
            yield f"{key}: {'read' if had else 'not there'} -> {'read' if has else 'left out'}"


def stale_message(stale: Mapping[str, list[str]], *, listings: Collection[str], again: str = "") -> str:
    """The error about tables of another configuration: what differs, once each, and the one way on.

    Args:
        stale: by table, see `why_stale`.
        listings: those of them that no update replaces.
        again: the command of the update, where it is known.
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, changes in stale.items():
        alike.setdefault(tuple(changes), []).append(name)
    lines = [
        f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} made with another configuration: {'; '.join(why)}"
        for why, names in alike.items()
    ]
    listed = [name for name in stale if name in listings]
    if listed:
        lines.append(
            f"Put the old value back, choose another workdir=DIR, or run again with --update --rebuild {listed[0]}: "
            "images are then listed anew, and everything is made again"
        )
    else:
        lines.append(
            "Put the old value back, choose another workdir=DIR, or run again with --update: it makes what the change "
            f"needs, and what is there stays until that is complete{again and ':'}"
        )
        lines += [f"  {again}"] * bool(again)
    return "\n".join(lines)


def _other_vectors(table: Table, needed: pa.Schema) -> list[str]:
    try:
        found = table.schema()
    except TableError:  # gone or damaged: the run makes it again
        return []
    if (found.metadata or {}) == (needed.metadata or {}):
        return []
    return [f"fitted on {_vector_text(found)} -> its inputs now hold {_vector_text(needed)}"]


def _vector_text(schema: pa.Schema) -> str:
    meta = schema.metadata or {}
    model, dim, weights = (meta.get(f"curate.{key}".encode(), b"?").decode() for key in ("model", "dim", "weights"))
    return f"{model}, {dim} dims, weights {weights[:12]}"


def _changes(found: Manifest, stage: Stage, pins: Mapping[str, str] | None = None) -> list[str]:
    """What differs, as `field: old -> new` lines; `pins` are those of now, None: the stage looks them up."""
    if found.stage != type(stage).__name__:
        return [f"stage: {found.stage} -> {type(stage).__name__}"]
    changes = []
    if found.version != stage.version:
        changes.append(f"version of the stage: {found.version} -> {stage.version}")
    differing = [*stage.differs_from(found.config)]
    if pins is not None or not stage.pins_are_data:
        differing += differences(found.pins, stage.pins() if pins is None else pins)
    return [*changes, *(f"{k}: {a!r} -> {b!r}" for k, a, b in differing)]


def why_outdated(
    stages: Mapping[str, Stage],
    tables: Mapping[str, Table],
    inputs: Mapping[str, Any],
    *,
    pins: Mapping[str, dict[str, str]] | None,
    current: Collection[str],
) -> dict[str, str]:
    """Complete tables of one step that were made under other settings or from other inputs than those of now; and why.

    Reads manifests, and of fitted tables a schema.

    Args:
        stages: as the recipe declares them now.
        tables: of the same names.
        inputs: the tables that the step reads, see `work.open_input`.
        pins: by table, as the last run found them; None: not known, so that those of the tables are taken.
        current: the tables of earlier steps that are complete and not outdated.
    """
    reasons: dict[str, str] = {}
    made: dict[str, Stage] = {}  # the stages of the pass so far, whose fingerprints those after them hold
    for name, stage in stages.items():
        found = tables[name].manifest()
        if found is None or not found.complete:
            continue
        changes = _changes(found, stage, found.pins if pins is None else pins.get(name, {}))
        read = [table for key in stage.inputs for table in as_list(inputs.get(key))]
        missing = [table.name for table in read if table.name not in current]
        left_out = next((one for one in _held(stages, name) if one not in made), None)
        if changes:
            reasons[name] = f"made under another setting: {'; '.join(changes)}"
        elif missing:
            reasons[name] = f"{FOLLOWS}{', '.join(missing)}"
        elif left_out is not None:
            reasons[name] = f"{FOLLOWS}{left_out}"
        elif stage.pinned and not _fits_vectors(tables[name], read):
            reasons[name] = "fitted on other vectors than its inputs now hold"
        elif not (stage.pinned or isinstance(stage, Scan)):
            made[name] = resolved_stage(stage, found)
            if not _is_made_of(tables, made, inputs):
                del made[name]
                reasons[name] = f"{FOLLOWS}{', '.join(table.name for table in read)}"
    return reasons


def _is_made_of(tables: Mapping[str, Table], stages: Mapping[str, Stage], inputs: Mapping[str, Any]) -> bool:
    """Whether the parts of the last one of tables carry the fingerprints that its stage would give them now."""
    name, lead = list(stages)[-1], next(iter(stages.values()))
    parts = tables[name].parts()
    # Each part of a Shuffle or a Fold depends on all inputs, so that their fingerprints answer for the number of parts.
    regroups = isinstance(lead, Shuffle | Fold)
    num_parts = len(parts) if regroups else lead.num_parts(**{key: inputs.get(key) for key in lead.inputs})
    pins = {one: tables[one].complete_manifest().pins for one in stages}
    wanted = part_fingerprints(stages, inputs, num_parts, pins=pins)[name]
    return len(parts) == num_parts and all(p.fulfills(one) for p, one in zip(parts, wanted, strict=True))


def _fits_vectors(table: Table, inputs: list[Table]) -> bool:
    """Whether a fitted table is of the model and weights of vectors that it reads; True where either holds none."""
    own = _vectors_of(table)
    read = [vectors for one in inputs if (vectors := _vectors_of(one))] if own else []
    return not read or own in read


def _vectors_of(table: Table) -> list[bytes]:
    """Model and weights of the vectors of a table; empty: it holds none, or was cleaned."""
    meta = (table.schema().metadata or {}) if table.parts() and not table.complete_manifest().cleaned else {}
    return [meta[key] for key in VECTOR_META[2:] if key in meta]


def previous_resolved(found: Manifest | None, stage: Stage) -> dict[str, Any] | None:
    """Resolved fields of an earlier run of the same configuration."""
    return found.resolved if found is not None and not _changes(found, stage) else None


def resolved_stage(stage: StageT, manifest: Manifest) -> StageT:
    """A declared stage with the values that its `auto` fields had when the table was made."""
    # Key by key: groups of fields hold some that are no part of what a table was made with, such as paths.
    resolved = type(stage).model_validate(merge(stage.model_dump(), manifest.resolved))
    changed = {name: value for name in manifest.resolved if (value := getattr(resolved, name)) != getattr(stage, name)}
    return stage.model_copy(update=changed)  # what is as declared keeps the key that errors name
