"""An update: what a change of settings needs is made beside what is there, and replaces it when all is complete.

The difficulty: a table is replaced part by part, which for the table itself is safe (`engine/work.py`), but a user
whose run is killed on the way has neither the old result nor the new one, and the shards that a training reads change
under it. So an update works in a store that lies over the workdir (`engine/store.py`, folder `.update`): parts that
stay are read where they are, parts that change are written there, and so are their manifests, `run.json`, the report
and the card. Until all is complete, the workdir holds the old run, whole, and whoever looks at it sees nothing else.
Killed, the update goes on from the parts that it has, as any run does.

Then files move to their places. That takes moments, but it can be interrupted too: `_switch.json` in the folder is
written first, and as long as it is there, those who look read through the folder (`workdir.current`), so that they see
the new run whatever has been moved, and the next run ends it.

A training reads its shards as files and writes checkpoints beside its table (`Stage.needs_local`): it is made after the
move, as in any other run.

Until it ends, an update takes the disk space of the parts that it replaces a second time.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import takewhile

from curate import workdir
from curate.config import identity
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Scan
from curate.engine.store import MANIFEST, UPDATE, Store
from curate.errors import ConfigError, WorkdirError
from curate.recipe import RecipeConfig, check_config
from curate.workdir import RUN, SWITCH, DamagedRecord, RunRecord


@dataclass(frozen=True)
class UnderWay:
    """An update that was begun in a workdir and is not complete."""

    record: RunRecord
    """The run that it leads to."""
    done: tuple[str, ...]
    """Tables of it that are complete and replace others."""

    def describe(self) -> str:
        """What it is, and how it ends, in a sentence."""
        made = f"{len(self.done)} tables of it are complete" if self.done else "none of its tables is complete"
        command = workdir.command_line(self.record.command, "--update")
        again = f"`{command}`" if command else "the same call with update=True"
        return f"An update to other settings is under way; {made}. {again} goes on with it, and until then all stays"


def under_way(store: Store) -> UnderWay | None:
    """The update that was begun in a workdir and is not complete; None: there is none."""
    over = store.over(UPDATE)
    if over.read_own(RUN) is None or over.read_own(SWITCH) is not None:
        return None
    record = workdir.open_record(over)
    done = (name for name in record.tables if over.read_own(f"{name}/{MANIFEST}") is not None)
    return UnderWay(record, tuple(name for name in done if over.table(name).is_complete()))


def refuse_under_way(store: Store) -> None:
    """Raise where an update is under way: a run that is none would change what it goes by.

    Raises:
        WorkdirError: there is one.
    """
    found = under_way(store)
    if found is not None:
        raise WorkdirError(
            f"{store.root}: {found.describe()}. To stay with the settings of before, run these with --update: what "
            "the update has made is then removed"
        )


def replaces(store: Store, config: RecipeConfig, pipeline: Pipeline) -> bool:
    """Whether a workdir holds a run of other settings: what is made then must not stand in its place before it is
    complete."""
    try:
        found = workdir.read_record(store)
    except DamagedRecord:
        return False
    listed = [name for step in pipeline.steps for name, stage in step.stages.items() if isinstance(stage, Scan)]
    if found is None or not all(store.table(name).is_complete() for name in listed):
        return False
    return bool(pipeline.stale(Flags())) or not _is_of(found, config)


def _is_of(found: RunRecord, config: RecipeConfig) -> bool:
    if found.recipe != config.recipe:
        return False
    try:
        before = check_config(found.config, where=RUN)
    except ConfigError:  # of a version with other keys
        return False
    return identity(before) | {"workdir": ""} == identity(config) | {"workdir": ""}  # which may have been moved


def before_training(pipeline: Pipeline) -> Pipeline:
    """The same pipeline, but for a training and what follows it."""
    kept = takewhile(lambda step: not any(stage.needs_local for stage in step.stages.values()), pipeline.steps)
    pipeline.steps = list(kept)
    return pipeline


def forget(store: Store) -> None:
    """Remove what an update has made so far.

    The record goes first: of a folder without one nothing is read (`begin`, `laid_over`). What is left of it where this
    is killed is some of the files of an update, through which others of the workdir would show.
    """
    store.over(UPDATE).remove_file(RUN)
    store.remove(UPDATE)


def begin(store: Store, record: Callable[[], None]) -> None:
    """Begin an update or go on with one.

    Args:
        record: writes what it leads to.
    """
    if store.over(UPDATE).read_own(RUN) is None:
        forget(store)
    record()


def laid_over(store: Store) -> Store:
    """The store in which an update goes on; the workdir itself where none was begun."""
    over = store.over(UPDATE)
    return store if over.read_own(RUN) is None and over.read_own(SWITCH) is None else over


def forget_if_nothing_is_made(store: Store, tables: Collection[str]) -> None:
    """Remove what an update that failed has left, where that is no table: it may have been a mistyped value."""
    over = store.over(UPDATE)
    if not any(over.read_own(f"{name}/{MANIFEST}") is not None for name in tables):
        forget(store)


def switch(store: Store, tables: Collection[str]) -> None:
    """Let what an update made replace what is there."""
    over = store.over(UPDATE)
    changed = [name for name in tables if over.read_own(f"{name}/{MANIFEST}") is not None]
    over.write_json(SWITCH, {"tables": changed})
    end_switch(store)


def end_switch(store: Store) -> None:
    """End the switch of an update that is complete, also one that was killed; nothing where there is none."""
    from curate.report.page import FILE, PICTURES, SCORE_SWEEPS, SWEEP_FILE
    from curate.report.picture_folder import remove_unnamed

    over = store.over(UPDATE)
    if over.read_own(SWITCH) is None:
        return
    changed: list[str] = over.read_json(SWITCH)["tables"]
    over.put_in_place()
    for name in changed:
        table = store.table(name)
        manifest = table.complete_manifest()
        known = {part["number"] for part in manifest.parts} - set(manifest.cleaned)
        table.drop_parts(table.committed().keys() - known)
    for pages in (SWEEP_FILE, SCORE_SWEEPS):
        store.remove(pages)  # thresholds of tables that are gone
    remove_unnamed(store, PICTURES, (store.read_bytes(FILE) or b"").decode(errors="replace"))
    forget(store)


def drop_unlisted_parts(store: Store, pipeline: Pipeline) -> None:
    """Remove parts of complete listings that no manifest names: what a listing that was killed has left.

    A store that lies over the workdir cannot remove them, and would take them for its own.
    """
    for step in pipeline.steps:
        for name, stage in step.stages.items():
            table = store.table(name)
            if isinstance(stage, Scan) and table.is_complete():
                table.drop_parts(table.committed().keys() - {part.number for part in table.parts()})
