"""What a workdir says of its run: `run.json` holds the recipe, its config and the tables it declares, in order."""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from curate import command
from curate.config import Settings
from curate.decisions import FILE
from curate.engine.cleaning import WORKING
from curate.engine.finished import Finished, find_finished, open_finished
from curate.engine.pipeline import Pipeline
from curate.engine.store import MANIFEST, TEMPORARY, UPDATE, Store
from curate.engine.work import Step
from curate.errors import ConfigError, TableError, WorkdirError, first_line
from curate.locking import LOCK

logger = logging.getLogger(__name__)

RUN = "run.json"
"""Marks a workdir."""
SWITCH = "_switch.json"
"""In the folder of an update that is complete, while its files move to their places, see `updating.py`."""
LAYOUT = 4
"""Number of the arrangement of tables in a workdir; raised when another version of curate could not go on in it."""
READABLE = (2, 3, LAYOUT)
"""Arrangements that this version goes on in. Those before 3 have no checksums, so that damage may stay unseen; those
before 4 do not say what rows are made of: what follows the first pass is made once more, but no image is read again."""
MAX_NAMED = 3
"""Tables that an error names."""


class DamagedRecord(WorkdirError):
    """`run.json` cannot be read."""


class RunRecord(Settings):
    """What `run.json` holds."""

    layout: int
    """See `LAYOUT`."""
    recipe: str
    """Name of the recipe, as the config gives it."""
    config: dict[str, Any]
    """The config of the last run."""
    tables: tuple[str, ...]
    """Tables that the recipe declares, in the order in which they are made."""
    pins: dict[str, dict[str, str]] | None = None
    """By table: contents that it depends on beside its inputs, such as the hash of weights; null: not recorded."""
    command: tuple[str, ...] | None = None
    """What followed `curate run` on the command line: the config, then what overrides it; null: it was called from
    Python, or by a version that did not record it."""


def command_line(words: Sequence[str] | None, *more: str) -> str:
    """The command line of a run with more words, fit for a shell; empty where none is recorded."""
    return command.line("run", *words, *more) if words else ""


def current(store: Store) -> Store:
    """The store to look at: the workdir itself, or what lies over it while a complete update is put in its place."""
    if store.below is not None:
        return store
    over = store.over(UPDATE)
    return store if over.read_own(SWITCH) is None else over


def read_record(store: Store) -> RunRecord | None:
    """What a workdir says of its run; None: no run has been here.

    Raises:
        DamagedRecord: the file is damaged, or none of ours.
        WorkdirError: another version of curate made the workdir.
    """
    try:
        found = store.read_json(RUN)
    except TableError as error:
        raise _damaged(store, first_line(error.__cause__ or error)) from error
    if found is None:
        return None
    if isinstance(found, dict) and "recipe" in found and found.get("layout") not in READABLE:
        raise WorkdirError(
            f"{store.root}: was made by another version of curate, which arranged tables otherwise; go on with that "
            "version, or choose another workdir (--workdir DIR) and run again"
        )
    try:
        return RunRecord.model_validate(found)
    except ValueError as error:
        raise _damaged(store, "it does not say what this version writes there") from error


def _damaged(store: Store, text: str) -> DamagedRecord:
    return DamagedRecord(
        f"{store.join(RUN)}: not written by curate, or damaged ({text}); where this is a workdir, run its config "
        "again, which writes the file anew, else choose another workdir (--workdir DIR)"
    )


def claim(store: Store, recipe: str, tables: Collection[str], *, update: bool = False) -> str | None:
    """Make sure that the workdir is new, this recipe's, or one that grows into it.

    A run grows into another recipe that makes all of its results, and more; an update makes it one of any recipe.
    Tables that both declare alike are kept, those that the new one does not declare stay for the way back. A record
    that is damaged or gone is written anew: the tables say themselves what they were made of.

    Args:
        tables: those that the recipe declares.
        update: whether tables of the earlier recipe may be replaced.

    Returns:
        What is wrong with the record of a workdir that holds tables; None: nothing.

    Raises:
        WorkdirError: it holds the run of a recipe that this one does not go on from, or files that are no run at all.
    """
    try:
        found = read_record(store)
    except DamagedRecord as error:
        if not _holds_tables(store):
            raise
        return str(error)
    if found is None and store.is_local and _foreign_files(store):
        if _holds_tables(store):
            return f"{store.join(RUN)}: is gone; it is written anew"
        raise WorkdirError(
            f"{store.root}: not empty, and not a workdir of curate ({', '.join(_foreign_files(store)[:3])}); "
            "choose an empty or new workdir (--workdir DIR)"
        )
    if found is not None and found.recipe != recipe and not update:
        _check_growth(store, found, recipe, tables)
    return None


def _check_growth(store: Store, found: RunRecord, recipe: str, tables: Collection[str]) -> None:
    """Raise unless the run of another recipe may go on as one of this recipe."""
    missing = [name for name in found.tables if name not in tables and not name.startswith(WORKING)]
    if missing:
        raise WorkdirError(
            f"{store.root}: holds a run of recipe {found.recipe!r}, this one is {recipe!r}, which does not make its "
            f"{'tables' if len(missing) > 1 else 'table'} {', '.join(missing[:MAX_NAMED])}"
            f"{f' and {len(missing) - MAX_NAMED} more' if len(missing) > MAX_NAMED else ''}; run again with --update "
            "to go on here by this recipe (what both make alike is kept), or choose another workdir (--workdir DIR)"
        )
    logger.info("%s: a run of recipe %r goes on as one of %r", store.root, found.recipe, recipe)


def record(
    store: Store,
    recipe: str,
    config: Settings,
    tables: list[str],
    *,
    pins: dict[str, dict[str, str]] | None = None,
    command: Sequence[str] | None = None,
) -> None:
    """Mark the workdir with the recipe, the config, the tables, the pins and the command of the run that now begins."""
    values = config.model_dump(mode="json")
    given = None if command is None else tuple(command)
    made = RunRecord(layout=LAYOUT, recipe=recipe, config=values, tables=tuple(tables), pins=pins, command=given)
    store.write_json(RUN, made.model_dump())


def open_record(store: Store) -> RunRecord:
    """As `read_record`, of a workdir that must hold a run.

    Raises:
        WorkdirError: it holds none.
    """
    found = read_record(store)
    if found is None:
        raise WorkdirError(
            f"{store.root}: no run of curate here; make one with "
            f"`{command.line('run', 'dedup', '--pool', 'FOLDER', '--workdir', store.root)}`"
        )
    return found


def find_tables(store: Store) -> Finished:
    """The finished tables of the run in a workdir, under its current settings; there may be none.

    Raises:
        WorkdirError: it holds no run, or its recipe is a file that lies in the workdir itself.
        ConfigError: its recipe is not known here, or takes another config by now.
    """
    return _look(store, find_finished)


def open_tables(store: Store) -> Finished:
    """As `find_tables`, of a workdir in which something is finished.

    Raises:
        TableError: nothing is.
    """
    return _look(store, open_finished)


def declared_steps(store: Store) -> list[Step]:
    """What the recipe of the run in a workdir declares, under its current settings; errors as of `find_tables`."""
    return _outline(store, open_record(store)).steps


def _look(store: Store, find: Callable[..., Finished]) -> Finished:
    store = current(store)
    found = open_record(store)
    outline = _outline(store, found)
    return find(store, found.recipe, found.config, outline.steps, pins=found.pins, command=found.command)


def _outline(store: Store, found: RunRecord) -> Pipeline:
    from curate.recipe import check_config, find_recipe

    _refuse_own_code(store, found.recipe)
    try:
        config = check_config(found.config, where=store.join(RUN))
    except ConfigError as error:
        raise ConfigError(f"{error}\n(run its config again, which writes {RUN} anew)") from error
    return find_recipe(config.recipe).outline(store, config, recorded=found.tables)


def _refuse_own_code(store: Store, recipe: str) -> None:
    """A workdir may come from a stranger: looking at it must not run a file that came with it."""
    file = Path(recipe.rpartition(":")[0])
    if file.suffix == ".py" and store.is_local and file.resolve().is_relative_to(Path(store.path).resolve()):
        raise WorkdirError(
            f"{store.root}: its recipe is code in the workdir itself ({recipe}), which is not run to look at it; keep "
            "recipes elsewhere, and run the config again"
        )


def _holds_tables(store: Store) -> bool:
    """Whether a folder at the top is a table of curate."""
    try:
        entries = store.fs.ls(store.path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return False
    folders = [entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory"]
    return any(store.fs.exists(f"{folder}/{MANIFEST}") for folder in folders)


def _foreign_files(store: Store) -> list[str]:
    if not store.fs.exists(store.path):
        return []
    names = [entry.rsplit("/", 1)[-1] for entry in store.fs.ls(store.path, detail=False)]
    return sorted(name for name in names if name != LOCK and not name.startswith((TEMPORARY, FILE, f".{FILE}")))
