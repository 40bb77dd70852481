"""The pages of the reference are those that the code writes now."""

import pytest

from curate.recipe import BUILTIN
from docs.generators.commands import commands
from docs.generators.pages import PAGES, page
from docs.generators.tables import RECIPES
from tests.docs.blocks import ROOT

REFERENCE = ROOT / "docs/reference"


@pytest.mark.parametrize("name", PAGES)
def test_page_is_what_the_code_writes(name: str) -> None:
    assert (REFERENCE / name).read_text() == page(name), f"write {name} anew: make reference"


def test_every_page_is_written_and_linked() -> None:
    assert {path.name for path in REFERENCE.iterdir()} == {*PAGES, "index.md"}
    index = (REFERENCE / "index.md").read_text()
    assert all(f"({name})" in index for name in PAGES)


def test_every_recipe_and_every_option_is_told() -> None:
    assert {*RECIPES} == {*BUILTIN}
    told = (REFERENCE / "commands.md").read_text()
    for name, command in commands():
        section = told.split(f"## curate {name}\n")[1].split("\n## ")[0]
        names = [
            opt for one in command.params if one.param_type_name == "option" and not one.hidden for opt in one.opts
        ]
        assert [name for name in names if f"`{name}`" not in section] == []
