"""The pages of config keys, from the pydantic models that check a config."""

from curate.config import Settings
from curate.config_reference import Key, keys_of
from curate.evaluation.settings import EvaluationSettings
from curate.recipe import BUILTIN, find_recipe
from curate.trainer.config import TrainConfig
from docs.generators.markdown import code, table

HEAD = """# Config keys

Every key of every recipe, with its default. A key with dots is nested: `copies.embed.model` is `embed:` below `copies:`
in a YAML file, or `copies.embed.model=sscd` on the command line. `curate config RECIPE KEY` tells the same.

A key marked *speed* changes how fast a run is, and no result; it may change at any time. Lists of sections have
brackets: `sources.pool[].path`.
"""

TRAINING_HEAD = """# Config keys of trainings

Every key of `curate train`, with its default. [Which config](../guides/configs.md) names the bundled configs, and
[Pretraining](../guides/training.md) tells what the most important keys do. A key marked *speed* may change at any time.
"""


def config_page() -> str:
    """What all recipes share, then what each has of its own."""
    by_recipe = {name: keys_of(find_recipe(name).config) for name in BUILTIN}
    every, *others = by_recipe.values()
    shared = [key for key in every if all(key in keys for keys in others)]
    parts = [HEAD, *_sections("Keys of every recipe", shared)]
    for name, keys in by_recipe.items():
        parts += _sections(f"Recipe `{name}`", [key for key in keys if key not in shared])
    return "\n\n".join(parts)


def training_config_page() -> str:
    """The keys of `curate train`."""
    return "\n\n".join(
        [
            TRAINING_HEAD,
            *_sections("Training", _keys(TrainConfig)),
            *_sections("Evaluation while it trains", _keys(EvaluationSettings, at="evaluation")),
        ]
    )


def _keys(model: type[Settings], at: str = "") -> list[Key]:
    return keys_of(model, at=at)


def _sections(title: str, keys: list[Key]) -> list[str]:
    """A heading, and a table for each key at the top, so that no table is longer than a page or two."""
    if not keys:
        return [f"## {title}", "None beside those of every recipe."]
    parts, tops = [f"## {title}"], dict.fromkeys(_top(key) for key in keys)
    plain = [key for key in keys if not _has_inside(_top(key), keys)]
    if plain:
        parts.append(_table(plain))
    for top in tops:
        inside = [key for key in keys if _top(key) == top]
        if _has_inside(top, keys):
            parts += [f"### {top}", *([_first(inside, top)] if _first(inside, top) else []), _table(inside)]
    return parts


def _first(keys: list[Key], top: str) -> str:
    return next((key.meaning for key in keys if key.name == top), "")


def _has_inside(top: str, keys: list[Key]) -> bool:
    return any(key.name.startswith((f"{top}.", f"{top}[]")) for key in keys)


def _top(key: Key) -> str:
    return key.name.split(".")[0].removesuffix("[]")


def _table(keys: list[Key]) -> str:
    rows = [(code(key.name), key.type, _default(key), _meaning(key)) for key in keys if key.type != "section"]
    return table(("key", "takes", "default", "meaning"), rows)


def _default(key: Key) -> str:
    return "required" if key.default is None else code(key.default)


def _meaning(key: Key) -> str:
    return f"{key.meaning} *speed*" if key.execution else key.meaning
