"""Toy stages that stand for Catalog and Embed: vectors planted by a seed, in parts of one role each."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.engine.executors import InProcess
from curate.engine.figures import Figures
from curate.engine.finished import Finished, FinishedTable
from curate.engine.freshness import Flags
from curate.engine.image_ids import CatalogFigures
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.stage import Batches, Input, Map, Scan, Stage, each
from curate.engine.store import Store
from curate.engine.table import Manifest, Table
from curate.ops.vectors import normalize, pack
from curate.tables import CATALOG, embeddings_schema

DIM = 16


class PlantedCatalog(Scan):
    roles: tuple[str, ...] = ("pool", "pool", "curated", "heldout")
    rows: int = 60

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return CATALOG

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        for part, role in enumerate(self.roles):
            rows = [
                {"image_id": part << 32 | row, "source": role, "role": role, "uri": f"{part}/{row}", "key": f"{row}"}
                for row in range(self.rows)
            ]
            yield part, pa.Table.from_pylist(rows, schema=CATALOG)

    def summarize(self, table: Table, **inputs: Any) -> CatalogFigures:
        return CatalogFigures.of_parts((role, role, self.rows) for role in self.roles)


def planted_vectors(part: int, rows: int) -> np.ndarray:
    """(rows, DIM) unit vectors around 12 concepts that all parts share."""
    concepts = np.random.default_rng(0).standard_normal((12, DIM))
    rng = np.random.default_rng([1, part])
    return normalize(concepts[rng.integers(0, 12, rows)] + 0.35 * rng.standard_normal((rows, DIM)))


class PlantedVectors(Map):
    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}
    null_every: int = 7
    keep_first: tuple[int, ...] = ()
    """Rows of each part that have vectors at most; empty: all."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return embeddings_schema(DIM, dtype="float32", model="planted", weights="")

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        valid = np.arange(len(catalog)) % self.null_every != 0
        if self.keep_first:
            valid[self.keep_first[part] :] = False
        column = pack(planted_vectors(part, len(catalog)), valid=valid)
        ids = catalog["image_id"].combine_chunks()
        yield pa.RecordBatch.from_arrays([ids, column], schema=self.output_schema())


class GivenVectors(Map):
    """Vectors as they are given, a list of rows a part; null where an image has none."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}
    vectors: tuple[tuple[tuple[float, ...] | None, ...], ...]

    def _dim(self) -> int:
        return next(len(row) for part in self.vectors for row in part if row is not None)

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return embeddings_schema(self._dim(), dtype="float32", model="planted", weights="")

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        rows = [(0.0,) * self._dim() if row is None else row for row in self.vectors[part]]
        valid = np.array([row is not None for row in self.vectors[part]])
        columns = [catalog["image_id"].combine_chunks(), pack(np.array(rows, np.float32), valid=valid)]
        yield pa.RecordBatch.from_arrays(columns, schema=self.output_schema())


def given_table(
    root: Path, name: str, schema: pa.Schema, parts: list[list[dict[str, Any]]], *, figures: Figures | None = None
) -> Table:
    """A complete table of these rows; columns that a row leaves out are null, or 1 where they may not be."""
    made, done = Store(root).table(name), []
    blank = {field.name: 1 if pa.types.is_integer(field.type) and not field.nullable else None for field in schema}
    for number, rows in enumerate(parts):
        whole = [blank | row for row in rows]
        batch = pa.RecordBatch.from_pylist(whole, schema=schema)
        done.append(made.commit(number, schema, [batch]).__dict__)
    told = {} if figures is None else figures.model_dump(mode="json")
    rows = sum(map(len, parts))
    made.write_manifest(Manifest("Given", 1, {}, {}, {}, {}, complete=True, parts=done, rows=rows, figures=told))
    return made


def given_catalog(root: Path, parts: list[tuple[str, str, int]]) -> Table:
    """A catalog of images that lie nowhere: (source, role, rows) of each part."""
    rows = [
        [
            {"image_id": part << 32 | row, "source": source, "role": role, "uri": "", "key": f"{source}/{row}.jpg"}
            for row in range(size)
        ]
        for part, (source, role, size) in enumerate(parts)
    ]
    return given_table(root, "catalog", CATALOG, rows, figures=CatalogFigures.of_parts(parts))


def opened(root: Path, stages: Mapping[str, Stage]) -> Finished:
    """Tables of a workdir as those who only look see them, said to be made by these stages."""
    store = Store(root)
    tables = tuple(FinishedTable(stage, store.table(name)) for name, stage in stages.items())
    return Finished(store, "toy", {"seed": 3}, tables)


def planted(root: Path, **catalog: Any) -> tuple[Pipeline, Ref, Ref]:
    """A pipeline with `catalog` and `vectors` declared."""
    p = Pipeline(Store(root), seed=0)
    listed = p.add("catalog", PlantedCatalog(**catalog))
    return p, listed, p.add("vectors", PlantedVectors(), catalog=listed)


def make(p: Pipeline) -> None:
    p.run(InProcess(1), Flags())


def all_vectors(p: Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """(N,) ids and (N, DIM) vectors that are not null, of all parts."""
    ids, vectors = [], []
    for part in p.store.table("catalog").parts():
        rows = np.flatnonzero(np.arange(part.rows) % 7 != 0)
        ids.append(part.number << 32 | rows)
        vectors.append(planted_vectors(part.number, part.rows)[rows])
    return np.concatenate(ids), np.concatenate(vectors)
