"""Balanced curation without curated sets: deduplicate, cluster as a tree, sample evenly from it.

Vo et al. 2024, arXiv:2405.15613; the clustering route of DINOv3 (arXiv:2508.10104).
"""

from collections.abc import Mapping
from typing import ClassVar

from curate.config import Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.pipelines.clusters import fit_clusters
from curate.pipelines.copies import CurationConfig, deduplicate_pool, draw_map, write_shards
from curate.pipelines.search import find_pairs
from curate.pipelines.vectors import embed_pool
from curate.sources.vector_files import OwnEmbeddings
from curate.stages.clusters.assign import Assign
from curate.stages.clusters.find_junk import FindJunk
from curate.stages.clusters.fit_clusters import FitClusters
from curate.stages.clusters.measure_density import MeasureDensity
from curate.stages.images.embed import Embed
from curate.stages.images.vectors_from import VectorsFrom
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.selection.balance import Balance
from curate.stages.selection.describe import DescribeSet
from curate.stages.selection.select import Select


class Junk(Settings):
    """How junk is kept out of the balanced draw."""

    fit_lists: FitLists = FitLists(stored=("pool",))
    """How the coarse centroids for the search of neighbors are fitted."""
    density: MeasureDensity = MeasureDensity()
    """How it is measured how alike an image is to its neighbors."""
    find: FindJunk = FindJunk()
    """What is too alike, or too little."""


RENAMED = {"screening": "write `junk` instead, and `junk.find` for `screening.screen`"}
"""How junk was called in configs."""


class Hierarchical(CurationConfig):
    """The config of `recipe: hierarchical`."""

    renamed: ClassVar[Mapping[str, str]] = RENAMED

    embed: VectorsFrom
    """The backbone whose features are clustered."""
    clusters: FitClusters = FitClusters(levels="auto", num_resamplings=10)
    """How the cluster tree is fitted."""
    junk: Junk | None = Junk()
    """How junk is kept out of the balanced draw; null: nothing is kept out."""
    select: Select = Select(balance=Balance())
    """The target size, and how images of a leaf are drawn."""
    describe: DescribeSet = DescribeSet()
    """How the selection itself is measured."""

    @property
    def backbone(self) -> Embed | OwnEmbeddings:
        return self.embed


def hierarchical(p: Pipeline, cfg: Hierarchical) -> None:
    """Deduplicate, cluster the survivors level by level, draw a balanced sample, write."""
    pool = deduplicate_pool(p, cfg)
    catalog, images, duplicates = pool.catalog, pool.images, pool.duplicates

    given = {"catalog": catalog, "images": images, "duplicates": duplicates}
    vectors = embed_pool(p, "embeddings/clusters", cfg.embed, **given)
    tree = fit_clusters(p, cfg.clusters, embeddings=vectors, catalog=catalog)
    assign = Assign(spherical=cfg.clusters.spherical, device=cfg.clusters.device)
    leaves = p.add("assignments", assign, embeddings=vectors, centroids=tree)
    junk = find_junk(p, cfg.junk, catalog=catalog, embeddings=vectors, assignments=leaves)

    clustered = {"assignments": leaves, "centroids": tree, "junk": junk}
    chosen = p.add("selection", cfg.select, **pool.selectable, **clustered)
    given = {"selection": chosen, "catalog": catalog}
    p.add(
        "internal/figures",
        cfg.describe,
        embeddings=vectors,
        neighbors=pool.neighbors,
        duplicates=duplicates,
        **given,
    )
    draw_map(p, cfg.map, pool, embeddings=vectors, selection=chosen, assignments=leaves)
    if cfg.write is not None:
        write_shards(p, cfg.write, images=images, blurs=pool.blurs, **given)


def find_junk(p: Pipeline, cfg: Junk | None, *, catalog: Ref, embeddings: Ref, assignments: Ref) -> Ref | None:
    """Which pool images are junk, by how alike they are to their neighbors and to their cluster's."""
    if cfg is None:
        return None
    k = cfg.density.num_neighbors
    nearest = FindNeighbors(threshold=-1, heldout_threshold=-1, max_neighbors=k, queries=("pool",), answers=("pool",))
    build = BuildLists(stored=("pool",), queries=("pool",))
    pairs = find_pairs(
        p, "density", fit=cfg.fit_lists, build=build, find=nearest, catalog=catalog, embeddings=embeddings
    )
    density = p.add("internal/density", cfg.density, neighbors=pairs, catalog=catalog)
    return p.add("internal/junk", cfg.find, density=density, assignments=assignments, catalog=catalog)
