"""Which pages the reference has."""

from collections.abc import Callable
from pathlib import Path

from docs.generators.commands import commands_page
from docs.generators.configs import config_page, training_config_page
from docs.generators.python import python_page
from docs.generators.tables import tables_page

PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "config.md": config_page,
    "python.md": python_page,
    "tables.md": tables_page,
    "training-config.md": training_config_page,
}
"""By file name: what writes it."""

NOTE = "<!-- Written by `make reference` from the code; edit the code instead. -->\n\n"


def page(name: str) -> str:
    """The text of one page."""
    return f"{NOTE}{PAGES[name]().strip()}\n"


def write_pages(folder: Path) -> None:
    """Write every page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PAGES:
        (folder / name).write_text(page(name), encoding="utf-8")
