"""`shards/SUMMARY.md`: what the shards were made from, as the public summary of training content asks for it.

The European Union's Regulation 2024/1689 (AI Act), article 53 (1)(d), asks whoever places a general-purpose model on
the market for a public summary of what it was trained on; the Commission's template of July 2025 wants the size and
kind of the data, the sources, the dates of collection, the most relevant domains of what was scraped, and how
reservations of rights were honored. This file has what a run knows of these, counted over the images of the shards.
What it cannot know stands there as unknown, so that nobody takes silence for an answer.
"""

import math
from collections.abc import Iterator, Sequence

from curate.engine.finished import Finished
from curate.engine.numbers import count
from curate.report.croissant import left_out
from curate.report.markdown import safe
from curate.report.sections import facts
from curate.shard_manifest import ShardManifest
from curate.sources.attribution import TOLD, UNKNOWN
from curate.stages.selection.count_origins import TEXT, Counted, Origins
from curate.stages.selection.publish import Publish

TOP_SHARE = 0.1
"""Share of the domains, most bytes first, that the template asks for."""
MAX_DOMAINS = 1000
"""Domains that are named at most, which is what the template asks of small publishers."""
LEAST_DOMAINS = 10
"""Domains that are named in any case, where there are so many."""
MAX_LICENSES = 50
"""Licenses that are named at most."""
SHARE = ("images", "share")
NOTHING_LEFT = "nothing is known to be left"


def render_summary(
    run: Finished, origins: Origins, manifest: ShardManifest, *, publish: Publish, unchecked: Sequence[str]
) -> bytes:
    """The whole file, Markdown; equal shards and settings give equal bytes."""
    parts = [
        f"# What {safe(publish.name or run.name)} was made from",
        "Counted over the images in the shards, by what their sources state in their own columns. `unknown` means that "
        "no column that is recognized says anything. The domain is the host of a picture's URL without `www.`.",
        "## Size and kind\n\n" + _table(("what", "value"), _sizes(origins, manifest, publish)),
        "## Sources\n\n" + _table(("source", "images", "share", "bytes"), _shares(origins, "source", None)),
        "## Dates\n\n" + _dates(origins, publish),
        "## Domains\n\n" + _domains(origins),
        "## Licenses\n\n" + _licenses(origins),
        "## Attribution\n\nImages whose source states it:\n\n"
        + _table(("what", "images", "share"), _coverage(origins)),
        "## Reservations of rights\n\n" + _reservations(run),
        "## Not screened for\n\n" + "\n".join(f"- {safe(text)}" for text in unchecked or [NOTHING_LEFT]),
        *_unsaid(publish),
    ]
    return ("\n\n".join(parts) + "\n").encode("utf-8", "replace")


def _sizes(origins: Origins, manifest: ShardManifest, publish: Publish) -> Iterator[tuple[str, ...]]:
    everything = origins.get("all")
    with_text = origins.get("has", TEXT).images
    yield "modality", "image" if not with_text else f"image; {count(with_text)} of them with a text of their source"
    yield "images", count(everything.images)
    yield "encoded bytes of the images", count(everything.num_bytes)
    yield "shards", f"{count(len(manifest.shards))}, {count(sum(shard.num_bytes for shard in manifest.shards))} bytes"
    yield "version", publish.version
    yield "digest", f"`{manifest.digest}` (`manifest.json`)"


def _shares(origins: Origins, kind: str, most: int | None) -> Iterator[tuple[str, ...]]:
    total = origins.get("all").images
    for name, counted in origins.of(kind)[:most]:
        yield safe(name), count(counted.images), _percent(counted.images, total), count(counted.num_bytes)


def _dates(origins: Origins, publish: Publish) -> str:
    collected = " to ".join(publish.responsible.time_frame) or "unknown: set write.publish.responsible.time_frame"
    years = sorted((name, counted) for name, counted in origins.of("year") if name != UNKNOWN)
    told = f"Days of collection: {collected}.\n\nYears of the pictures, by the dates that sources state:\n\n"
    rows = [(name, count(counted.images)) for name, counted in years]
    rows.append((UNKNOWN, count(origins.get("year", UNKNOWN).images)))
    return told + _table(("year", "images"), rows)


def _domains(origins: Origins) -> str:
    found = [(name, counted) for name, counted in origins.of("domain") if name != UNKNOWN]
    unknown, total = origins.get("domain", UNKNOWN), origins.get("all")
    rest = origins.get("not_counted", "domain")
    if not found:
        return "unknown: no source states the address of a picture or of its page."
    shown = found[: min(MAX_DOMAINS, max(LEAST_DOMAINS, math.ceil(TOP_SHARE * len(found))))]
    bytes_shown = sum(counted.num_bytes for _, counted in shown)
    told = (
        f"{count(len(found))} domains are counted; the {count(len(shown))} with the most bytes hold "
        f"{_percent(bytes_shown, total.num_bytes)} of all bytes."
    )
    if rest.images:
        told += f" Rare domains of {count(rest.images)} images were too many to be counted one by one."
    rows = [(*_row(name, counted, total),) for name, counted in shown]
    rows.append(_row(UNKNOWN, unknown, total))
    return f"{told}\n\n" + _table(("domain", "images", "share of images", "bytes", "share of bytes"), rows)


def _row(name: str, counted: Counted, total: Counted) -> tuple[str, ...]:
    return (
        safe(name),
        count(counted.images),
        _percent(counted.images, total.images),
        count(counted.num_bytes),
        _percent(counted.num_bytes, total.num_bytes),
    )


def _licenses(origins: Origins) -> str:
    shown = _table(("license", "images", "share", "bytes"), _shares(origins, "license", MAX_LICENSES))
    more = len(origins.of("license")) - MAX_LICENSES
    rest = f"\n\nAnd {count(more)} others." if more > 0 else ""
    note = "SPDX names where a text or address says which license it is, else as the source gives it."
    return f"{note} The pictures keep their licenses, which the data set neither grants nor changes.\n\n{shown}{rest}"


def _coverage(origins: Origins) -> Iterator[tuple[str, ...]]:
    total = origins.get("all").images
    for fact in TOLD:
        images = origins.get("has", fact).images
        yield fact, count(images), _percent(images, total)


def _reservations(run: Finished) -> str:
    """What was honored, in the words of the stages that looked."""
    lines = facts(run).get("Opt-outs", [])
    return (
        "\n".join(f"- {safe(line)}" for line in lines)
        if lines
        else (
            "Not looked for in the pictures themselves. Of tables of URLs, a picture whose server sends a directive "
            "of `disallowed_header_directives` in `X-Robots-Tag` (default: noai, noimageai, noindex, noimageindex) "
            "was not fetched."
        )
    )


def _unsaid(publish: Publish) -> Iterator[str]:
    missing = left_out(publish)
    if missing:
        keys = ", ".join(f"`{key}`" for key in missing)
        yield f"## Not stated by the publisher\n\nCroissant asks for them, and no run can know them: {keys}."


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
