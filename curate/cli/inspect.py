"""`curate status`, `report`, `sweep` and `explain`: what a run has made, and why."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from curate.cli.arguments import Json, Workdir
from curate.cli.consoles import say, say_json, show_table
from curate.cli.summary import near
from curate.errors import WorkdirError


def status(
    workdir: Workdir,
    costs: Annotated[
        bool, typer.Option("--costs", help="also what each table took: CPU time, bytes, requests, memory")
    ] = False,
) -> None:
    """List the tables of a run and how far they are; then what to look at before trusting it.

    Examples:
        curate status runs/dedup-photos
        curate status runs/dedup-photos --costs
    """
    from curate.engine.store import Store
    from curate.errors import CurateError
    from curate.report.sections import warnings
    from curate.report.status import costs as read_costs
    from curate.report.status import status as read_status
    from curate.running import report_is_behind
    from curate.sources.objects import OBJECTS, cached_bytes
    from curate.updating import under_way
    from curate.workdir import find_tables, open_record

    store = Store(workdir)
    names = list(open_record(store).tables)
    try:
        found, unknown = find_tables(store), ""
    except CurateError as error:
        found, unknown = None, str(error)
    rows = read_status(store, names, outdated=found.outdated if found else None)
    show_table(("stage", "parts", "rows in", "rows out", "seconds", "rows/s"), (row.cells() for row in rows))
    if costs:
        head = ("stage", "CPU s", "MB read", "MB written", "requests", "peak MB of a task")
        show_table(head, (cost.cells() for cost in read_costs(store, names)))
    kept = cached_bytes(store) if store.is_local else 0
    if kept:
        place = store.join(OBJECTS)
        say(f"{place}: {kept / 1e6:,.1f} MB fetched from the web, which may be deleted once the shards are written")
    if found is None:
        say(f"whether these tables are those of the current settings is not known: {unknown}")
        return
    for text in warnings(found):
        say(f"- {text}")
    update = under_way(store)
    if update is not None:
        say(f"- {update.describe()}.")
    if found.tables and report_is_behind(store):
        say(f"- Report and dataset card tell of earlier tables, or are missing: `curate report {workdir}` writes them.")


def clean(
    workdir: Workdir,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, remove nothing")] = False,
) -> None:
    """Remove the rows of working tables that nothing needs any more; results stay, and no run makes them again.

    Their parts stay known, so that the next run does nothing. A changed setting that needs such rows makes them again.
    With `keep: results` in the config a run does this on its way.

    Examples:
        curate clean runs/dedup-photos --dry-run
        curate clean runs/dedup-photos
    """
    from curate.engine.store import Store
    from curate.running import clean_workdir

    removed = clean_workdir(Store(workdir), dry_run=dry_run)
    rows = [(one.table, str(one.parts), f"{one.num_bytes / 1e6:,.1f}") for one in removed]
    if rows:
        show_table(("table", "parts", "MB"), rows)
    total = sum(one.num_bytes for one in removed) / 1e6
    say(f"{total:,.1f} MB {'would be removed' if dry_run else 'removed'}")


def report(
    workdir: Workdir,
    show: Annotated[
        bool, typer.Option("--open", help="open the report in a browser; written only where it is behind")
    ] = False,
) -> None:
    """Write the report and the dataset card again, or open the report.

    Examples:
        curate report runs/dedup-photos
        curate report runs/dedup-photos --open
    """
    from curate.engine.store import Store
    from curate.running import PAGE, report_is_behind, write_report

    store = Store(workdir)
    if show and not store.is_local:
        raise WorkdirError(f"{store.root}: a browser opens files of this machine alone; copy the folder report first")
    page = store.join(PAGE) if show and not report_is_behind(store) else write_report(store)
    say(near(page))
    if show:
        import webbrowser

        if not webbrowser.open(Path(page).absolute().as_uri()):
            say("no browser can be started here; copy the file to where there is one")


def sweep(
    workdir: Workdir,
    score: Annotated[
        str | None, typer.Option(metavar="NAME", help="thresholds of a score of `screen`, and not those for copies")
    ] = None,
    json_: Json = False,
) -> None:
    """Say what each threshold for copies would keep and drop, by all evidence together; nothing of the run is changed.

    A table, and WORKDIR/report/sweep.html with images that go from each threshold on. The last line is the command that
    applies a row. With --score, how many images of the pool each threshold of a score takes, from its table alone.

    Examples:
        curate sweep runs/dedup-photos
        curate sweep runs/dedup-photos --json
        # what a rule on a score would take; WORKDIR/report/thresholds/nudity.html shows pictures
        curate sweep runs/dedup-photos --score nudity
    """
    if score is not None:
        _sweep_score(workdir, score, json_)
        return
    from curate.engine.store import Store
    from curate.report.sections import outdated
    from curate.report.sweep import HEAD, by_key, example_of, write_sweep
    from curate.sweeping import sweep as try_all
    from curate.workdir import open_tables

    store = Store(workdir)
    found = try_all(store)
    run = open_tables(store)
    page = write_sweep(run, found)
    if json_:
        say_json(json.dumps([row.as_json() for row in found], indent=2))
        return
    for key, rows in by_key(found).items():
        show_table((key, *HEAD[1:]), (row.cells() for row in rows))
        if len(rows) > 1:
            say(f"To apply a row, for example: {example_of(rows).command}")
    for text in outdated(run):
        say(f"- {text}")
    say(page)


def _sweep_score(workdir: str, name: str, json_: bool) -> None:
    from curate.engine.store import Store
    from curate.report.score_sweep import HEAD, write_score_sweep
    from curate.sweeping import sweep_of_score
    from curate.workdir import open_tables

    run = open_tables(Store(workdir))
    found = sweep_of_score(run, name)
    page = write_score_sweep(run, found)
    if json_:
        say_json(json.dumps([row.as_json() for row in found.rows], indent=2))
        return
    show_table((name, *HEAD[1:]), (row.cells() for row in found.rows))
    say(f"To apply a row, for example: {found.command}")
    say(page)


def explain(
    workdir: Workdir,
    image: Annotated[str, typer.Argument(help="image_id, key, path, file name, or a part of one")],
) -> None:
    """Tell the story of one image: where it came from, what kept or dropped it, and why.

    Examples:
        curate explain runs/dedup-photos IMG_0042.jpg
        curate explain runs/dedup-photos holidays/2019/IMG_0042.jpg
        # the pictures whose name holds these letters, if there are several
        curate explain runs/dedup-photos 0042
    """
    from curate.engine.store import Store
    from curate.report.explain import explain as tell
    from curate.sources.uri import encode_uri
    from curate.workdir import open_tables

    undecodable = any("\udc80" <= letter <= "\udcff" for letter in image)
    named = encode_uri(os.fsencode(image)) if undecodable else image
    say(tell(open_tables(Store(workdir)), named))
