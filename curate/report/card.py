"""The dataset card: `shards/README.md`, which makes the folder a dataset that Hugging Face's tools load."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import yaml

from curate.config import digest, without_folder
from curate.engine.finished import Finished
from curate.engine.numbers import count, plural
from curate.engine.show import Check, FlowStep
from curate.engine.table import Table
from curate.errors import TableError
from curate.report.markdown import code as _code
from curate.report.markdown import safe as _safe
from curate.report.sections import facts
from curate.stages.selection.count_origins import CountOrigins, OriginFigures
from curate.stages.selection.write_shards import CARD, ShardFigures, WriteShards
from curate.tables import BLUR, BLUR_COLUMNS, SHARD_COLUMNS

UNCHECKED: dict[Check, str] = {
    "unsafe content": "sexual, violent or otherwise unsafe content (NSFW)",
    "faces": "faces and other personal data",
    "illegal content": "illegal content, such as matching against lists of known abuse material",
    "watermarks": "watermarks, logos and overlaid text",
    "licenses": "licenses and copyright of the pictures",
    "benchmarks": "copies of benchmark images: no held-out source was given",
    "copies": "copies within the dataset",
}
"""What a user of pictures from the web would want checked."""

LOADING = """\
```python
from datasets import load_dataset

rows = load_dataset("path/to/shards", split="train")             # or streaming=True
rows[0]["image"]                                                 # a PIL image
```

```sql
-- DuckDB, without the pictures
SELECT source, count(*) FROM 'path/to/shards/data/*.parquet' GROUP BY source;
```
"""

FILTERING = """\
```python
from datasets import Image

rows = rows.filter(lambda warning: warning is None, input_columns="reader_warning")

# with streaming=True, which decodes before it filters:
image = Image()
for row in rows.cast_column("image", Image(decode=False)):
    if row["reader_warning"] is None:
        picture = image.decode_example(row["image"])
```
"""
SHOWN_CLASSES = 10
"""Names of classes that the table of columns tells at most."""

TAKEDOWN = """\
Each row names its source, its key in that source, the SHA-256 of its original bytes and every route that chose it
(`origins`). To take an image down, put its SHA-256, its key, its URI or `SOURCE/KEY` on a line of a text file, set
`write.removal_list` to that file and run the recipe again with `--update`: only the shards are written anew,
without it, and the run says how many images each line named. The sources need not be there any more.
Whoever loads older copies of the shards can filter by `sha256`.
"""


def write_card(run: Finished) -> str | None:
    """Write `shards/README.md` of a workdir; returns its path, or None where the recipe makes no shards.

    Raises:
        TableError: the shards are not finished.
    """
    if run.only(WriteShards) is None:
        return None
    run.store.write_bytes(CARD, render_card(run).encode())
    return run.store.join(CARD)


def is_behind(run: Finished) -> bool:
    """Whether the card is missing or names other rows than the finished shards hold."""
    found = run.only(WriteShards)
    card = None if found is None else run.store.read_bytes(CARD)
    return found is not None and (card is None or _description(found[1]).encode() not in card)


def render_card(run: Finished) -> str:
    """The whole card."""
    stage, shards = _shards(run)
    metadata = yaml.safe_dump(front_matter(run), sort_keys=False, allow_unicode=True)
    sections = [
        f"# {_safe(run.name)}",
        _summary(run, shards),
        "## Load it\n\n" + LOADING,
        *_decoding(shards),
        "## Columns\n\n" + _columns(stage, shards),
        "## How it was made\n\n" + "\n".join(_how(run)),
        "## What was not checked\n\n" + _not_checked(run),
        "## License\n\n" + _license(run),
        "## Provenance and takedown\n\n" + TAKEDOWN,
    ]
    return f"---\n{metadata}---\n\n" + "\n\n".join(section.rstrip() for section in sections) + "\n"


def _license(run: Finished) -> str:
    """What is known of the terms of the pictures, with figures where they were counted."""
    told = (
        "The pictures keep their own licenses, which this dataset neither grants nor changes. Where the sources state "
        "them, they are in the sources' own columns."
    )
    counted = run.only(CountOrigins)
    if counted is None:
        return told
    found = OriginFigures.of(counted[1])
    return (
        f"{told} The sources state a license of {count(found.with_license)} of {plural(found.images, 'image')}, and an "
        f"author or how to attribute it of {count(found.with_author)}; of the others both are unknown. `SUMMARY.md` "
        "counts licenses, attribution and domains; `croissant.json` and `manifest.json` describe every file."
    )


def _shards(run: Finished) -> tuple[WriteShards, Table]:
    found = run.only(WriteShards)
    if found is None:
        raise TableError(f"{run.store.root}: holds no finished shards; run a recipe that writes them first")
    return found


def front_matter(run: Finished) -> dict[str, Any]:
    """What the hub and `datasets` read.

    `datasets` takes two local folders for one data set if the last part of their paths and the front matter's `configs`
    are equal, and then shows what its cache holds of the first. The description names the content, so that another
    run, and the same folder after a takedown, are read anew.
    """
    _, shards = _shards(run)
    default = {
        "config_name": "default",
        "data_files": [{"split": "train", "path": "data/*.parquet"}],
        "description": _description(shards),
    }
    return {
        "pretty_name": run.name,
        "license": "other",
        "license_name": "licenses-of-the-single-pictures",
        "task_categories": ["image-feature-extraction"],
        "tags": ["image", "self-supervised", "curated", without_folder(run.recipe)],
        "size_categories": [size_category(shards.num_rows())],
        "configs": [default],
    }


def _description(shards: Table) -> str:
    return f"digest of the rows: {digest([part.content for part in shards.parts()])}"


def size_category(rows: int) -> str:
    """The hub's name for a size."""
    bounds = [(10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M"), (10**8, "100M")]
    bounds += [(10**9, "1B"), (10**10, "10B"), (10**11, "100B"), (10**12, "1T")]
    names = ["n", *(name for _, name in bounds)]
    for (bound, name), before in zip(bounds, names, strict=False):
        if rows < bound:
            return f"{before}<{name}" if before == "n" else f"{before}<n<{name}"
    return "n>1T"


def _summary(run: Finished, shards: Table) -> str:
    megabytes = ShardFigures.of(shards).num_bytes / 2**20
    kept = "their original bytes"
    if _is_blurred(shards):
        kept = "their original bytes, but for pictures in which faces are blurred (column `blurred`)"
    assert run.catalog is not None
    return (
        f"{plural(shards.num_rows(), 'image')} with {kept}, in "
        f"{plural(len(shards.parts()), 'shuffled Parquet shard')} ({megabytes:,.1f} MiB), chosen from "
        f"{count(run.catalog.num_rows())} listed images by the recipe {_code(without_folder(run.recipe))}."
    )


def _is_blurred(shards: Table) -> bool:
    """Whether faces are blurred in the pictures."""
    return BLUR in (shards.schema().metadata or {})


def _columns(stage: WriteShards, shards: Table) -> str:
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for field in [*SHARD_COLUMNS, *(BLUR_COLUMNS if _is_blurred(shards) else [])]:
        dtype = "image" if field.name == "image" else str(field.type)
        lines.append(f"| `{field.name}` | {_short_type(dtype)} | {_safe(field.metadata[b'doc'].decode())} |")
    own = {} if isinstance(stage.columns, str) else stage.columns
    classes = {} if isinstance(stage.classes, str) else stage.classes
    for name, kind in sorted(own.items()):
        dtype = "class" if name in classes else kind
        told = _class_names(classes[name]) if name in classes else "as they give it"
        lines.append(f"| {_code(name)} | {_safe(dtype)} | of the sources, {told}; null where they do not say |")
    return "\n".join(lines)


def _class_names(names: Sequence[str]) -> str:
    """What the numbers of a column of classes mean; long lists are in the shards' features alone."""
    shown = ", ".join(f"{number} {_safe(name)}" for number, name in enumerate(names[:SHOWN_CLASSES]))
    return f"{plural(len(names), 'class', 'classes')}: {shown}{', ...' if len(names) > SHOWN_CLASSES else ''}"


def _decoding(shards: Table) -> Iterator[str]:
    """What whoever decodes the pictures must know, if there is anything."""
    found = ShardFigures.of(shards).readers
    number = sum(found.warnings.values())
    if number:
        kinds = ", ".join(f"{_safe(kind)} ({count})" for kind, count in found.warnings.items())
        yield (
            f"## Pictures that do not decode\n\n`datasets` and plain Pillow fail on {plural(number, 'picture')}, whose "
            f"pixels are sound: {kinds}. A loop over the rows stops there. Leave them out first:\n\n{FILTERING}"
        )
    if found.repaired:
        yield (
            f"## Repaired metadata\n\nThe metadata of {plural(found.repaired, 'picture')} were repaired, since readers "
            "would fail on them; the pixels are untouched. The column `repaired` names these rows. Their `sha256` is "
            "that of the source's bytes, not of those here."
        )


def _short_type(dtype: str) -> str:
    return dtype.replace("element: ", "").replace("list<item: ", "list<")


def _how(run: Finished) -> Iterator[str]:
    """Steps with their counts, then what they depended on."""
    known = facts(run, digits=64)
    yield from (f"- Source {_safe(line)}." for line in known.pop("Sources", []))
    yield from ["", "Of the pool's images:", ""]
    for number, step in enumerate(run.flow(), 1):
        curated = f" and {count(step.curated)} curated" if step.curated else ""
        text = ". ".join(part for part in (_kept_out(step), _safe(step.note)) if part)
        yield f"{number}. {step.name}: {count(step.pool)}{curated}{f' ({text})' if text else ''}"
    (seed,) = known.pop("Seed")
    for title, lines in known.items():
        yield from ["", f"{title}:", "", *(f"- {_safe(line)}" for line in lines)]
    yield from ["", f"Seed: {_safe(seed)}."]


def _kept_out(step: FlowStep) -> str:
    """How many images a step kept out and why; empty where there are none."""
    reasons = "; ".join(f"{_safe(reason)}: {count(number)}" for reason, number in step.drops if number)
    return f"kept out {step.kept_out}: {count(step.num_dropped)}, of these {reasons}" if reasons else ""


def unchecked(run: Finished) -> list[str]:
    """What no stage of the run has looked for, and what a stage left open, in words."""
    done = {check for stage, table in run.tables for check in stage.checks(table, run)}
    gaps = [gap for stage, table in run.tables for gap in stage.gaps(table, run)]
    lines = []
    for check in get_args(Check):
        open_ = list(dict.fromkeys(text for of, text in gaps if of == check))
        lines += open_ or ([] if check in done else [_unchecked(check, run)])
    return lines


def _not_checked(run: Finished) -> str:
    lines = [f"- {_safe(text)}" for text in unchecked(run)]
    if not lines:
        return "Everything that this card asks for was looked for, by the steps above."
    intro = "**The following was not screened for.** Do it before you publish the dataset or anything trained on it:"
    return "\n".join([intro, "", *lines])


def _unchecked(check: Check, run: Finished) -> str:
    """What no stage of the run has looked for."""
    if check == "benchmarks" and run.parts.num_images(["heldout"]):
        return "copies of benchmark images: the held-out images of this run were compared with nothing"
    return UNCHECKED[check]
