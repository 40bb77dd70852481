"""The folder of a run: `run.json` marks it, and says which recipe and which config made its tables."""

from collections.abc import Mapping
from typing import Any

from curate.engine.store import Store
from curate.errors import WorkdirError

RUN = "run.json"
"""Marks a workdir: the recipe and the config of its last run."""


def open_workdir(workdir: str) -> Store:
    """The tables of a run that has begun.

    Args:
        workdir: path or URL.

    Raises:
        WorkdirError: no run of curate is there.
    """
    store = Store(workdir)
    if store.read_json(RUN) is None:
        raise WorkdirError(f"{workdir}: no run of curate here; make one with `curate run CONFIG workdir={workdir}`")
    return store


def claim_workdir(store: Store, recipe: str) -> None:
    """Make sure that the workdir is new or holds a run of this recipe.

    Raises:
        WorkdirError: it holds another recipe's run, or files that are no run at all.
    """
    found = store.read_json(RUN)
    if found is not None and not (isinstance(found, dict) and "recipe" in found):
        raise WorkdirError(f"{store.join(RUN)}: not written by curate, or damaged; choose another workdir=DIR")
    if found is None and store.is_local and _foreign_files(store):
        raise WorkdirError(
            f"{store.root}: not empty, and not a workdir of curate ({', '.join(_foreign_files(store)[:3])}); "
            "choose an empty or new workdir=DIR"
        )
    if found is not None and found["recipe"] != recipe:
        raise WorkdirError(
            f"{store.root}: holds a run of recipe {found['recipe']!r}, this one is {recipe!r}; "
            "choose another workdir=DIR"
        )


def record_run(store: Store, recipe: str, config: Mapping[str, Any]) -> None:
    """Mark the workdir with the recipe and the JSON-ready config of the run that now begins."""
    store.write_json(RUN, {"recipe": recipe, "config": config})


def _foreign_files(store: Store) -> list[str]:
    """Names in the workdir that are neither the lock nor a write that was interrupted."""
    if not store.fs.exists(store.path):
        return []
    names = [entry.rsplit("/", 1)[-1] for entry in store.fs.ls(store.path, detail=False)]
    return sorted(name for name in names if name != ".lock" and not name.startswith(".tmp-"))
