"""Verified copies: the two shuffles against a direct computation over all pairs."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from curate.engine.executors import ExecutorConfig, start_executor
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.ops.copies.alignment import align, alignment_score
from curate.ops.vectors import normalize
from curate.stages.copies.verify import FindCandidates, KeepNear, VerifyCopies
from curate.tables import CATALOG, NEIGHBORS
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
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=ROLES, rows=ROWS))
    given = pairs()
    near = p.add("near", GivenPairs(edges=(tuple(given[::3]), tuple(given[1::3]), tuple(given[2::3]))), catalog=catalog)
    luma = p.add("luma", GivenVectors(vectors=pictures().tolist()), catalog=catalog)
    p.add("sure", KeepNear(**STRICT), neighbors=near, catalog=catalog)
    found = p.add("pairs", FindCandidates(**STRICT), neighbors=near, pictures=luma, catalog=catalog)
    p.add("aligned", VerifyCopies(**LIMITS), candidates=found, pictures=luma, catalog=catalog)
    return p


def rows_of(p: Pipeline, name: str) -> dict[tuple[int, int], float]:
    rows = p.store.table(name).read_all().to_pylist()
    assert len({(r["query_id"], r["image_id"]) for r in rows}) == len(rows) or name == "sure"
    return {(r["query_id"], r["image_id"]): r["similarity"] for r in rows}


def is_heldout(image_id: int) -> bool:
    return image_id >> 32 == 2


def test_candidates_are_the_doubtful_pairs_each_once_from_the_smaller_id(tmp_path: Path) -> None:
    p = declare(tmp_path)
    make(p)
    expected = {}
    for a, b, cosine in pairs():
        if cosine < (0.85 if is_heldout(a) else 0.9):
            expected[(a, b) if is_heldout(a) or a < b else (b, a)] = cosine
    assert rows_of(p, "pairs") == pytest.approx(expected)
    assert len(expected) > 60


def test_pairs_of_a_strict_cosine_are_kept_as_they_are(tmp_path: Path) -> None:
    p = declare(tmp_path)
    make(p)
    expected = {(a, b): c for a, b, c in pairs() if c >= np.float32(0.85 if is_heldout(a) else 0.9)}
    assert rows_of(p, "sure") == pytest.approx(expected)


def test_verified_pairs_equal_a_direct_computation(tmp_path: Path) -> None:
    p = declare(tmp_path)
    make(p)
    x = pictures()
    expected = {}
    for (a, b), cosine in rows_of(p, "pairs").items():
        small = [x[i >> 32, i & 0xFFFFFFFF][None] for i in (a, b)]
        score = alignment_score(np.array([cosine], np.float32), align(*small), weight=0.45)[0]
        if score >= np.float32(0.75 if is_heldout(a) else 0.8):
            expected[a, b] = float(score)
    found = rows_of(p, "aligned")
    assert found == pytest.approx(expected, abs=1e-6)
    assert 5 < len(found) < len(rows_of(p, "pairs"))
    assert p.store.table("aligned").metrics == {"tried": len(rows_of(p, "pairs")), "aligned": len(found)}


def test_dask_gives_equal_tables(tmp_path: Path) -> None:
    make(here := declare(tmp_path / "here"))
    there = declare(tmp_path / "there")
    with start_executor(ExecutorConfig(kind="local", workers=1, threads=1)) as executor:
        there.run(executor, Flags())
    for name in ("sure", "pairs", "aligned"):
        assert here.store.table(name).read_all().equals(there.store.table(name).read_all())


def test_a_model_without_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"timm/x: no calibrated values to verify .* set copies.verify=false"):
        VerifyCopies(model="timm/x").resolve()
