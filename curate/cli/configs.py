"""`curate config` and `curate init`: which keys there are and what they mean, and a file to begin with."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from curate import command
from curate.cli.arguments import Config, complete_config
from curate.cli.consoles import fold, say, say_heading, show_table, width
from curate.config import bundled_configs, read_yaml
from curate.config_reference import SECTION, Key, keys_of, yaml_line
from curate.errors import ConfigError


def config(
    name: Annotated[
        str | None,
        typer.Argument(help="YAML file, bundled config, or a key; none: list configs", autocompletion=complete_config),
    ] = None,
    key: Annotated[str | None, typer.Argument(help="a key or section, such as copies.embed; none: all")] = None,
    yaml: Annotated[bool, typer.Option("--yaml", help="print YAML with every value that would count")] = False,
) -> None:
    """Print every key of a config: what it takes, what it is if you say nothing, what it means.

    Where the config sets a key, its value is told. Keys marked (speed) change no result.

    Examples:
        # the configs that there are
        curate config
        # all keys of one
        curate config dedup
        # some of them
        curate config lvd142m copies
        curate config train/small optimizer.base_lr
        # a key, wherever it is
        curate config copies.threshold
        # as a file
        curate config hierarchical --yaml
    """
    if name is None:
        show_table(("config", "what it is"), [(name, _first_comment(path)) for name, path in bundled_configs().items()])
        say(f"\nThe keys of one: {command.line('config', 'dedup')}")
        return
    if key is None and (home := _home_of(name)) is not None:
        say(f"{name} in {home}:\n")
        name, key = home, name
    values = read_yaml(name)
    keys, place = _under(_keys(values), key, name=name), key or ""
    if yaml:
        say(_as_yaml(_whole(values), place))
        return
    for one in keys:
        _show(one, _value_at(values, one.name))


def init(
    name: Config,
    file: Annotated[Path | None, typer.Argument(help="file to write; none: NAME.yaml here")] = None,
) -> None:
    """Write a config with comments to begin with: that of a bundled one, and the keys that people change first.

    A file that is there stays as it is.

    Examples:
        # dedup.yaml in this folder
        curate init dedup
        curate init train/small runs/small.yaml
    """
    bundled = bundled_configs()
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    if wanted not in bundled:
        read_yaml(name if not Path(name).is_file() else f"{name}: a file; name a bundled config")
    target = file or Path(f"{wanted.rpartition('/')[2]}.yaml")
    text = _commented(wanted, bundled[wanted])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{target}: is there already, and is left as it is; name another file") from error
    words = ["run", str(target), "--pool", "FOLDER"]
    if _is_training(read_yaml(target)):
        words = ["train", str(target), "--shards", "WORKDIR", "--output", "FOLDER"]
    say(f"{target}\nNext:\n  {command.line(*words)}\n  {command.line('config', str(target))}  # what each key means")


def _is_training(values: dict[str, Any]) -> bool:
    return "recipe" not in values


def _model_of(values: dict[str, Any]) -> Any:
    """The class that a config is checked against."""
    from curate.recipe import find_recipe
    from curate.trainer.config import TrainConfig

    return TrainConfig if _is_training(values) else find_recipe(values["recipe"]).config


def _keys(values: dict[str, Any]) -> list[Key]:
    """Every key of the config, those of the block `evaluation` of a training among them."""
    from curate.evaluation.settings import KEY, EvaluationSettings

    found = keys_of(_model_of(values))
    if _is_training(values):
        meaning = "What is measured of the teacher every `evaluate_every` iterations; null: nothing."
        found += [Key(KEY, f"{SECTION} | null", "null", meaning, False), *keys_of(EvaluationSettings, at=KEY)]
    return found


def _under(keys: Sequence[Key], key: str | None, *, name: str) -> list[Key]:
    """The key and what is below it.

    Raises:
        ConfigError: there is none of that name; near ones are told.
    """
    import difflib

    if key is None:
        return list(keys)
    found = [one for one in keys if one.name == key or one.name.startswith((f"{key}.", f"{key}[]."))]
    if found:
        return found
    last = [one for one in keys if one.name.rpartition(".")[2] == key.rpartition(".")[2]]
    near = [one.name for one in last] or difflib.get_close_matches(key, [one.name for one in keys], n=3)
    hint = f"did you mean {', '.join(dict.fromkeys(near[:5]))}?" if near else f"see {command.line('config', name)}"
    raise ConfigError(f"{name} has no key {key!r}; {hint}")


def _home_of(name: str) -> str | None:
    """The first bundled config that has a key of this name; None: none has, or it names a config or a folder."""
    if name in bundled_configs() or "/" in name or Path(name).exists() or name.endswith(".yaml"):
        return None
    homes = sorted(bundled_configs(), key=lambda one: (one.startswith("train/"), one != "train/small", one))
    return next((home for home in homes if any(key.name == name for key in _keys(read_yaml(home)))), None)


def _show(key: Key, value: Any) -> None:
    """A key with its type and default, and below what it means."""
    is_section = key.type == SECTION
    default = "required" if key.default is None else f"default {key.default}"
    told = [] if is_section else [key.type, default]
    if value is not None and not isinstance(value, dict) and yaml_line(value) != key.default:
        told.append(f"here {yaml_line(value)}")
    told += ["(speed)"] if key.execution and not is_section else []
    say_heading(key.name)
    for text in filter(None, ["; ".join(told), key.meaning]):
        say("\n".join(f"    {line}" for line in fold(text, max(min(width(), 110) - 4, 30))))


def _value_at(values: Any, key: str) -> Any:
    for step in key.split("."):
        values = values.get(step) if isinstance(values, dict) else None
    return values


def _whole(values: dict[str, Any]) -> dict[str, Any]:
    """The config with every default filled in."""
    from curate.config import parse
    from curate.evaluation.settings import split_config
    from curate.recipe import check_config

    if not _is_training(values):
        parsed = check_config(values, where="config").model_dump(mode="json")
        given = values.get("sources", {})
        return {**parsed, "sources": given} if isinstance(given, dict) else parsed
    needed = {"shards": "SHARDS", "output": "FOLDER"}
    rest, evaluation = split_config({**needed, **values}, where="config")
    parsed = parse(_model_of(values), rest, where="config").model_dump(mode="json")
    return parsed if evaluation is None else {**parsed, "evaluation": evaluation.model_dump(mode="json")}


def _as_yaml(values: dict[str, Any], place: str) -> str:
    import yaml

    found = _value_at(values, place) if place else values
    for step in reversed(place.split(".") if place else []):
        found = {step: found}
    return yaml.safe_dump(found, sort_keys=False, width=110).rstrip()


def _first_comment(path: Path) -> str:
    """What a bundled config says of itself in its first sentence."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<! al)\.(?= |$)", text)[0]


FIRST = (
    *("workdir", "sources.heldout", "copies.threshold", "copies.frames", "inspect.limits.min_side", "select.cap"),
    *("write.shard_bytes", "executor.kind", "executor.workers", "keep"),
)
"""Keys of recipes that people change first, beside those of the bundled config."""
FIRST_OF_TRAINING = ("shards", "output", "seed", "init_from", "device", "workers", "evaluate_every")
PLACEHOLDERS = {"workdir": "runs/mine", "sources.heldout": "BENCHMARKS", "shards": "WORKDIR", "output": "runs/trained"}
"""What stands for values that have no default, or an empty one."""


def _commented(name: str, path: Path) -> str:
    """The bundled config, and as comments those of the keys that people change first which it does not set.

    Such a key stands at the end of its section, so that taking the `# ` away is all that it needs.
    """
    values = read_yaml(path)
    known = {key.name: key for key in _keys(values)}
    wanted = FIRST_OF_TRAINING if _is_training(values) else FIRST
    lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    if values.get("sources") == {"pool": "pool"}:
        place = next(number for number, line in enumerate(lines) if line.startswith("sources:"))
        lines[place : place + 1] = ["sources:", "  pool: FOLDER                      # the images to choose from"]
    lines += ["", f"# More keys that are changed often, with their defaults; all of them: curate config {name}"]
    sections = {key.partition(".")[0] for key in wanted} - values.keys()
    for key in (known[one] for one in wanted if one in known and _value_at(values, one) is None):
        top, _, below = key.name.partition(".")
        new = [f"# {line}" for line in [*fold(key.meaning, 108), *_nested(below or top, key)]]
        if below and top not in sections:
            place = _end_of(lines, top)
            lines[place:place] = [f"  {line}" for line in new]
            continue
        if below and f"# {top}:" not in lines:
            lines += ["", f"# {top}:"]
        lines += [f"#   {line.removeprefix('# ')}" for line in new] if below else ["", *new]
    return "\n".join([*lines, ""])


def _end_of(lines: Sequence[str], section: str) -> int:
    """The number of the first line after a section of a YAML file that is written in blocks."""
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"{section}:"))
    inside = [number for number in range(begin, len(lines)) if lines[number].startswith((" ", f"{section}:"))]
    following = next((n for n in range(begin + 1, len(lines)) if lines[n][:1].isalpha()), len(lines))
    return max(number for number in inside if number < following) + 1


def _nested(path: str, key: Key) -> Iterator[str]:
    """The lines of YAML that set one key."""
    *parents, last = path.split(".")
    for depth, parent in enumerate(parents):
        yield f"{'  ' * depth}{parent}:"
    yield f"{'  ' * len(parents)}{last}: {PLACEHOLDERS.get(key.name, key.default)}"
