"""A toy pipeline of SemDeDup: planted vectors, given verdicts of deduplication and centroids, and the two stages."""

from pathlib import Path

import numpy as np

from curate.engine.pipeline import Pipeline, Ref
from curate.ops.vectors import normalize
from curate.stages.copies.drop_similar import DropSimilar
from curate.stages.copies.rank_within import RankWithin
from curate.stages.search.build_lists import BuildLists
from curate.tables import DECIDED, DUPLICATES, JUDGED, centroids_schema
from tests.stages.planted import DIM, given_table, planted


def judged(image_id: int) -> dict[str, object]:
    """What deduplication said of an image: every eleventh is a copy of the first."""
    gone = image_id % 11 == 3
    decided = {"partner_id": 0, "similarity": 1.0, "kind": "sha256", "direct": True} if gone else {}
    verdict = "duplicate" if gone else "kept"
    return {"image_id": image_id, "component_id": image_id, "component_size": 1, "verdict": verdict} | decided


def declare(
    root: Path, *, keep: str = "hard", eps: float = 0.15, decided: list[dict[str, object]] | None = None
) -> Pipeline:
    """Tables ranked and verdicts; `decided`: rows of what a person decided."""
    p, catalog, vectors = planted(root)
    rows = [[judged(part << 32 | row) for row in range(60)] if part < 2 else [] for part in range(4)]
    schema = DUPLICATES if decided is None else JUDGED
    given_table(root, "duplicates", schema, rows)
    duplicates, by = Ref("duplicates", schema), None
    if decided is not None:
        given_table(root, "decided", DECIDED, [decided])
        by = Ref("decided", DECIDED)
    schema = centroids_schema(DIM, model="planted", weights="")
    centers = normalize(np.random.default_rng(3).standard_normal((5, DIM)))
    leaves = [{"level": 0, "cluster_id": k, "centroid": x.tobytes()} for k, x in enumerate(centers)]
    given_table(root, "centroids", schema, [leaves])
    centroids = Ref("centroids", schema)
    stored = BuildLists(stored=("pool",), queries=(), num_probes=1)
    lists = p.add("lists", stored, embeddings=vectors, centroids=centroids, catalog=catalog)
    ranked = p.add("ranked", RankWithin(keep=keep), lists=lists, centroids=centroids)
    p.add("verdicts", DropSimilar(eps=eps), ranked=ranked, duplicates=duplicates, catalog=catalog, decided=by)
    return p
