"""What a run was made with, and what can be done with it, at the top of its page."""

import posixpath
import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from curate import __version__
from curate.config import without_folder
from curate.engine.finished import Finished
from curate.report.markup import Content, Markup, el
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.selection.write_shards import CARD, WriteShards

AT_ONCE = ("Sources", "Tables made")
"""Facts that are seen without unfolding them."""
SWEPT = "report/sweep.html"
_PLACE = re.compile(r"""(?<![^=\[{,:\s"'])([\w+.-]+://|/)[^\s,\[\]{}"']*""")
"""A folder or URL of a machine within a value."""


def settings(run: Finished, known: Mapping[str, list[str]]) -> Markup:
    """Version, command and sources; models, thresholds and the whole config folded.

    Args:
        known: titles to lines, see `sections.facts`.
    """
    first = {name: known[name] for name in AT_ONCE if name in known}
    first |= {"Version": [f"curate {__version__}"], "Command": [_command(run)]}
    others = {name: lines for name, lines in known.items() if name not in first}
    told = "config.yaml: as it was run. Places are shown by the last step of their paths."
    return el(
        "div",
        _facts(first),
        el("details", el("summary", "Models, thresholds and other facts"), _facts(others)) if others else None,
        el("details", el("summary", "Config"), el("p", told, class_="quiet"), el("pre", _config(run))),
        class_="settings",
    )


def _command(run: Finished) -> str:
    """What was typed, without the folders of a machine; of a call from Python, what makes the same run."""
    words = ("config.yaml",) if run.command is None else run.command
    return shlex.join(["curate", "run", *map(_without_place, words)])


def _without_place(word: str) -> str:
    """A word of a command line, be it a path, `KEY=PATH`, or a value of several places."""
    key, equals, value = ("", "", word) if _PLACE.match(word) else word.partition("=")
    return f"{key}{equals}{_without_places(value) if _PLACE.match(value) else _PLACE.sub(_last_step, value)}"


def _last_step(found: re.Match[str]) -> str:
    return str(_without_places(found[0]))


def _facts(known: Mapping[str, list[str]]) -> Markup:
    rows: list[Content] = [
        [el("dt", title), el("dd", el("ul", [el("li", line) for line in lines]))] for title, lines in known.items()
    ]
    return el("dl", rows, class_="facts")


def _config(run: Finished) -> str:
    values = {"recipe": run.recipe, **run.config}
    values.pop("executor", None)  # of the machine: nothing in the tables depends on it
    return yaml.safe_dump(_without_places(values), sort_keys=False, allow_unicode=True, width=100)


def _without_places(values: Any) -> Any:
    """Values without the folders and buckets of a machine, which are nobody's business who reads the page."""
    if isinstance(values, Mapping):
        return {str(name): _without_places(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_places(value) for value in values]
    if isinstance(values, str) and (posixpath.isabs(values) or "://" in values):
        named = without_folder(values)
        path = values.partition("?")[0] if "://" in values else values  # a query may hold a key
        return named if named != values else f".../{posixpath.basename(path.rstrip('/'))}"
    return values


def further(run: Finished) -> Markup:
    """Commands and files that lead on from the page; WORKDIR stands for the folder that holds the report."""
    rows: list[tuple[str, Content]] = []
    sweep: Content = el("code", "curate sweep WORKDIR")
    if run.store.fs.exists(run.store.join(SWEPT)):  # one below an update goes when that is complete
        sweep = [sweep, ", which wrote ", el("a", "a page", href=posixpath.basename(SWEPT))]
    if run.only(Deduplicate) is not None:
        rows += [
            ("Which images, and why", el("code", "curate list WORKDIR --dropped")),
            ("Look at doubtful pairs, and decide", el("code", "curate review WORKDIR")),
            ("Other thresholds for copies", sweep),
        ]
    rows.append(("The story of one image", el("code", "curate explain WORKDIR NAME")))
    if run.only(WriteShards) is not None:
        card = [el("a", "shards", href="../shards/data/"), " and ", el("a", "their card", href=f"../{CARD}")]
        rows.append(("The result", card))
    items: Content = [[el("dt", what), el("dd", how)] for what, how in rows]
    where = el("p", f"WORKDIR is the folder {run.name}, in which report/index.html lies.", class_="quiet")
    return el("div", el("dl", items, class_="facts"), where)
