"""The documents as a whole: links lead somewhere, every page is in the menu, README is short, errors are real."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import ROOT

DOCUMENTS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")
MOST_WORDS = 900


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """What links to a heading of a page end with, on GitHub as in the pages that are built."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(page.read_text()), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower() for heading in headings)
    return {re.sub(r"\s", "-", one) for one in plain}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", without_blocks(page.read_text()))):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"


def test_every_page_is_in_the_menu() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def named(entry: object) -> set[str]:
        if isinstance(entry, str):
            return {entry}
        inside = entry.values() if isinstance(entry, dict) else entry
        return {name for one in inside for name in named(one)}  # type: ignore[union-attr]

    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert named(config["nav"]) == pages


def test_pages_load_nothing_from_elsewhere() -> None:
    """What theme and pages may ask a server for; the built pages are the theme's own files and these."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert config["theme"]["font"] is False
    assert not {"extra_javascript", "repo_url"} & set(config)
    for page in DOCUMENTS:
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(script|img|iframe|link)\b|```mermaid", page.read_text()), page


def test_built_pages_ask_no_other_server() -> None:
    """The theme may bring addresses of its own, as its plugin for use without a server does."""
    built = sorted((ROOT / "build/site").rglob("*.html"))
    if not built:
        pytest.skip("no build/site: make docs")
    asking = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//")
    assert [path for path in built if asking.search(path.read_text())] == []


def test_readme_is_a_page_long() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS


def test_pictures_are_small() -> None:
    assert all(path.stat().st_size < 300_000 for path in (ROOT / "docs/images").iterdir())


def filled(part: ast.expr) -> str:
    return f"{{{ast.unparse(part.value)}}}" if isinstance(part, ast.FormattedValue) else str(ast.literal_eval(part))


@cache
def texts() -> tuple[str, ...]:
    """Every text constant of the package; a formatted text is one, `{expression}` for what is filled in."""
    found: list[str] = []
    for path in (*(ROOT / "curate").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(map(filled, node.values)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def test_errors_that_are_explained_are_raised() -> None:
    quoted = re.findall(r"^### `(.*)`$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) >= 20
    assert [one for one in quoted if not any(one in text for text in texts())] == []


def test_version_stands_in_one_place() -> None:
    import curate

    assert f"version: {curate.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert 'version = { attr = "curate.__version__" }' in (ROOT / "pyproject.toml").read_text()
    assert f"curate_vision-{curate.__version__}-" in (ROOT / "docs/installation.md").read_text()


def test_forms_of_issues_are_valid() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= set(form)
            assert all(one["attributes"]["label"] and one["id"] for one in form["body"])
