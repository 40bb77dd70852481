"""Strict configs: unknown keys, overrides, identity of settings."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.config import (
    Execution,
    Settings,
    apply_overrides,
    differences,
    digest,
    find_config,
    identity,
    parse,
    read_yaml,
    without_folder,
)
from curate.errors import ConfigError
from curate.recipe import RecipeConfig, find_recipe, load_config


class Inner(Settings):
    threshold: float = 0.5
    """Cosine."""
    batch_size: Annotated[int, Execution()] = 8
    """Speed only."""


class Outer(Settings):
    name: str
    """Required."""
    inner: Inner = Inner()
    """Nested."""


class Grown(Settings):
    renamed: ClassVar[Mapping[str, str]] = {"tight": "write `inner.threshold` instead"}
    inner: Inner = Inner()


SHARED = Inner()


class Mounts(Settings):
    first: Inner = SHARED
    second: Inner = SHARED
    either: Inner | int = 3
    many: tuple[Inner, ...] = ()
    named: dict[str, list[Inner]] | None = None
    outer: Outer = Outer(name="a")


def place(settings: Settings) -> str:
    """The field `threshold` as an error about it names it."""
    return str(settings.field_error("threshold", "")).removesuffix("threshold")


def test_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"inner.treshold: unknown key; did you mean 'threshold'\?"):
        parse(Outer, {"name": "a", "inner": {"treshold": 1}}, where="x.yaml")


def test_key_of_an_earlier_version_names_the_one_of_today() -> None:
    with pytest.raises(ConfigError, match="  tight: the name of an earlier version; write `inner.threshold` instead"):
        parse(Grown, {"tight": 0.5}, where="x.yaml")


def test_of_very_many_problems_the_first_are_told() -> None:
    with pytest.raises(ConfigError, match="and 80 more problems$") as raised:
        parse(Outer, {"name": "a"} | {f"key{number}": "x" * 10_000 for number in range(100)}, where="x.yaml")
    assert len(str(raised.value)) < 20_000


def test_missing_and_mistyped_values_are_told_together() -> None:
    with pytest.raises(ConfigError, match=r"(?s)name: required.*inner.threshold: .*found 'high'"):
        parse(Outer, {"inner": {"threshold": "high"}}, where="x.yaml")


def test_errors_name_fields_by_the_key_they_were_read_from() -> None:
    values = {"either": {}, "many": [{}, {}], "named": {"x": [{}]}}
    mounts = parse(Mounts, values, where="x.yaml")
    assert isinstance(mounts.either, Inner)
    inner = [mounts.first, mounts.second, mounts.either, *mounts.many, *(mounts.named or {})["x"], mounts.outer.inner]
    keys = ["first.", "second.", "either.", "many.0.", "many.1.", "named.x.0.", "outer.inner."]
    assert [place(settings) for settings in inner] == keys
    error = mounts.outer.inner.field_error("threshold", "=0.5: too low")
    assert isinstance(error, ConfigError)
    assert str(error) == "outer.inner.threshold=0.5: too low"
    assert place(mounts) == place(SHARED) == place(Inner()) == ""  # defaults are copied, never written to


def test_key_of_settings_survives_copies_and_pickling() -> None:
    inner = parse(Mounts, {}, where="x.yaml").outer.inner
    pickled = pickle.loads(pickle.dumps(inner))  # noqa: S301  # as a task that travels to a worker
    for kept in (inner.model_copy(), inner.model_copy(update={"threshold": 0.1}), pickled):
        assert place(kept) == "outer.inner."
    outer = Outer(name="b").model_copy(update={"inner": inner})
    assert place(outer.inner) == "outer.inner."


def test_key_is_no_part_of_the_value() -> None:
    mounts = parse(Mounts, {"many": [{"batch_size": 9}]}, where="x.yaml")
    assert mounts.first == mounts.second == SHARED
    assert len({mounts.first, mounts.second, SHARED}) == 1
    assert mounts.many[0] != SHARED
    assert mounts == Mounts(many=(Inner(batch_size=9),))
    assert mounts.first.model_dump() == SHARED.model_dump()
    assert identity(mounts.first) == identity(SHARED)
    assert mounts.first != Outer(name="a")
    assert mounts.model_fields_set == {"many"}


def test_execution_fields_never_enter_the_identity() -> None:
    fast, slow = Outer(name="a", inner=Inner(batch_size=64)), Outer(name="a")
    assert identity(fast) == identity(slow)
    assert identity(fast) != identity(Outer(name="a", inner=Inner(threshold=0.6)))


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_digest_does_not_depend_on_the_order_of_keys(values: dict[str, int | str]) -> None:
    assert digest(values) == digest(dict(reversed(values.items())))


def test_differences_name_every_changed_leaf_by_its_path() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "d": [1], "e": {"f": 4}}
    assert list(differences(old, new)) == [("a.c", 2, 3), ("e", None, {"f": 4})]
    assert list(differences(new, new)) == []


def test_overrides_are_read_as_yaml_and_leave_the_input_alone() -> None:
    given_values = {"a": {"b": 1}}
    merged = apply_overrides(given_values, ["a.b=0.5", "a.c=[1, 2]", "d=null", "e={f: x}"])
    assert merged == {"a": {"b": 0.5, "c": [1, 2]}, "d": None, "e": {"f": "x"}}
    assert given_values == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("override", "message"),
    [("a.b", "write it as key=value"), ("a.b=[", "not valid YAML"), ("x.y=1", "x is a plain value")],
)
def test_malformed_override_is_explained(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides({"x": 1}, [override])


def test_yaml_faults_are_explained(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    with pytest.raises(ConfigError, match="holds a list, a mapping"):
        read_yaml(tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(tmp_path / "broken.yaml")
    with pytest.raises(ConfigError, match="no such config file.*bundled are: .*quickstart"):
        read_yaml(tmp_path / "absent.yaml")


@pytest.mark.parametrize("name", ["quickstart", "dedup", "hierarchical", "lvd142m", "semdedup"])
def test_bundled_recipes_are_valid_and_take_sources_from_the_command_line(name: str, tmp_path: Path) -> None:
    values = [f"sources.{role}={tmp_path}" for role in ("pool", "curated", "heldout")] + [f"workdir={tmp_path}/w"]
    config = load_config(f"configs/{name}.yaml", values)
    assert isinstance(config, RecipeConfig)
    assert [s.path for _, s in config.sources.by_role()] == [str(tmp_path)] * 3
    assert config.workdir == f"{tmp_path}/w"


@pytest.mark.parametrize(
    ("given_sources", "paths"),
    [
        (["sources=/a"], {"pool": ["/a"]}),
        (["sources=[/a, /b]"], {"pool": ["/a", "/b"]}),
        (["sources=[{name: x, path: /a}, {name: y, path: /b}]"], {"pool": ["/a", "/b"]}),
        (["sources=/a", "sources.pool=/b"], {"pool": ["/b"]}),
        (["sources=/a", "sources.heldout=/b"], {"pool": ["/a"], "heldout": ["/b"]}),
        (["sources=[/a, /b]", "sources.curated=[/c]"], {"pool": ["/a", "/b"], "curated": ["/c"]}),
        (["sources.heldout=/b", "sources=/a"], {"pool": ["/a"]}),
    ],
)
@pytest.mark.parametrize("name", ["dedup", "quickstart"])
def test_sources_without_a_role_are_the_pool_and_replace_those_of_the_config(
    name: str, given_sources: list[str], paths: dict[str, list[str]]
) -> None:
    sources = load_config(name, given_sources).sources
    found = {role: [source.path for source in getattr(sources, role)] for role in ("pool", "curated", "heldout")}
    assert {role: listed for role, listed in found.items() if listed} == paths


def test_sources_of_a_yaml_file_may_be_a_path_that_overrides_add_roles_to(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: dedup\nworkdir: w\nsources: /a\ncopies: {embed: {model: lite0}}\n")
    assert load_config(tmp_path / "mine.yaml").sources.pool[0].path == "/a"
    both = load_config(tmp_path / "mine.yaml", ["sources.heldout=/b"]).sources
    assert [(role, source.path) for role, source in both.by_role()] == [("pool", "/a"), ("heldout", "/b")]


def test_bundled_configs_are_found_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("dedup") == find_config("configs/dedup.yaml")


def test_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'mine' is not known; known are: dedup, .*hierarchical, lvd142m"):
        find_recipe("mine")
    with pytest.raises(ConfigError, match="'lvd' is not known; did you mean 'lvd142m'"):
        find_recipe("lvd")


def test_config_without_recipe_says_what_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("iterations: 3\n")
    with pytest.raises(ConfigError, match="has no `recipe`; is it a config for `curate train`"):
        load_config(tmp_path / "train.yaml")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/home/anna/net.py:Net", "net.py:Net"),
        ("./net.py:Net", "net.py:Net"),
        ("/home/an na/C:/net.py:Net", "net.py:Net"),
        ("package.module:Net", "package.module:Net"),
        ("timm/vit_small", "timm/vit_small"),
        ("dedup", "dedup"),
    ],
)
def test_plug_ins_are_told_without_the_folders_of_their_files(name: str, told: str) -> None:
    assert without_folder(name) == told
