"""Balanced curation without curated sets: deduplicate, cluster as a tree, sample evenly from it.

Vo et al. 2024, arXiv:2405.15613; the clustering route of DINOv3 (arXiv:2508.10104).
"""

from curate.pipeline import Pipeline
from curate.recipe import RecipeConfig, recipe
from curate.stages.cluster import Assign, FitClusters
from curate.stages.describe import DescribeSet
from curate.stages.embed import Embed
from curate.stages.inspect import Inspect
from curate.stages.read_images import read_images
from curate.stages.select import Balance, Select
from curate.stages.write_shards import WriteShards
from pipelines.dedup import Copies, find_copies


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

    chosen = p.add(
        "selection",
        cfg.select,
        catalog=catalog,
        images=images,
        duplicates=duplicates,
        neighbors=pool.neighbors,
        assignments=leaves,
        centroids=tree,
    )
    p.add("figures", cfg.describe, selection=chosen, embeddings=vectors, neighbors=pool.neighbors, catalog=catalog)
    p.add("shards/data", cfg.write, selection=chosen, catalog=catalog, images=images)
