"""Recipes: the functions of `pipelines/` by name, and their configs."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field, field_validator

from curate.config import Execution, Settings, absolute_path
from curate.engine.executors import ExecutorConfig
from curate.engine.pipeline import Pipeline
from curate.errors import ConfigError
from curate.sources.config import Sources


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
