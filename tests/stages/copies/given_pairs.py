"""A toy pipeline that verifies pairs: given edges of any order, planted small pictures, and the three stages."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.engine.image_ids import Parts, part_of
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.ops.vectors import normalize
from curate.stages.copies.find_candidates import FindCandidates
from curate.stages.copies.keep_near import KeepNear
from curate.stages.copies.verify_copies import VerifyCopies
from curate.tables import CATALOG, HELDOUT, NEIGHBORS
from tests.stages.planted import GivenVectors, PlantedCatalog, make

ROWS = 6
ROLES = ("pool", "pool", "heldout")
STRICT = {"threshold": 0.9, "heldout_threshold": 0.85}
LIMITS = {"threshold": 0.8, "heldout_threshold": 0.75}


class GivenPairs(Map):
    """One part of edges a part of the catalog, in whatever order."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}
    edges: tuple[tuple[tuple[int, int, float], ...], ...]

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        query, image, cosine = zip(*self.edges[part], strict=True)
        columns = [
            pa.array(query),
            pa.array(image),
            pa.array(cosine, pa.float32()),
            pa.array(["embedding"] * len(query)),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=NEIGHBORS)


def pictures() -> np.ndarray:
    """(3, ROWS, 64) little pictures; those of odd rows are noisy versions of the row before in the same part."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, ROWS, 64)).astype(np.float32)
    x[2] = x[0] + 0.3 * x[2]
    x[:, 1::2] = x[:, 0::2] + 0.3 * x[:, 1::2]
    return normalize(x.reshape(-1, 64)).reshape(3, ROWS, 64)


def pairs() -> list[tuple[int, int, float]]:
    """Both directions of pool pairs, one of some; held-out images ask only; repeats, as several lists give."""
    rng = np.random.default_rng(1)
    pool = [part << 32 | row for part in (0, 1) for row in range(ROWS)]
    found = [
        (a, b, float(np.float32(cosine)))
        for i, a in enumerate(pool)
        for b in pool[i + 1 :]
        for cosine in [rng.uniform(0.7, 1)]
    ]
    both = found + [(b, a, cosine) for a, b, cosine in found[::2]] + found[:5]
    one_way = [(b, a, cosine) for a, b, cosine in found[20:30:2]]
    asked = [(2 << 32 | row, image, float(np.float32(rng.uniform(0.7, 1)))) for row in range(ROWS) for image in pool]
    everything = [pair for pair in both if pair not in found[20:30:2]] + one_way + asked
    return [everything[i] for i in rng.permutation(len(everything))]


def declare(root: Path) -> Pipeline:
    """Tables near (given), sure, pairs and aligned."""
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=ROLES, rows=ROWS))
    given = pairs()
    near = p.add("near", GivenPairs(edges=(tuple(given[::3]), tuple(given[1::3]), tuple(given[2::3]))), catalog=catalog)
    luma = p.add("luma", GivenVectors(vectors=pictures().tolist()), catalog=catalog)
    p.add("sure", KeepNear(**STRICT), neighbors=near, catalog=catalog)
    found = p.add("pairs", FindCandidates(**STRICT), neighbors=near, pictures=luma, catalog=catalog)
    p.add("aligned", VerifyCopies(**LIMITS), candidates=found, pictures=luma, catalog=catalog)
    return p


def made(root: Path) -> Pipeline:
    """The same, with its tables."""
    p = declare(root)
    make(p)
    return p


def rows_of(p: Pipeline, name: str) -> dict[tuple[int, int], float]:
    """Similarity by pair; all but the given pairs stand in a table once."""
    rows = p.store.table(name).read_all().to_pylist()
    assert len({(r["query_id"], r["image_id"]) for r in rows}) == len(rows) or name == "sure"
    return {(r["query_id"], r["image_id"]): r["similarity"] for r in rows}


def is_heldout(image_id: int) -> bool:
    """Whether an image is of the held-out part."""
    return part_of(image_id) == HELDOUT


def parts() -> Parts:
    """The parts of the toy catalog."""
    return Parts(np.array([0, 0, HELDOUT]), np.arange(3), np.full(3, ROWS), list(ROLES))
