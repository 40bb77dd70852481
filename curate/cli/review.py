"""`curate review`: look at what a run found, and decide."""

import os
import sys
import webbrowser
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.arguments import Workdir
from curate.cli.consoles import say

if TYPE_CHECKING:
    from curate.review.session import Session
    from curate.workdir import RunRecord


class Pictures(StrEnum):
    """Which pictures an export copies."""

    full = "full"
    small = "small"


def review(
    workdir: Workdir,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="port on this machine; 0: a free one")] = 0,
    open_: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="open a browser; neither: where there is a screen"),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="write the page as files into a folder, and serve nothing")
    ] = None,
    pictures: Annotated[Pictures, typer.Option(help="with --export: full size, or thumbnails alone")] = Pictures.full,
    items: Annotated[int, typer.Option(min=1, metavar="N", help="with --export: items of each list at most")] = 1000,
) -> None:
    """Look at copies, contamination, doubtful pairs and rejected images in a browser, and decide about them.

    Each decision is written at once to WORKDIR/decisions.csv; the page tells the command that applies them, and by `?`
    its keys. It is served on this machine alone.

    Examples:
        curate review runs/dedup-photos
        # on a remote machine: forward the port, then open the printed address
        curate review runs/dedup-photos --port 8123
        # as files, to look at elsewhere or to send to someone
        curate review runs/dedup-photos --export review --pictures small
    """
    from curate.engine.store import Store
    from curate.interrupt import staying
    from curate.report.sections import outdated
    from curate.review.session import Session
    from curate.workdir import open_record, open_tables

    store = Store(workdir)
    run = open_tables(store)
    session = Session(run, apply=apply(open_record(store), workdir))
    for text in outdated(run):
        say(f"- {text}")
    if export is not None:
        _export(session, export, pictures, items)
        return
    from curate.review.server import serve

    def tell(address: str, listening: int) -> None:
        say(address)
        remote = os.environ.get("SSH_CONNECTION", "").split()
        if len(remote) == 4:
            say(
                f"from your own machine: ssh -N -L {listening}:127.0.0.1:{listening} {remote[2]}, then open the address"
            )
        say("Ctrl-C ends it")
        sys.stdout.flush()
        if _has_screen() if open_ is None else open_:
            webbrowser.open(address)

    with staying(f"every decision is in {session.marks.path}"):
        serve(session, port=port, tell=tell)


def _has_screen() -> bool:
    """Whether a browser that is started here can be seen by the person who typed the command."""
    if not sys.stdout.isatty() or "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def apply(record: "RunRecord", workdir: str) -> str:
    """The command that makes what the decisions change."""
    from curate.workdir import command_line

    more = [] if record.config.get("decisions", "auto") else ["decisions=auto"]
    return command_line(record.command or ("CONFIG", f"workdir={workdir}"), *more, "--update")


def _export(session: "Session", folder: Path, pictures: Pictures, items: int) -> None:
    from curate.engine.numbers import count, plural
    from curate.interrupt import staying
    from curate.review.export import export

    with staying("what is written of the page stays; the same command writes it anew"):
        made = export(session, folder, sizes=pictures.value, most_items=items)
    say(f"{plural(made.items, 'item')}, {plural(made.pictures, 'picture')}; {count(made.missing)} cannot be shown")
    if made.left_out:
        say(f"{plural(made.left_out, 'item')} of long lists left out; --items N writes more")
    say(made.page)
