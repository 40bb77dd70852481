from typing import Annotated, ClassVar, Literal

import pytest
import yaml
from pydantic import Field

from curate.config import Execution, Settings, apply_overrides, parse
from curate.config_reference import Key, keys_of
from curate.recipe import BUILTIN, find_recipe
from curate.trainer.config import TrainConfig

RECIPES = {name: find_recipe(name).config for name in BUILTIN}


class Inner(Settings):
    """A section."""

    share: float = Field(default=0.5, ge=0, le=1)
    """A share, 0..1."""


class Kind(Settings):
    """Base of kinds."""

    extensible: ClassVar[bool] = True
    kind: str
    """Which kind."""


class Round(Kind):
    """One kind."""

    kind: Literal["round"] = "round"
    radius: int = 3
    """In pixels."""


class Square(Kind):
    """Another."""

    kind: Literal["square"] = "square"
    side: int = 4
    """In pixels."""


class Item(Settings):
    """An entry of a list."""

    path: str
    """Where it lies."""


class Outer(Settings):
    """A config."""

    needed: str
    """Must be
    given."""
    count: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """How many."""
    inner: Annotated[Inner, Execution()] = Inner(share=0.25)
    """Speed alone."""
    maybe: Inner | None = None
    """Nothing, or more."""
    shape: Kind = Round()
    """Some kind."""
    items: tuple[Item, ...] = ()
    """Some."""
    others: tuple[Item, ...] = ()
    """More."""


def test_a_key_has_type_default_meaning_and_whether_it_changes_results() -> None:
    found = {key.name: key for key in keys_of(Outer, at="top")}
    assert found["top.needed"] == Key("top.needed", "text", None, "Must be given.", False)
    assert found["top.count"] == Key("top.count", "auto | integer >= 1", "auto", "How many.", False)
    assert found["top.inner"] == Key("top.inner", "section", "", "Speed alone.", True)
    assert found["top.inner.share"] == Key("top.inner.share", "number 0..1", "0.25", "A share, 0..1.", True)
    assert found["top.maybe"].default == "null"
    assert found["top.maybe.share"].default == "0.5"


def test_a_section_of_several_kinds_has_the_keys_of_all() -> None:
    found = {key.name: key for key in keys_of(Outer)}
    assert found["shape.kind"].type == "round | square | text"
    assert found["shape.radius"].meaning == "round: In pixels."
    assert found["shape.side"].meaning == "square: In pixels."


def test_items_of_two_lists_are_told_once() -> None:
    found = {key.name: key for key in keys_of(Outer)}
    assert (found["items"].type, found["items[].path"].type) == ("list of sections", "text")
    assert found["others"].type == "list of sections, as items"
    assert "others[].path" not in found


@pytest.mark.parametrize("recipe", RECIPES)
def test_defaults_are_those_that_a_config_gets(recipe: str) -> None:
    """Every key that is told can be given, and given with the default that is told changes nothing."""
    model = RECIPES[recipe]
    needed = {"recipe": recipe, "workdir": "w", "sources": {"pool": "p"}}
    needed |= {"embed": {"model": "lite0"}, "copies": {"embed": {"model": "lite0-copy"}}}
    needed |= {"retrieval": {"embed": {"model": "lite0"}}}
    needed |= {"pretrain": {"train": {}}}
    values = {name: value for name, value in needed.items() if name in model.model_fields}
    plain = parse(model, values, where="plain")
    whole = plain.model_dump(mode="json")
    keys = keys_of(model)
    assert all(key.meaning for key in keys)
    for key in keys:
        of_one_kind = sum(other.name == key.name for other in keys) > 1
        if key.default and not of_one_kind and "[]" not in key.name and _at(whole, key.name) is not None:
            given = parse(model, apply_overrides(whole, [f"{key.name}={key.default}"]), where=key.name)
            assert given == plain, key


def _at(values: object, name: str) -> object:
    for step in name.split("."):
        values = values.get(step) if isinstance(values, dict) else None
    return values


def test_names_of_a_training_are_unique_but_for_kinds_that_differ() -> None:
    names = [key.name for key in keys_of(TrainConfig)]
    twice = {name for name in names if names.count(name) > 1}
    assert all(name.startswith("objective.") for name in twice)
    needed = {key.name for key in keys_of(TrainConfig) if key.default is None}
    assert {name for name in needed if "." not in name} == {
        "shards",
        "output",
    }  # others are of parts that may be absent


def test_defaults_are_yaml_on_one_line() -> None:
    for key in keys_of(TrainConfig):
        if key.default:
            assert "\n" not in key.default
            yaml.safe_load(key.default)


def test_unions_that_are_told_apart_name_their_members() -> None:
    types = {key.name: key.type for key in keys_of(find_recipe("dedup").config)}
    assert types["screen.drop"] == "mapping of names to (section | preset | true | false)"
    assert types["screen.unlike[].embed"] == "copy | ssl | section"
