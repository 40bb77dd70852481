"""The page of tables, from the recipes that declare them and the schemas of their stages."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

import curate.tables
from curate.decisions import FILE, Decision, append_decisions
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Stage
from curate.engine.store import Store
from curate.recipe import check_config, find_recipe
from docs.generators.markdown import code, table

HEAD = """# Tables and columns

A run writes these tables into its workdir, each a folder of Parquet files. `image_id` joins them. Every tool that reads
Parquet reads them:

```sql
select reject, count(*) from 'runs/photos/images/part-*.parquet' group by 1
```

In Python, `curate.open_run("runs/photos").tables["images"]` is the same table. A column that may be null says what null
means. The type of a vector depends on the model: `fixed_size_binary[2560]` holds 1,280 numbers of float16.

Runs with [decisions](../guides/decisions.md) alone have the table `internal/decisions` and the column `decision`.
"""

LISTS = """## Rows of curate list

`curate list` and `Run.list` join these tables when they are asked: one row an image.
"""

RECIPES: dict[str, dict[str, Any]] = {
    "dedup": {"copies": {"embed": {"model": "lite0-copy"}, "threshold": "auto"}},
    "semdedup": {"copies": {"embed": {"model": "lite0-copy"}}, "embed": {"model": "lite0"}},
    "hierarchical": {"copies": {"embed": {"model": "lite0-copy"}}, "embed": {"model": "lite0"}},
    "lvd142m": {
        "sources": {"pool": "pool", "curated": "curated"},
        "copies": {"embed": {"model": "lite0-copy"}},
        "retrieval": {"embed": {"model": "lite0"}},
        "select": {"balance": {}},
    },
    "pretrain": {
        "sources": {"pool": "pool", "curated": "curated"},
        "copies": {"embed": {"model": "lite0-copy"}},
        "retrieval": {"embed": {"model": "lite0"}},
        "evaluate": {"labelled": "bundled"},
    },
}
"""Recipes with what makes them declare as many tables as they can, by models that need no download."""


@dataclass
class Declared:
    """A table that recipes declare."""

    stage: Stage
    schema: pa.Schema
    recipes: list[str] = field(default_factory=list)


def tables_page() -> str:
    """Results first, then working tables; each with the stage that makes it, its recipes and its columns."""
    found = declared()
    results = {name: one for name, one in found.items() if not name.startswith("internal/")}
    working = {name: one for name, one in found.items() if name not in results}
    parts = [HEAD, "## Results", *_entries(results), LISTS, _columns(curate.tables.LISTED)]
    parts += ["## Why an image is rejected", "The first reason of this list that holds counts.", _reasons()]
    parts += ["## Working tables", "`curate clean` removes the rows of those that nothing needs any more."]
    return "\n\n".join([*parts, *_entries(working)])


def declared() -> dict[str, Declared]:
    """Every table of the built-in recipes, in the order in which they are made."""
    found: dict[str, Declared] = {}
    with TemporaryDirectory() as folder:
        decisions = Path(folder) / FILE
        append_decisions(decisions, [Decision("000001.jpg", "keep")])
        given = {"sources": {"pool": "pool"}, "workdir": "-", "decisions": str(decisions)}
        for name, values in RECIPES.items():
            config = check_config({**given, "recipe": name, **values}, where=name)
            pipeline = Pipeline(Store("-"), seed=0)
            find_recipe(name).declare(pipeline, config)
            for step in pipeline.steps:
                for made, stage in step.stages.items():
                    found.setdefault(made, Declared(stage, step.schemas[made])).recipes.append(name)
    return found


def _entries(found: dict[str, Declared]) -> Iterator[str]:
    for name, one in found.items():
        told = (inspect.getdoc(type(one.stage)) or "").split("\n\n")[0]
        everywhere = len(one.recipes) == len(RECIPES)
        recipes = "every recipe" if everywhere else ", ".join(map(code, one.recipes))
        yield f"### {name}"
        yield f"{' '.join(told.split())} Made by `{type(one.stage).__name__}`, in {recipes}."
        yield _columns(one.schema)


def _columns(schema: pa.Schema) -> str:
    rows = [(code(column.name), _type(column.type), _meaning(column)) for column in schema]
    return table(("column", "type", "meaning"), rows)


def _type(dtype: pa.DataType) -> str:
    return code(re.sub(r"list<(?:item|element): (.*)>$", r"list<\1>", str(dtype)).replace(" not null", ""))


def _meaning(column: pa.Field) -> str:
    """The column's text, and that of what is nested in it."""
    told = (column.metadata or {}).get(b"doc", b"").decode()
    dtype = column.type.value_type if pa.types.is_list(column.type) else column.type
    inside = [one for one in dtype if (one.metadata or {}).get(b"doc")] if pa.types.is_struct(dtype) else []
    nested = "; ".join(f"{code(one.name)}: {one.metadata[b'doc'].decode()}" for one in inside)
    return f"{told}. {nested}" if nested else told


def _reasons() -> str:
    """The reasons with the comments that stand beside them in the source."""
    source = inspect.getsource(curate.tables)
    body = source.split("REJECT_REASONS = (", 1)[1].split("\n)\n", 1)[0]
    rows = re.findall(r'"(\w+)",  # (.*)', body)
    assert [name for name, _ in rows] == list(curate.tables.REJECT_REASONS)
    return table(("reason", "when"), [(code(name), when) for name, when in rows])
