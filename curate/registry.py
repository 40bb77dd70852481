"""Plug-ins by name: how a config names a recipe, a backbone, an objective or a source that lives outside the package.

A name is one of

| written | means |
|---|---|
| `lite0` | a built-in name |
| `my_name` | an entry point of an installed package, in the group `curate.backbones` (or `curate.recipes`, ...) |
| `my_package.module:attribute` | what an importable module holds |
| `./my_file.py:attribute` | what a file holds; relative to the current directory, or absolute |

Objects of a file have to reach worker processes. Pickle sends a class as the name of its module and its own name, and
the worker imports that module; but a file beside a config is not on its search path, and a worker that has just been
spawned has been told of no file. So the name of a file's module contains the path, and is a submodule of this one:
whoever imports `curate.registry.my_file_MZXW6` imports `curate.registry` first, which installs the finder that reads
the path from the name. Workers need no preparation, and every kind of pickle works. Cloudpickle's
`register_pickle_by_value` was the other way: Dask asks it about the outermost object of a message alone, not about
the objects inside.
"""

import base64
import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from curate.errors import ConfigError, CurateError

Kind = Literal["recipe", "backbone", "objective", "source"]
"""What can be plugged in; the entry points of a kind are in the group `curate.KINDs`."""

__path__: list[str] = []
"""Makes this module a package to Python, so that modules of files can be its submodules."""


def resolve(kind: Kind, name: str, builtin: Mapping[str, str], *, key: str | None = None) -> Any:
    """The object that `name` means.

    Args:
        builtin: built-in names, each with the `module:attribute` (or the module alone) that is imported when asked for.
        key: config key to name in errors; None: the kind.

    Raises:
        ConfigError: an unknown name; or a module, file or attribute that is not there, or does not import.
    """
    where = f"{key or kind}: {name!r}"
    if name in builtin:
        return _attribute(*_parts(builtin[name]), where=where)
    target, attribute = _parts(name)
    plugged = None if attribute else _entry_points(kind).get(name)
    if plugged is not None:
        return _attribute(plugged.module, plugged.attr or "", where=f"{where} (entry point {plugged.value})")
    if target.endswith(".py"):
        if not attribute:
            raise ConfigError(f"{where}: which of the names in that file? write {name}:NAME")
        return _attribute(_existing_module(target, where=where), attribute, where=where)
    if attribute and all(step.isidentifier() for step in target.split(".")):
        return _attribute(target, attribute, where=where)
    raise ConfigError(f"{where} is not known; {_hint(name, known_names(kind, builtin))}")


def known_names(kind: Kind, builtin: Mapping[str, str]) -> list[str]:
    """The built-in names, then those of installed packages."""
    return [*builtin, *sorted(_entry_points(kind).keys() - builtin.keys())]


def distribution_of(kind: Kind, name: str) -> Distribution | None:
    """The installed package whose entry point has this name; None: there is none, or it does not say."""
    point = _entry_points(kind).get(name)
    return None if point is None else point.dist


def file_module_name(path: str | Path) -> str:
    """Name of the module of a Python file: importable in every process that sees the file at the same absolute path."""
    absolute = os.path.abspath(Path(path).expanduser())  # noqa: PTH100  # keeps links, which may lead elsewhere on workers
    token = base64.b32encode(os.fsencode(absolute)).decode().rstrip("=")
    stem = re.sub(r"\W", "_", Path(path).stem)
    return f"{__name__}.{stem}_{token}"


class FileFinder:
    """Finds the modules that `file_module_name` names; stands in `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module of a file; None for all other names."""
        if not name.startswith(f"{__name__}."):
            return None
        token = name.rpartition("_")[2]
        try:
            file = os.fsdecode(base64.b32decode(token + "=" * (-len(token) % 8)))
        except ValueError:
            return None
        return importlib.util.spec_from_file_location(name, file)


sys.meta_path.append(FileFinder)


def _entry_points(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"curate.{kind}s")}


def _parts(target: str) -> tuple[str, str]:
    """Module (or file) and attribute, which is empty where there is no colon."""
    before, colon, after = target.rpartition(":")
    return (before, after) if colon else (target, "")


def _existing_module(path: str, *, where: str) -> str:
    if not Path(path).expanduser().is_file():
        raise ConfigError(f"{where}: no file {path} in {Path.cwd()}")
    return file_module_name(path)


def _attribute(module: str, attribute: str, *, where: str) -> Any:
    found: Any = _module(module, where=where)
    for step in attribute.split(".") if attribute else ():
        if not hasattr(found, step):
            near = _hint(step, [known for known in dir(found) if not known.startswith("_")])
            raise ConfigError(f"{where}: has no attribute {step!r}; {near}")
        found = getattr(found, step)
    return found


def _module(name: str, *, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except CurateError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{where}: its import fails: {error}") from error
        raise ConfigError(
            f"{where}: no module {error.name!r} can be imported; install it, put its folder on PYTHONPATH, or name a "
            "file: ./FILE.py:NAME"
        ) from error
    except Exception as error:
        raise ConfigError(f"{where}: its import fails: {type(error).__name__}: {error}") from error


def _hint(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
