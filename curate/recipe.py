"""Recipes: the functions of `pipelines/` by name, their configs, and the workdir that a run claims."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field, field_validator

from curate.config import Execution, Settings, absolute_path
from curate.engine.executors import ExecutorConfig
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.errors import ConfigError, WorkdirError
from curate.sources.config import Sources

RUN = "run.json"
"""Marks a workdir: the recipe and the config of its last run."""


class RecipeConfig(Settings):
    """What every recipe's config holds beside its stages."""

    recipe: str
    """Name of a function in `pipelines/`."""
    workdir: str
    """Folder or URL of the tables; made when it is not there."""
    sources: Sources
    """Where the images lie: pool, curated, heldout; each a path or a list of {name, path}."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of every random choice."""
    executor: Annotated[ExecutorConfig, Execution()] = ExecutorConfig()
    """Where tasks run."""

    @field_validator("workdir")
    @classmethod
    def _absolute(cls, workdir: str) -> str:
        return absolute_path(workdir)  # workers on other machines have another current directory


ConfigT = TypeVar("ConfigT", bound=RecipeConfig)


@dataclass(frozen=True)
class Recipe:
    """A function of `pipelines/` that declares the steps of a run, with the config it takes."""

    name: str
    config: type[RecipeConfig]
    declare: Callable[[Pipeline, Any], None]


_RECIPES: dict[str, Recipe] = {}


def recipe(name: str, config: type[ConfigT]) -> Callable[[Callable[[Pipeline, ConfigT], None]], Callable[..., None]]:
    """Register a function of `pipelines/` under the name that configs use."""

    def register(declare: Callable[[Pipeline, ConfigT], None]) -> Callable[..., None]:
        _RECIPES[name] = Recipe(name, config, declare)
        return declare

    return register


def find_recipe(name: object) -> Recipe:
    """The recipe of that name.

    Raises:
        ConfigError: there is none; the message lists them.
    """
    package = importlib.import_module("curate.pipelines")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"curate.pipelines.{module.name}")
    if not isinstance(name, str) or name not in _RECIPES:
        raise ConfigError(f"recipe: {name!r} is not known; known are: {', '.join(sorted(_RECIPES))}")
    return _RECIPES[name]


def claim_workdir(store: Store, config: RecipeConfig) -> None:
    """Make sure that the workdir is new or this recipe's.

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
    if found is not None and found["recipe"] != config.recipe:
        raise WorkdirError(
            f"{store.root}: holds a run of recipe {found['recipe']!r}, this one is {config.recipe!r}; "
            "choose another workdir=DIR"
        )


def record_run(store: Store, config: RecipeConfig) -> None:
    """Mark the workdir with the recipe and the config of the run that now begins."""
    store.write_json(RUN, {"recipe": config.recipe, "config": config.model_dump(mode="json")})


def _foreign_files(store: Store) -> list[str]:
    if not store.fs.exists(store.path):
        return []
    names = [entry.rsplit("/", 1)[-1] for entry in store.fs.ls(store.path, detail=False)]
    return sorted(name for name in names if name != ".lock" and not name.startswith(".tmp-"))
