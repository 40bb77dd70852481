"""The blocks of code of the documents, and how each says that it is tested.

A comment before a block of shell says what is done with it:

    <!-- run -->            its commands are run, in the order of the page, over a small pool
    <!-- run, with train iterations=2 -->    the same, `curate train` with these words more
    <!-- parse -->          its commands are parsed, and the keys they set are checked against the config
    <!-- needs: slurm -->   parsed too, where that is ours; to run it takes what is named
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "reference"),
)
BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
WRAPPERS = {"curate", ".venv/bin/curate", "torchrun"}
"""First words of a line that ends in a command of ours."""
ENDS = {"|", "||", "&&", ";", ">", "<", "&"}


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    line: int
    marker: str
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        """Whether it is run."""
        return self.marker == "run" or self.marker.startswith("run, with ")

    @property
    def more(self) -> dict[str, list[str]]:
        """By command: words that a test adds, so that it takes seconds."""
        words = self.marker.removeprefix("run").removeprefix(", with ").split()
        return {words[0]: words[1:]} if words else {}

    @property
    def lines(self) -> list[str]:
        """Commands, those over several lines joined, without comments."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line for line in map(str.strip, joined) if line and not line.startswith("#")]


def blocks(language: str) -> list[Block]:
    """The blocks of a language, in the order of pages."""
    return [block for page in PAGES for block in _of_page(page) if block.language == language]


def _of_page(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in BLOCK.finditer(text):
        line = text[: found.start("text")].count("\n")
        name = page.relative_to(ROOT).as_posix()
        yield Block(name, line, found["marker"] or "", found["language"], found["text"])


def commands(line: str) -> list[list[str]]:
    """The words after `curate` of each command of ours in a line of shell."""
    found: list[list[str]] = []
    for words in _pieces(line):
        while words and re.fullmatch(r"\w+=\S*", words[0]):
            words.pop(0)
        image = next((word for word in words if re.fullmatch(r"curate:\w+", word)), None)
        if words and words[0] in WRAPPERS:
            found.append(words[words.index("curate") + 1 if "curate" in words else 1 :])
        elif words[:2] == ["docker", "run"] and image:
            found.append(words[words.index(image) + 1 :])
    return found


def _pieces(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    piece: list[str] = []
    for word in lexer:
        if word in ENDS:
            yield piece
            piece = []
        else:
            piece.append(word)
    yield piece
