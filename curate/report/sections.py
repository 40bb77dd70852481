"""What a page is made of: the sections of all stages, joined, and those that concern the run as a whole."""

from collections.abc import Iterator

from curate.engine.finished import Finished
from curate.engine.freshness import FOLLOWS
from curate.engine.numbers import rate, seconds
from curate.engine.show import Beside, Block, Numbers, Section, Share, Text


def sections(run: Finished) -> list[Section]:
    """The sections of all stages in the order of the page: first those of the result, then step by step, then times."""
    found = [section for stage, table in run.tables for section in stage.show(table, run)]
    ordered = [*(s for s in found if s.first), *(s for s in found if not s.first)]
    return [*_joined(ordered), timings(run)]


def _joined(found: list[Section]) -> Iterator[Section]:
    """Sections of one title as one, in the place of the first."""
    for title in dict.fromkeys(section.title for section in found):
        same = [section for section in found if section.title == title]
        blocks: list[Block] = []
        for block in (block for section in same for block in section.blocks):
            _append(blocks, block)
        yield Section(title, tuple(blocks), same[0].first)


def _append(blocks: list[Block], block: Block) -> None:
    """Add a block; a text that is there already says it once, and numbers and columns join those of their kind."""
    if isinstance(block, Numbers):
        for place, other in enumerate(blocks):
            if isinstance(other, Numbers) and other.head == block.head:
                blocks[place] = Numbers(block.head, other.rows + block.rows)
                return
        blocks.append(block)
    elif isinstance(block, Beside) and blocks and isinstance(blocks[-1], Beside) and blocks[-1].wide == block.wide:
        blocks[-1] = Beside(blocks[-1].columns + block.columns, block.wide)
    elif not isinstance(block, Text) or block not in blocks:
        blocks.append(block)


def warnings(run: Finished) -> list[str]:
    """What a person should look at before trusting the result."""
    return [*outdated(run), *(text for stage, table in run.tables for text in stage.warn(table, run))]


def outdated(run: Finished) -> list[str]:
    """Tables that are left out since the current settings would make others, with the reason of each first one."""
    first = {name: why for name, why in run.outdated.items() if not why.startswith(FOLLOWS)}
    shown = first or dict(list(run.outdated.items())[:1])
    told = [f"{name} is left out: {why}. Run the recipe again." for name, why in shown.items()]
    others = [name for name in run.outdated if name not in shown]
    return [*told, f"Left out as well, since they depend on what changed: {', '.join(others)}."] if others else told


def facts(run: Finished, *, digits: int = 12) -> dict[str, list[str]]:
    """Title to lines: what the result depended on; hashes by so many digits."""
    found: dict[str, list[str]] = {}
    for stage, table in run.tables:
        for title, line in stage.facts(table, run, digits=digits):
            found.setdefault(title, []).append(line)
    found["Seed"] = [str(run.config.get("seed", "unknown"))]
    return found


def headline(run: Finished) -> str:
    """The run in one sentence."""
    listed = 0 if run.catalog is None else run.catalog.num_rows()
    said = [text for stage, table in run.tables if (text := stage.headline(table, run))]
    return f"{listed:,} images listed, {said[-1]}." if said else f"{listed:,} images listed."


def timings(run: Finished) -> Section:
    """Where the time went."""
    rows, counted, total = [], set[str](), 0.0
    longest = max(table.complete_manifest().seconds for _, table in run.tables) or 1.0
    for stage, table in run.tables:
        manifest = table.complete_manifest()
        if table.name not in counted:
            total += manifest.seconds
            counted |= {table.name, *manifest.made_with}
        worked = manifest.rows if manifest.rows_in is None else manifest.rows_in
        speed = rate(worked / manifest.seconds) if worked and manifest.seconds >= 0.01 else ""
        rows.append(
            (
                table.name,
                type(stage).__name__,
                len(manifest.parts),
                manifest.rows_in,
                manifest.rows,
                speed,
                seconds(manifest.seconds),
                Share(manifest.seconds / longest),
            )
        )
    head = ("table", "stage", "parts", "rows in", "rows out", "rows in / s", "time", "")
    all_ = ("all", "", None, None, None, "", seconds(total), None)
    text = (
        "Time is summed over tasks, so workers side by side finish sooner than it says. Tables that one pass over the "
        "images fills show the time of that pass, which counts once in the sum."
    )
    return Section("Timings", (Numbers(head, (*rows, all_)), Text(text)))
