"""Recipes: functions that declare the steps of a run, and the config that each takes.

A recipe is a function `(p: Pipeline, cfg: MyConfig) -> None`; the annotation of its second parameter is the type that a
config file is checked against. Built-in ones are in `pipelines/`; `recipe: my_package.module:function`,
`recipe: ./my_recipe.py:function` and entry points of the group `curate.recipes` name others.
"""

import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from curate.config import Execution, Settings, absolute_path, apply_overrides, merge, parse, read_yaml
from curate.engine.executors import ExecutorConfig
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.registry import resolve
from curate.sources.config import Sources, last_plain_step
from curate.sources.uri import local_path

BUILTIN = {
    name: f"curate.pipelines.{name}:{name}" for name in ("dedup", "semdedup", "hierarchical", "lvd142m", "pretrain")
}
"""Built-in recipes, imported when asked for."""
MAX_POOL_NAME = 60
"""Characters of a pool's name in the name of a workdir."""


class RecipeConfig(Settings):
    """What every recipe's config holds beside its stages."""

    recipe: str
    """Name of a recipe: built in, `package.module:function`, `./file.py:function`, or of an installed package."""
    workdir: str
    """Folder or URL of the tables; made when it is not there. Where it is not given: runs/RECIPE-POOL, with the last
    step of the first pool's path."""
    sources: Sources
    """Where the images lie: pool, curated, heldout; each a path or a list of {name, path}."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    executor: Annotated[ExecutorConfig, Execution()] = ExecutorConfig()
    """Where tasks run."""
    keep: Annotated[Literal["all", "results"], Execution()] = "all"
    """Which tables stay. all: working tables too, so that a changed setting makes again only what depends on it.
    results: a working table goes as soon as nothing needs its rows; what a later change needs of them is made again."""

    @field_validator("workdir")
    @classmethod
    def _absolute(cls, workdir: str) -> str:
        return absolute_path(workdir)  # workers on other machines have another current directory

    @field_validator("recipe")
    @classmethod
    def _absolute_file(cls, recipe: str) -> str:
        """A file is found again from any current directory."""
        file, colon, name = recipe.rpartition(":")
        return f"{Path(file).expanduser().absolute()}:{name}" if colon and file.endswith(".py") else recipe


@dataclass(frozen=True)
class Recipe:
    """A function that declares the steps of a run, with the config it takes."""

    name: str
    config: type[RecipeConfig]
    declare: Callable[[Pipeline, Any], Any]

    def outline(self, store: Store, config: RecipeConfig, *, recorded: Collection[str] | None = None) -> Pipeline:
        """What the recipe declares, to look at: no schema is asked for, so no model has to be known.

        Args:
            recorded: see `Pipeline`.
        """
        pipeline = Pipeline(store, seed=config.seed, with_schemas=False, recorded=recorded)
        self.declare(pipeline, config)
        return pipeline


def find_recipe(name: object) -> Recipe:
    """The recipe of that name.

    Raises:
        ConfigError: there is none, or what the name means is no recipe.
    """
    if not isinstance(name, str):
        raise ConfigError(f"recipe: {name!r} is no name; known are: {', '.join(BUILTIN)}")
    declare = resolve("recipe", name, BUILTIN)
    hints = typing.get_type_hints(declare) if inspect.isfunction(declare) else {}
    parameters = list(inspect.signature(declare).parameters) if hints else []
    config = hints.get(parameters[1]) if len(parameters) == 2 else None
    if not (isinstance(config, type) and issubclass(config, RecipeConfig)):
        raise ConfigError(
            f"recipe: {name!r} is no recipe; it must be a function (p: Pipeline, cfg: MyConfig) whose MyConfig is a "
            "subclass of curate.RecipeConfig"
        )
    return Recipe(name, config, declare)


def load_config(
    name: str | Path, overrides: Iterable[str] = (), *, changes: Mapping[str, Any] | None = None
) -> RecipeConfig:
    """The config of a run from a YAML file, of the type that its recipe takes.

    Args:
        name: a path, or the name of a bundled config.
        overrides: `key=value` texts.
        changes: values in the place of those of the file, before the overrides; nested ones key by key.

    Raises:
        ConfigError: unreadable, without a recipe, or with keys or values the recipe does not take.
    """
    values = read_yaml(name)
    if changes and "sources" in changes and not isinstance(values.get("sources", {}), dict):
        values["sources"] = {"pool": values["sources"]}
    values = apply_overrides(merge(values, changes or {}), overrides, shorthand={"sources": "pool"})
    return check_config(values, where=str(name))


def check_config(values: dict[str, Any], *, where: str) -> RecipeConfig:
    """Values as the config that their recipe takes.

    Raises:
        ConfigError: as in `load_config`.
    """
    if "recipe" not in values:
        raise ConfigError(f"{where}: has no `recipe`; is it a config for `curate train`?")
    if values.get("workdir") is None:
        values = {**values, "workdir": default_workdir(values["recipe"], values.get("sources"))}
    return parse(find_recipe(values["recipe"]).config, values, where=where)


def default_workdir(recipe: object, sources: object) -> str:
    """The workdir of a run that names none: runs/RECIPE-POOL.

    Args:
        recipe: name of the recipe; of `./file.py:function` the function counts.
        sources: what the config says of them.
    """
    pool = sources.get("pool") if isinstance(sources, Mapping) else sources
    while isinstance(pool, list | tuple | Mapping):
        pool = pool.get("path") if isinstance(pool, Mapping) else next(iter(pool), None)
    name = "" if pool is None else last_plain_step(absolute_path(local_path(str(pool)).partition("?")[0]))
    return "runs/" + "-".join(filter(None, [str(recipe).rpartition(":")[2], name[:MAX_POOL_NAME]]))
