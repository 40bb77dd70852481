"""Plug-ins by name: every way to write one, what is said of wrong ones, and their way to other processes."""

import importlib
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import cloudpickle
import pytest
from distributed.protocol.pickle import dumps

from curate import registry
from curate.errors import ConfigError
from curate.registry import file_module_name, known_names, resolve

ROOT = Path(__file__).parent.parent
BUILTIN = {"ordered": "collections:OrderedDict", "json": "json"}
PLUGIN = """
from dataclasses import dataclass

@dataclass
class Doubler:
    factor: int = 2

    def __call__(self, value):
        return self.factor * value

class Outer:
    class Inner:
        value = 7
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my plugin.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(*, group: str) -> EntryPoints:
        points = {"decoder": "json:JSONDecoder", "ordered": "json", "broken": "no_such_package:thing"}
        return EntryPoints(EntryPoint(*item, group) for item in points.items() if group == "curate.backbones")

    monkeypatch.setattr(registry, "entry_points", installed)


def test_each_way_to_write_a_name_gives_the_same_object(plugin: Path) -> None:
    import collections
    import json

    assert resolve("recipe", "ordered", BUILTIN) is collections.OrderedDict
    assert resolve("recipe", "json", BUILTIN) is json
    assert resolve("recipe", "collections:OrderedDict", {}) is collections.OrderedDict
    assert resolve("recipe", "json.decoder:JSONDecoder.decode", {}) is json.JSONDecoder.decode
    by_relative, by_absolute = (resolve("recipe", f"{p}:Doubler", {}) for p in ("./my plugin.py", plugin))
    assert by_relative is by_absolute
    assert by_relative()(21) == 42
    assert resolve("recipe", "./my plugin.py:Outer.Inner", {}).value == 7


@pytest.mark.usefixtures("entry_points")
def test_entry_points_are_names_of_their_own_kind_and_no_built_in_gives_way() -> None:
    import collections
    import json

    assert resolve("backbone", "decoder", {}) is json.JSONDecoder
    assert resolve("backbone", "ordered", BUILTIN) is collections.OrderedDict
    assert known_names("backbone", BUILTIN) == ["ordered", "json", "broken", "decoder"]
    with pytest.raises(ConfigError, match="recipe: 'decoder' is not known"):
        resolve("recipe", "decoder", {})
    with pytest.raises(ConfigError, match="did you mean 'decoder'"):
        resolve("backbone", "decodre", {})


@pytest.mark.usefixtures("entry_points")
def test_a_broken_entry_point_is_named() -> None:
    with pytest.raises(ConfigError, match=r"backbone: 'broken' \(entry point no_such_package:thing\): no module"):
        resolve("backbone", "broken", {})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("orderd", r"model: 'orderd' is not known; did you mean 'ordered'\?"),
        ("x/y", "model: 'x/y' is not known; known are: ordered, json"),
        ("no_such_package.inner:thing", "no module 'no_such_package' can be imported; .* PYTHONPATH"),
        ("json.nothing:thing", "no module 'json.nothing' can be imported"),
        ("json:lods", "has no attribute 'lods'; did you mean 'loads'"),
        ("./absent.py:thing", "no file ./absent.py in "),
        ("./my plugin.py", "which of the names in that file"),
        ("./my plugin.py:Dubler", "has no attribute 'Dubler'; did you mean 'Doubler'"),
        ("./needs.py:thing", "its import fails: No module named 'no_such_helper'"),
        ("./raises.py:thing", "its import fails: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(plugin: Path, name: str, said: str) -> None:
    plugin.with_name("needs.py").write_text("import no_such_helper")
    plugin.with_name("raises.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=said) as caught:
        resolve("backbone", name, BUILTIN, key="model")
    assert str(caught.value).startswith(f"model: {name!r}")


def test_a_failed_import_is_chained(plugin: Path) -> None:
    plugin.with_name("raises.py").write_text("1 / 0")
    with pytest.raises(ConfigError) as caught:
        resolve("recipe", "./raises.py:thing", {})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_names_of_modules_differ_as_their_files_do(tmp_path: Path) -> None:
    names = [file_module_name(tmp_path / file) for file in ("a_b.py", "a-b.py", "c/a_b.py")]
    assert len(set(names)) == 3
    assert names[0] == file_module_name(tmp_path / "c" / ".." / "a_b.py")
    with pytest.raises(ModuleNotFoundError, match="registry.other"):
        importlib.import_module("curate.registry.other")


@pytest.mark.parametrize("dump", [pickle.dumps, cloudpickle.dumps, dumps])
def test_objects_of_a_file_are_unpickled_where_nothing_was_imported(plugin: Path, dump: Callable[..., bytes]) -> None:
    doubler = resolve("recipe", "./my plugin.py:Doubler", {})
    written = plugin.with_name("pickled")
    written.write_bytes(dump([doubler(3), doubler]))  # inside a list: as deep as in a task
    code = "import pickle, sys; (made, kind) = pickle.load(open(sys.argv[1], 'rb')); print(made(5), kind()(5))"
    done = subprocess.run([sys.executable, "-c", code, written], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["15", "10"]


def test_objects_of_a_file_run_in_spawned_processes(plugin: Path) -> None:
    doubler = resolve("recipe", "./my plugin.py:Doubler", {})()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(doubler, range(4))) == [0, 2, 4, 6]


def test_the_registry_itself_is_light() -> None:
    code = "import sys, curate.registry; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"numpy", "torch", "dask", "distributed", "cloudpickle", "pydantic", "pyarrow"} & {*done.stdout.split()}
