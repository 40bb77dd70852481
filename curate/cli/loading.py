"""From the words of a command line to the config of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate import command
from curate.errors import ConfigError

if TYPE_CHECKING:
    from curate.recipe import RecipeConfig


def load_run(
    config: str, overrides: list[str] | None, sources: Mapping[str, list[str] | None], workdir: str | None
) -> "RecipeConfig":
    """The config of a run with what the options say; `key=value` texts win over them.

    Args:
        sources: paths by role; None: not given.
        workdir: of the run; None: as the config says.

    Raises:
        ConfigError: it cannot be used, or is a bundled one and nobody says which pictures.
    """
    from curate.config import bundled_configs, read_yaml
    from curate.recipe import load_config

    overrides = overrides or []
    given = {role: paths[0] if len(paths) == 1 else paths for role, paths in sources.items() if paths}
    said = "pool" in given or any(one.startswith(("sources=", "sources.pool=")) for one in overrides)
    if config in bundled_configs() and not said and not Path(config).is_file():
        place = read_yaml(config).get("sources", {}).get("pool")
        if place == "pool" and not Path(place).exists():
            raise ConfigError(f"{config}: of which pictures? run: {command.line('run', config, '--pool', 'FOLDER')}")
    changes: dict[str, Any] = {"sources": given} if given else {}
    return load_config(config, overrides, changes=changes | ({"workdir": workdir} if workdir else {}))


def words_of(
    config: str, overrides: list[str] | None, sources: Mapping[str, list[str] | None], workdir: str | None
) -> tuple[str, ...]:
    """What was typed after `curate run`, but for its flags: the config first."""
    options = [(f"--{role}", path) for role, paths in sources.items() for path in paths or []]
    options += [("--workdir", workdir)] if workdir else []
    return config, *(word for option in options for word in option), *(overrides or [])
