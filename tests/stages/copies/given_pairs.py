"""A toy pipeline that verifies pairs: given edges of any order, features of drawn pictures, and the stages."""

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image
from scipy.ndimage import gaussian_filter

from curate.engine.image_ids import Parts, part_of, row_of
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.copies.features import LocalFeatures, extract_features
from curate.stages.copies.choose_images import ChooseImages
from curate.stages.copies.extract_features import features_row
from curate.stages.copies.find_candidates import FindCandidates
from curate.stages.copies.judge_pairs import JudgePairs
from curate.stages.copies.keep_near import KeepNear
from curate.stages.copies.register_pairs import RegisterPairs
from curate.tables import CATALOG, FEATURES, HELDOUT, NEIGHBORS
from tests.stages.planted import PlantedCatalog, given_table, make

ROWS = 5
ROLES = ("pool", "pool", "heldout")
STRICT = {"threshold": 0.9, "heldout_threshold": 0.85}
NO_FEATURES = 1 << 32 | 1
"""The image that could not be opened again."""


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


def texture(seed: int, *, width: int = 160, height: int = 128) -> Image.Image:
    """A picture with details everywhere, which no other seed gives."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), 1.5)
    return Image.fromarray(np.clip(128 + 45 * noise / noise.std(), 0, 255).astype(np.uint8)).convert("RGB")


def picture(image_id: int) -> Image.Image:
    """Images of odd rows are crops of the row before; held-out ones show, mirrored, those of the first part."""
    part, row = part_of(image_id), row_of(image_id)
    if row % 2:
        return picture(image_id - 1).crop((20, 10, 150, 120))
    if part == HELDOUT:
        return picture(row).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return texture(100 * part + row)


@cache
def features(image_id: int) -> LocalFeatures | None:
    """The features of an image; None: it was not opened."""
    return None if image_id == NO_FEATURES else extract_features(picture(image_id))


def given_features(root: Path) -> Table:
    """The features of all images, as a table."""
    rows = []
    for part in range(len(ROLES)):
        ids = [part << 32 | row for row in range(ROWS)]
        found = [(one, features(one)) for one in ids]
        rows.append([{"image_id": one} | ({} if x is None else features_row(x)) for one, x in found])
    return given_table(root, "features", FEATURES, rows)


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


def doubtful() -> dict[tuple[int, int], float]:
    """The pairs that no cosine decides, from the image that offers them."""
    return {
        (a, b) if is_heldout(a) or a < b else (b, a): cosine
        for a, b, cosine in pairs()
        if np.float32(cosine) < np.float32(0.85 if is_heldout(a) else 0.9)
    }


def declare(root: Path, *, blocks: int | None = None, max_pairs: int = 64) -> Pipeline:
    """Tables near (given), sure, pairs, chosen, registered and judged."""
    given_features(root)
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=ROLES, rows=ROWS))
    given = pairs()
    near = p.add("near", GivenPairs(edges=(tuple(given[::3]), tuple(given[1::3]), tuple(given[2::3]))), catalog=catalog)
    p.add("sure", KeepNear(**STRICT), neighbors=near, catalog=catalog)
    found = p.add("pairs", FindCandidates(max_pairs=max_pairs, **STRICT), neighbors=near, catalog=catalog)
    p.add("chosen", ChooseImages(), candidates=found, catalog=catalog)
    seen = Ref("features", FEATURES)
    register = RegisterPairs(blocks=blocks)
    registered = p.add("registered", register, candidates=found, features=seen, catalog=catalog)
    p.add("judged", JudgePairs(), registered=registered, catalog=catalog)
    return p


def made(root: Path, **how: int) -> Pipeline:
    """The same, with its tables."""
    p = declare(root, **how)
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
