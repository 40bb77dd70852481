"""Which images are copies: self-deduplication of the pool, and relative to held-out and curated images.

The rules, in the order they apply:

1. Pool images form components: equal sha256, or an edge at the self threshold of its kind. Curated and
   held-out images are never nodes, so they never join two components.
2. A component that touches a held-out image (equal sha256, or an edge at the relative threshold) is
   `benchmark` as a whole.
3. Otherwise, a component that touches a curated image (equal sha256, or an edge at the self threshold) is
   `duplicate` as a whole: its images are copies of each other, and the curated image represents them.
4. Otherwise one image is `kept`: most pixels, then lowest source rank, then smallest id. The others are its
   `duplicate`s.

The partner of 2 and 3 is the outside image with the strongest edge into the component. Evidence is ranked
by similarity (equal bytes have 1), then sha256 before embedding before aligned before hash, then by smaller id.

Source: Oquab et al. 2023, arXiv:2304.07193, appendix A.3 (self and relative deduplication).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from curate.ops.components import DisjointSet
from curate.tables import ROLES, VERDICTS

KINDS = ("sha256", "embedding", "aligned", "hash")
"""Evidence that two images are copies; tables hold the name, arrays the index."""

SHA256 = KINDS.index("sha256")
POOL, CURATED, HELDOUT = (ROLES.index(role) for role in ("pool", "curated", "heldout"))
KEPT, DUPLICATE, BENCHMARK = (VERDICTS.index(name) for name in ("kept", "duplicate", "benchmark"))


class AcceptedImages(NamedTuple):
    """The accepted images of every role, in ascending order of id."""

    image_ids: np.ndarray
    """(N,) int64, strictly ascending"""
    role: np.ndarray
    """(N,) int8, index into `tables.ROLES`"""
    num_pixels: np.ndarray
    """(N,) int64, width * height"""
    source_rank: np.ndarray
    """(N,) int, place of the source in the config; lower is preferred"""
    sha256: np.ndarray
    """(N, 32) uint8"""


class CopyEdges(NamedTuple):
    """Pairs of images that resemble each other; either order, repeats allowed."""

    query_ids: np.ndarray
    """(E,) int64"""
    image_ids: np.ndarray
    """(E,) int64"""
    similarity: np.ndarray
    """(E,) float32, cosine"""
    kind: np.ndarray
    """(E,) int8, index into KINDS"""

    def take(self, rows: np.ndarray) -> "CopyEdges":
        """The edges at `rows`: (M,) int64 positions, or an (E,) bool mask."""
        return CopyEdges(*(column[rows] for column in self))

    @classmethod
    def concat(cls, parts: Sequence["CopyEdges"]) -> "CopyEdges":
        """All edges of `parts` (at least one) in their order."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Deduplication(NamedTuple):
    """One row per accepted pool image, in ascending order of id: the columns of `tables.DUPLICATES`."""

    image_ids: np.ndarray
    """(M,) int64"""
    component_ids: np.ndarray
    """(M,) int64, smallest image_id of the component"""
    verdict: np.ndarray
    """(M,) int8, index into `tables.VERDICTS`"""
    partner_ids: np.ndarray
    """(M,) int64; -1 when kept"""
    similarity: np.ndarray
    """(M,) float32, of the edge that decided; NaN when kept"""
    kind: np.ndarray
    """(M,) int8, index into KINDS; -1 when kept"""
    curated_heldout: CopyEdges
    """(curated, heldout) matches, one per pair, by ascending ids: reported, no verdict follows"""


def deduplicate(
    images: AcceptedImages,
    edges: CopyEdges,
    *,
    self_threshold: Mapping[str, float],
    relative_threshold: Mapping[str, float],
) -> Deduplication:
    """Judge every accepted pool image by the rules of this module.

    Args:
        images: all accepted images.
        edges: near-duplicates among them; edges of sha256 are found here and need not be given. An edge
            below the threshold that concerns it is ignored.
        self_threshold: least similarity per kind between pool images, and of pool and curated images.
        relative_threshold: least similarity per kind to held-out images.

    Raises:
        ValueError: ids that do not ascend, an edge with an unknown image, a kind without a threshold.
    """
    _check(images, edges, self_threshold, relative_threshold)
    pairs = _oriented(images, edges, self_threshold, relative_threshold)
    role_a, role_b = images.role[pairs.query_ids], images.role[pairs.image_ids]
    inner = pairs.take((role_a == POOL) & (role_b == POOL))
    ties = pairs.take((role_a == POOL) & (role_b != POOL))
    component = _components(images, inner)
    tie = _deciding_tie(images, ties, component)  # per image: position of the tie of its component, or -1
    partner = _representatives(images, component)
    partner[tie >= 0] = ties.image_ids[tie[tie >= 0]]
    verdict = np.where(partner == np.arange(len(partner)), KEPT, DUPLICATE)
    verdict[(tie >= 0) & (images.role[partner] == HELDOUT)] = BENCHMARK
    similarity, kind = _evidence(images, inner, ties, partner)
    pool, kept = np.flatnonzero(images.role == POOL), verdict == KEPT
    return Deduplication(
        images.image_ids[pool],
        images.image_ids[component[pool]],
        verdict[pool].astype(np.int8),
        np.where(kept, -1, images.image_ids[partner])[pool],
        np.where(kept, np.float32(np.nan), similarity)[pool],
        np.where(kept, np.int8(-1), kind)[pool],
        _named(images, _strongest_per_pair(pairs.take((role_a == CURATED) & (role_b == HELDOUT)))),
    )


def _oriented(
    images: AcceptedImages,
    edges: CopyEdges,
    self_threshold: Mapping[str, float],
    relative_threshold: Mapping[str, float],
) -> CopyEdges:
    """The edges that count, sha256 included, between positions in `images`, pool before curated before heldout."""
    a = np.searchsorted(images.image_ids, edges.query_ids)
    b = np.searchsorted(images.image_ids, edges.image_ids)
    swap = images.role[a] > images.role[b]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    role_a, role_b = images.role[a], images.role[b]
    least = np.where(
        role_b == HELDOUT,
        _per_kind(relative_threshold)[edges.kind],
        _per_kind(self_threshold)[edges.kind],
    )
    matter = (a != b) & ((role_a == POOL) | (role_a < role_b)) & (edges.similarity >= least)
    near = CopyEdges(a, b, edges.similarity, edges.kind).take(matter)
    return CopyEdges.concat([near, _equal_bytes(images)])


def _per_kind(threshold: Mapping[str, float]) -> np.ndarray:
    """(len(KINDS),) float32, as the similarities are; nothing excludes equal bytes."""
    return np.array([-np.inf if k == "sha256" else threshold.get(k, np.inf) for k in KINDS], np.float32)


def _equal_bytes(images: AcceptedImages) -> CopyEdges:
    """Edges of equal sha256: each image to the first of its digest in every role, a star and not a clique."""
    digests = np.ascontiguousarray(images.sha256).view("S32")[:, 0]
    _, code = np.unique(digests, return_inverse=True)
    found_a, found_b = [], []
    for role_a, role_b in ((POOL, POOL), (POOL, CURATED), (POOL, HELDOUT), (CURATED, HELDOUT)):
        first = np.full(len(digests), -1, np.int64)
        others = np.flatnonzero(images.role == role_b)
        codes, index = np.unique(code[others], return_index=True)
        first[codes] = others[index]
        rows = np.flatnonzero(images.role == role_a)
        target = first[code[rows]]
        real = (target >= 0) & (target != rows)
        found_a.append(rows[real])
        found_b.append(target[real])
    return _exact_edges(np.concatenate(found_a), np.concatenate(found_b))


def _exact_edges(a: np.ndarray, b: np.ndarray) -> CopyEdges:
    return CopyEdges(a, b, np.ones(len(a), np.float32), np.full(len(a), SHA256, np.int8))


def _components(images: AcceptedImages, inner: CopyEdges) -> np.ndarray:
    """(N,) int64 position of the first member of each image's component."""
    forest = DisjointSet(len(images.image_ids))
    forest.union(inner.query_ids, inner.image_ids)
    return forest.labels()


def _deciding_tie(images: AcceptedImages, ties: CopyEdges, component: np.ndarray) -> np.ndarray:
    """(N,) int64 position in `ties` of the one that decides over each image's component; -1: none."""
    key = component[ties.query_ids]
    order = np.lexsort(
        (ties.image_ids, *_weakness(ties), images.role[ties.image_ids] != HELDOUT, key)  # last key first
    )
    best = order[_first_of_run(key[order])]
    deciding = np.full(len(component), -1, np.int64)
    deciding[key[best]] = best
    return deciding[component]


def _representatives(images: AcceptedImages, component: np.ndarray) -> np.ndarray:
    """(N,) int64 position of the image that would stand for each image's component."""
    order = np.lexsort((np.arange(len(component)), images.source_rank, -images.num_pixels, component))
    best = order[_first_of_run(component[order])]
    representative = np.empty(len(component), np.int64)
    representative[component[best]] = best
    return representative[component]


def _evidence(
    images: AcceptedImages, inner: CopyEdges, ties: CopyEdges, partner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Similarity and kind per image: of its edge to the partner, else of its strongest one in the component."""
    equal = np.flatnonzero((images.sha256 == images.sha256[partner]).all(axis=1))
    directed = CopyEdges.concat(
        [
            inner,
            CopyEdges(inner.image_ids, inner.query_ids, inner.similarity, inner.kind),
            ties.take(ties.image_ids == partner[ties.query_ids]),
            _exact_edges(equal, partner[equal]),  # equal bytes form a star, whose centre may be another
        ]
    )
    aside = directed.image_ids != partner[directed.query_ids]
    order = np.lexsort((*_weakness(directed), aside, directed.query_ids))
    best = directed.take(order[_first_of_run(directed.query_ids[order])])
    similarity, kind = np.full(len(partner), np.nan, np.float32), np.full(len(partner), -1, np.int8)
    similarity[best.query_ids], kind[best.query_ids] = best.similarity, best.kind
    return similarity, kind


def _strongest_per_pair(edges: CopyEdges) -> CopyEdges:
    order = np.lexsort((*_weakness(edges), edges.image_ids, edges.query_ids))
    ordered = edges.take(order)
    return ordered.take(_first_of_run(ordered.query_ids) | _first_of_run(ordered.image_ids))


def _weakness(edges: CopyEdges) -> tuple[np.ndarray, np.ndarray]:
    """Keys for `np.lexsort`, in its order (last decides first), that put the strongest evidence first."""
    return edges.kind, -edges.similarity


def _first_of_run(keys: np.ndarray) -> np.ndarray:
    """(E,) bool: True where a run of equal keys begins."""
    return np.concatenate([np.ones(min(1, len(keys)), bool), keys[1:] != keys[:-1]])


def _named(images: AcceptedImages, edges: CopyEdges) -> CopyEdges:
    """Positions turned back into ids."""
    return CopyEdges(images.image_ids[edges.query_ids], images.image_ids[edges.image_ids], edges.similarity, edges.kind)


def _check(
    images: AcceptedImages,
    edges: CopyEdges,
    self_threshold: Mapping[str, float],
    relative_threshold: Mapping[str, float],
) -> None:
    if (np.diff(images.image_ids) <= 0).any():
        raise ValueError("images: image_ids must ascend without repeats; sort the rows by image_id")
    for ids in (edges.query_ids, edges.image_ids):
        unknown = ids[~np.isin(ids, images.image_ids)]
        if len(unknown):
            raise ValueError(
                f"edges: image {unknown[0]} is none of the {len(images.image_ids)} accepted images; were the "
                "neighbours computed before the images were judged anew?"
            )
    used = {KINDS[k] for k in np.unique(edges.kind)} - {"sha256"}
    for name, threshold in (("self_threshold", self_threshold), ("relative_threshold", relative_threshold)):
        if missing := sorted(used - threshold.keys()):
            raise ValueError(f"{name}: nothing given for {', '.join(missing)} edges; set a value for the model")
