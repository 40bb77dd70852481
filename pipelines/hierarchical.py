"""Balanced curation without curated sets: deduplicate, cluster as a tree, sample evenly from it.

Vo et al. 2024, arXiv:2405.15613; the clustering route of DINOv3 (arXiv:2508.10104).
"""

from curate.config import Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.pipelines.dedup import Copies, find_copies
from curate.recipe import RecipeConfig, recipe
from curate.stages.clusters.cluster import Assign, FitClusters
from curate.stages.clusters.screen import MeasureDensity, Screen
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.read_images import read_images
from curate.stages.search.lists import BuildLists, FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.selection.describe import DescribeSet
from curate.stages.selection.select import Balance, Select
from curate.stages.selection.write_shards import WriteShards


class Screening(Settings):
    """How junk is kept out of the balanced draw."""

    fit_lists: FitLists = FitLists(homes=("pool",))
    """Coarse centroids for the search of neighbours."""
    density: MeasureDensity = MeasureDensity()
    """How alike an image is to its neighbours."""
    screen: Screen = Screen()
    """What is too alike, or too little."""


class Hierarchical(RecipeConfig):
    """Fields of `recipe: hierarchical`."""

    rows_per_part: int = 65_536
    """Images of a part: the unit of work and of resume."""
    inspect: Inspect = Inspect()
    """What is rejected."""
    copies: Copies
    """How copies are found."""
    embed: Embed
    """The backbone whose features are clustered."""
    clusters: FitClusters = FitClusters(levels="auto", num_resamplings=10)
    """The cluster tree."""
    screening: Screening | None = Screening()
    """Junk that is left out of the balanced draw; null: nothing is."""
    select: Select = Select(balance=Balance())
    """The target size, and how images of a leaf are drawn."""
    describe: DescribeSet = DescribeSet()
    """Figures of the selection itself."""
    write: WriteShards = WriteShards()
    """The shards."""


@recipe("hierarchical", Hierarchical)
def hierarchical(p: Pipeline, cfg: Hierarchical) -> None:
    """Deduplicate, cluster the survivors level by level, draw a balanced sample, write."""
    pool = find_copies(p, cfg, cfg.copies, inspect=cfg.inspect, rows_per_part=cfg.rows_per_part)
    catalog, images, duplicates = pool.catalog, pool.images, pool.duplicates

    stages = {"embeddings/clusters": cfg.embed}
    (vectors,) = p.add_pass(read_images, stages, catalog=catalog, images=images, duplicates=duplicates)
    tree = p.add("centroids/clusters", cfg.clusters, embeddings=vectors, catalog=catalog)
    leaves = p.add(
        "assignments",
        Assign(spherical=cfg.clusters.spherical, device=cfg.clusters.device),
        embeddings=vectors,
        centroids=tree,
    )
    screened = screen_pool(p, cfg.screening, catalog=catalog, embeddings=vectors, assignments=leaves)

    chosen = p.add(
        "selection",
        cfg.select,
        catalog=catalog,
        images=images,
        duplicates=duplicates,
        neighbors=pool.neighbors,
        assignments=leaves,
        centroids=tree,
        screened=screened,
    )
    p.add("figures", cfg.describe, selection=chosen, embeddings=vectors, neighbors=pool.neighbors, catalog=catalog)
    p.add("shards/data", cfg.write, selection=chosen, catalog=catalog, images=images)


def screen_pool(p: Pipeline, cfg: Screening | None, *, catalog: Ref, embeddings: Ref, assignments: Ref) -> Ref | None:
    """Which pool images are junk, by how alike they are to their neighbours and to their cluster's."""
    if cfg is None:
        return None
    k = cfg.density.num_neighbors
    nearest = FindNeighbors(threshold=-1, heldout_threshold=-1, max_neighbors=k, queries=("pool",), answers=("pool",))
    coarse = p.add("density/centroids", cfg.fit_lists, embeddings=embeddings, catalog=catalog)
    build = BuildLists(homes=("pool",), probes=("pool",), num_probes="auto")
    lists = p.add("density/lists", build, embeddings=embeddings, centroids=coarse, catalog=catalog)
    pairs = p.add("density/neighbors", nearest, lists=lists, catalog=catalog)
    density = p.add("density/images", cfg.density, neighbors=pairs, catalog=catalog)
    return p.add("screened", cfg.screen, density=density, assignments=assignments, catalog=catalog)
