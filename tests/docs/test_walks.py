"""What the documents tell a reader to do is done, page by page, over a small pool."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curate.cli import app
from curate.samples.pool import make_pool
from tests.docs.blocks import Block, blocks

RUN = [block for language in ("sh", "python") for block in blocks(language) if block.is_run]
PAGES = sorted({block.page for block in RUN})
KINDS = ("fish", "tools")
"""Categories of the trusted pictures, and of those with labels."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages take for granted: pictures, a benchmark, seeds, labeled pictures, a finished run."""
    folder = tmp_path_factory.mktemp("reader")
    make_pool(folder / "made", num_images=24, num_heldout=6, curated_categories=KINDS, curated_each=3)
    for made, name in (("pool", "photos"), ("heldout", "benchmark"), ("curated", "seeds")):
        (folder / "made" / made).rename(folder / name)
    shutil.copytree(folder / "seeds", folder / "labeled")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_line("curate run dedup sources.pool=photos workdir=runs/photos", {})
    (folder / "runs").rename(folder / "finished")
    return folder


def run_line(line: str, more: dict[str, list[str]]) -> None:
    """Run a line of shell; a command of ours in this process, what follows it in a shell."""
    if not line.startswith("curate "):
        subprocess.run(["bash", "-ec", line], check=True, capture_output=True)
        return
    head, sign, rest = re.fullmatch(r"(.*?)(?: ([|>]) (.*))?", line).groups()  # type: ignore[union-attr]
    words = shlex.split(head)[1:]
    found = CliRunner().invoke(app, [*words, *more.get(words[0], [])], catch_exceptions=False)
    assert found.exit_code == 0, f"{line}\n{found.output}"
    if sign:
        subprocess.run(["bash", "-ec", f"cat {sign} {rest}"], input=found.stdout_bytes, check=True, capture_output=True)


@pytest.mark.parametrize("page", PAGES)
def test_page_can_be_followed(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    shutil.rmtree("runs", ignore_errors=True)
    shutil.copytree("finished", "runs")
    for block in sorted((block for block in RUN if block.page == page), key=lambda block: block.line):
        follow(block)


def follow(block: Block) -> None:
    if block.language == "python":
        exec(compile(block.text, f"{block.page}:{block.line}", "exec"), {})
        return
    for line in block.lines:
        run_line(line, block.more)
