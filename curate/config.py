"""Strict configuration: frozen pydantic models, YAML, `key=value` overrides, errors that name what the user typed."""

import difflib
import hashlib
import json
import posixpath
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from curate import command
from curate.errors import ConfigError
from curate.text import read_text, shortened


class Settings(BaseModel):  # noqa: PLW1641  # pydantic hashes the fields of a frozen class
    """A frozen group of fields; an unknown key is an error, the docstring under a field describes it.

    One group is often used under several keys: the stage that builds inverted lists knows its field `num_lists`, but
    not that this recipe mounts it at `copies.fit_lists`, which is what the user typed. So `parse` writes into each
    group the key that it was read from, and `field_error` puts it before the field. The key is no part of the value:
    equality, hashes, fingerprints and dumps ignore it, while `model_copy` and pickling keep it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)

    extensible: ClassVar[bool] = False
    """Whether a field of this type takes settings of any class made from it, such as a plug-in's."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier versions, and what to write instead of each."""

    _mounted_at: str = PrivateAttr(default="")

    def field_error(self, field: str, text: str) -> ConfigError:
        """The error about a field, named by its full key where `parse` made these settings.

        Args:
            field: name of the field, such as `levels`; may lead deeper, such as `levels.0`.
            text: what follows the name, such as `=[3]: at least 4 are needed` or `: no such file`.
        """
        return ConfigError(f"{_join(self._mounted_at, field)}{text}")

    def placed_as(self, group: "Settings") -> Self:
        """A copy whose errors name its fields by the key of another group, which the user typed."""
        copied = self.model_copy()
        copied._mounted_at = group._mounted_at
        return copied

    def __eq__(self, other: object) -> bool:
        # Pydantic's own comparison takes private attributes for a part of the value.
        if not isinstance(other, Settings) or type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields)


class Execution:
    """Marks a field (`Annotated[int, Execution()]`) that changes speed only, never a fingerprint."""


SettingsT = TypeVar("SettingsT", bound=Settings)


def identity(settings: Settings) -> dict[str, Any]:
    """The JSON-ready fields that change results: all of them but those marked `Execution`, recursively."""
    found: dict[str, Any] = {}
    plain = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        if any(isinstance(mark, Execution) for mark in field.metadata):
            continue
        value = getattr(settings, name)
        found[name] = identity(value) if isinstance(value, Settings) else plain[name]
    return found


def digest(value: object) -> str:
    """SHA-256 (hex, first 32 digits) of a JSON-ready value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, old, new) of every leaf in which two nested mappings differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif old != new:
        yield path, old, new


def read_yaml(name: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file: a path, or the name of a bundled config (`configs/dedup.yaml`, `dedup`).

    Raises:
        ConfigError: no such file, not YAML, or not a mapping.
    """
    path = find_config(name)
    try:
        loaded = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # dates that do not exist, lists without end
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: holds a {type(loaded).__name__}, a mapping `key: value` is needed")
    return loaded


def find_config(name: str | Path) -> Path:
    """The file that `name` means: itself when it exists, else the bundled config of that name."""
    path = Path(name)
    if path.is_file():
        return path
    files = _bundled_files()
    key = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    if key in files:
        return files[key]
    if (path / "run.json").is_file():
        raise ConfigError(
            f"{name}: a workdir, no config; to see what is in it, run: {command.line('status', str(name))}"
        )
    if path.is_dir():
        run = command.line("run", "dedup", "--pool", str(name))
        raise ConfigError(f"{name}: a folder, no config; to find the near-duplicates among its pictures, run: {run}")
    bundled = bundled_configs()
    last = {known.rpartition("/")[2]: known for known in bundled}
    near = [last.get(one, one) for one in difflib.get_close_matches(key, [*bundled, *last], n=3)]
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}? " if near else ""
    raise ConfigError(
        f"{name}: no such config file, nor a bundled one; {hint}bundled are: {', '.join(sorted(bundled))}"
    )


def bundled_configs() -> dict[str, Path]:
    """The configs of recipes and trainings that come with the package, by name: `dedup`, `train/tiny`."""
    return {name: path for name, path in _bundled_files().items() if not name.startswith("hardware/")}


def _bundled_files() -> dict[str, Path]:
    root = Path(__file__).parent / "configs"
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.glob("**/*.yaml"))}


def apply_overrides(
    values: Mapping[str, Any], overrides: Iterable[str], *, shorthand: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A copy of `values` with `a.b=text` overrides set; the text is read as YAML.

    Args:
        values: a nested mapping, as a YAML file holds it.
        overrides: texts `key=value`, applied in order; a later one wins.
        shorthand: keys at the top that may hold a plain value, and the field that such a value means: with
            `{"sources": "pool"}` the overrides `sources=A sources.heldout=B` set both `sources.pool` and
            `sources.heldout`.

    Raises:
        ConfigError: an override without `=`, or one whose parent key holds a plain value.
    """
    merged: dict[str, Any] = _copy_nested(values)
    shorthand = shorthand or {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {override!r}: write it as key=value, for example seed=1")
        try:
            value = yaml.safe_load(text) if text else None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"override {override!r}: not valid YAML; quote it to mean this text: {error}") from error
        if isinstance(value, str) and text[0] not in "'\"|>!&":
            value = text  # a plain text is meant as it stands: in a path, ` #` begins no comment
        top, dot, _ = key.partition(".")
        if dot and top in shorthand and not isinstance(merged.get(top, {}), dict):
            merged[top] = {shorthand[top]: merged[top]}
        _set_nested(merged, key, value)
    return merged


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `values` with `changes` made: mappings key by key, any other value as a whole; paths become text."""
    merged = dict(values)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = merge(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[key] = str(value) if isinstance(value, Path) else value
    return merged


def _copy_nested(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy_nested(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _set_nested(values: dict[str, Any], key: str, value: object) -> None:
    *parents, leaf = key.split(".")
    for i, parent in enumerate(parents):
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"override {key}: {'.'.join(parents[: i + 1])} is a plain value, it has no fields")
    values[leaf] = value


MAX_PROBLEMS = 20
"""Problems of a config that its error tells."""


def parse(model: type[SettingsT], values: Mapping[str, Any], *, where: str) -> SettingsT:
    """Validate `values` as `model`.

    Raises:
        ConfigError: each of the first problems on a line of its own, with its place, what was found, and, for an
            unknown key, the nearest known name.
    """
    try:
        return _placed(model.model_validate(dict(values)), "")
    except ValidationError as error:
        problems = error.errors()
        lines = [_explain(model, problem) for problem in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            lines.append(f"and {len(problems) - MAX_PROBLEMS:,} more problems")
        raise ConfigError(f"{where}:\n" + "\n".join(f"  {line}" for line in lines)) from error


def _placed(settings: SettingsT, place: str) -> SettingsT:
    """A copy that knows its key in the config, as do the settings inside it.

    Copied, since a default such as `inner: Inner = Inner()` is one object for every group that leaves it out.
    """
    copied = settings.model_copy()
    copied._mounted_at = place
    for name in type(settings).model_fields:
        vars(copied)[name] = _with_places(getattr(settings, name), _join(place, name))  # past the frozen setter
    return copied


def _with_places(value: Any, place: str) -> Any:
    if isinstance(value, Settings):
        return _placed(value, place)
    if type(value) in (list, tuple):
        return type(value)(_with_places(item, _join(place, number)) for number, item in enumerate(value))
    if type(value) is dict:
        return {key: _with_places(item, _join(place, key)) for key, item in value.items()}
    return value


def _join(place: str, step: object) -> str:
    return f"{place}.{step}" if place else f"{step}"


def _explain(model: type[Settings], problem: Any) -> str:
    place = ".".join(str(step) for step in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, key = problem["loc"]
        for group in _settings_at(model, parents):
            if key in group.renamed:
                return f"{place}: the name of an earlier version; {group.renamed[key]}"
        known = sorted(_fields_at(model, parents))
        near = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
        return f"{place}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{place}: required, but not given; set it in the file or as {place}=VALUE"
    found = re.sub(r"://[^/@\s]*@", "://***@", shortened(repr(problem["input"]), 1000))  # no password in a message
    return f"{place}: {problem['msg']}, found {found}"


def _fields_at(model: type[Settings], path: Iterable[Any]) -> set[str]:
    """Field names of the settings that `path` leads to; every member of a union counts."""
    return {name for known in _settings_at(model, path) for name in known.model_fields}


def _settings_at(model: type[Settings], path: Iterable[Any]) -> list[type[Settings]]:
    """The settings that `path` leads to; every member of a union counts."""
    models: list[type[Settings]] = [model]
    for step in path:
        deeper = [
            m
            for known in models
            if step in known.model_fields
            for m in settings_in(known.model_fields[step].annotation)
        ]
        models = deeper or models  # steps such as list indices or union tags lead to no field
    return models


def settings_in(annotation: Any) -> Iterator[type[Settings]]:
    """The settings classes that a field of this type may hold: all of a union, and plug-ins that are loaded."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, Settings):
            yield annotation
            for subclass in annotation.__subclasses__() if annotation.extensible else ():
                yield from settings_in(subclass)
        return
    for inner in typing.get_args(annotation):
        yield from settings_in(inner)


def refuse_url(path: str | Path, *, setting: str) -> None:
    """Raise where the folder or file to write is a URL, which would become a folder called `s3:` here.

    Raises:
        ConfigError: it is one.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):  # a Path has lost the second slash
        raise ConfigError(
            f"{setting}={path}: a URL, but what is written there is renamed, appended to and read again on the way; "
            "give a local folder, then copy it (aws s3 sync, gcloud storage rsync, azcopy)"
        )


def absolute_path(path: str) -> str:
    """A local path made absolute; a URL as it is.

    Raises:
        ValueError: a URL with a password in it, which would end up in tables.
    """
    if "://" not in path:
        return posixpath.normpath(posixpath.join(Path.cwd(), Path(path).expanduser()))
    # `abfs://CONTAINER@ACCOUNT...` names a container, and no user.
    if re.match(r"(?!abfss?://[^/:@\s]*@)[^:]+://[^/@\s]*@", path):
        raise ValueError("a URL with a user name or password; give these to fsspec by its environment or config file")
    return path


def without_folder(name: str) -> str:
    """A name of a plug-in as others may read it: of `/home/me/net.py:Net` the file and what it holds."""
    file, colon, attribute = name.rpartition(":")
    return f"{posixpath.basename(file)}:{attribute}" if colon and file.endswith(".py") else name
