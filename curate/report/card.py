"""The dataset card: `shards/README.md`, which makes the folder a dataset that Hugging Face's tools load."""

from collections.abc import Iterator
from typing import Any

import yaml

from curate.engine.store import Store
from curate.errors import TableError
from curate.report.numbers import count, plural
from curate.report.run import Run
from curate.report.sections.funnel import steps
from curate.report.sections.overview import models, sources, thresholds
from curate.tables import IMAGES, SHARD_COLUMNS

FILE = "shards/README.md"
SCREENINGS = {
    "sexual, violent or otherwise unsafe content (NSFW)": "nsfw",
    "faces and other personal data": "num_faces",
    "illegal content, such as matching against lists of known abuse material": "illegal",
    "watermarks, logos and overlaid text": "watermark",
    "licences and copyright of the pictures": "licence_ok",
}
"""What a user of pictures from the web would want checked, with the column of `images` that would show it was."""

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

TAKEDOWN = """\
Each row names its source, its key in that source, the SHA-256 of its original bytes and every route that chose it
(`origins`). To take an image down, put its SHA-256 or its key on a line of a text file, set `write.removal_list` to
that file and run the recipe again with `--rebuild shards/data`: only the shards are written anew, without it.
Whoever loads older copies of the shards can filter by `sha256`.
"""


def write_card(store: Store) -> str:
    """Write `shards/README.md` of a workdir.

    Returns:
        Its path.

    Raises:
        TableError: the shards are not finished.
    """
    run = Run.open(store)
    if not run.has("shards/data"):
        raise TableError(f"shards/data: not complete in {store.root}; run a recipe that writes shards first")
    store.write_bytes(FILE, render(run).encode())
    return store.join(FILE)


def render(run: Run) -> str:
    """The whole card."""
    metadata = yaml.safe_dump(front_matter(run), sort_keys=False, allow_unicode=True)
    sections = [
        f"# {_safe(run.name)}",
        _summary(run),
        "## Load it\n\n" + LOADING,
        "## Columns\n\n" + _columns(run),
        "## How it was made\n\n" + "\n".join(_how(run)),
        "## What was not checked\n\n" + _not_checked(run),
        "## Licence\n\nThe pictures keep their own licences, which this dataset neither grants nor changes. Where the "
        "sources state them, they are in the sources' own columns.",
        "## Provenance and takedown\n\n" + TAKEDOWN,
    ]
    return f"---\n{metadata}---\n\n" + "\n\n".join(section.rstrip() for section in sections) + "\n"


def front_matter(run: Run) -> dict[str, Any]:
    """What the hub and `datasets` read."""
    rows = run.manifests["shards/data"].rows
    return {
        "pretty_name": run.name,
        "license": "other",
        "license_name": "licences-of-the-single-pictures",
        "task_categories": ["image-feature-extraction"],
        "tags": ["image", "self-supervised", "curated", run.recipe],
        "size_categories": [size_category(rows)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }


def size_category(rows: int) -> str:
    """The hub's name for a size."""
    bounds = [(10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M"), (10**8, "100M")]
    bounds += [(10**9, "1B"), (10**10, "10B"), (10**11, "100B"), (10**12, "1T")]
    names = ["n", *(name for _, name in bounds)]
    for (bound, name), before in zip(bounds, names, strict=False):
        if rows < bound:
            return f"{before}<{name}" if before == "n" else f"{before}<n<{name}"
    return "n>1T"


def _summary(run: Run) -> str:
    metrics = run.metrics("shards/data")
    megabytes = int(metrics.get("bytes", 0)) / 2**20
    rows, shards = run.manifests["shards/data"].rows, len(run.manifests["shards/data"].parts)
    return (
        f"{plural(rows, 'image')} with their original bytes, in {plural(shards, 'shuffled Parquet shard')} "
        f"({megabytes:,.1f} MiB), chosen from {count(run.manifests['catalog'].rows)} listed images by the recipe "
        f"`{_safe(run.recipe)}`."
    )


def _columns(run: Run) -> str:
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for field in SHARD_COLUMNS:
        dtype = "image" if field.name == "image" else str(field.type)
        lines.append(f"| `{field.name}` | {_short_type(dtype)} | {_safe(field.metadata[b'doc'].decode())} |")
    own = run.manifests["shards/data"].resolved.get("columns")
    for name, kind in sorted((own if isinstance(own, dict) else {}).items()):
        lines.append(
            f"| `{_safe(name)}` | {_safe(str(kind))} | of the sources, as they give it; null where they do not |"
        )
    return "\n".join(lines)


def _short_type(dtype: str) -> str:
    return dtype.replace("element: ", "").replace("list<item: ", "list<")


def _how(run: Run) -> Iterator[str]:
    """Steps with their counts, then what they depended on."""
    yield from (f"- Source {_safe(line)}." for line in sources(run))
    yield ""
    yield "Of the pool's images:"
    yield ""
    for number, step in enumerate(steps(run), 1):
        drops = "; ".join(f"{count(n)} dropped: {_safe(reason.replace('_', ' '))}" for reason, n in step.drops if n)
        curated = f" and {count(step.curated)} curated" if step.curated else ""
        text = ". ".join(part for part in (drops, _safe(step.note)) if part)
        yield f"{number}. {step.name}: {count(step.pool)}{curated}{f' ({text})' if text else ''}"
    for title, lines in (("Models", models(run, digits=64)), ("Similarity thresholds", thresholds(run))):
        found = [f"- {_safe(line)}" for line in lines]
        if found:
            yield from ["", f"{title}:", "", *found]
    yield ""
    yield f"Seed: {_safe(str(run.config.get('seed', 'unknown')))}."


def _not_checked(run: Run) -> str:
    known = set(IMAGES.names)
    missing = [text for text, column in SCREENINGS.items() if column not in known]
    if run.parts is not None and not run.parts.num_images(["heldout"]):
        missing.append("copies of benchmark images: no held-out source was given")
    if not run.has("duplicates"):
        missing.append("copies within the dataset")
    lines = [f"- {text}" for text in missing]
    intro = "**The following was not screened for.** Do it before you publish the dataset or anything trained on it:"
    return "\n".join([intro, "", *lines])


def _safe(text: str) -> str:
    """Text from outside, as plain text within a line or a table cell of Markdown."""
    flat = " ".join(text.split())
    for found, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "'")):
        flat = flat.replace(found, shown)
    return flat
