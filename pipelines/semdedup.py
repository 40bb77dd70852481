"""Semantic deduplication: of images that a backbone finds alike, one stays (SemDeDup).

Abbas et al. 2023, arXiv:2303.09540.
"""

from typing import Literal

from curate.engine.pipeline import Pipeline
from curate.pipelines.dedup import Copies, find_copies
from curate.recipe import RecipeConfig, recipe
from curate.stages.clusters.cluster import FitClusters
from curate.stages.copies.semdedup import DropSimilar, RankWithin
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.read_images import read_images
from curate.stages.search.lists import BuildLists
from curate.stages.selection.describe import DescribeSet
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import WriteShards


class Clusters(FitClusters):
    """One level of clusters: images are compared within them."""

    levels: tuple[int] | Literal["auto_flat"] = "auto_flat"
    """How many clusters; auto_flat: one for 20 images. The paper: 50,000 for 440 M images."""


class Semdedup(RecipeConfig):
    """Fields of `recipe: semdedup`."""

    rows_per_part: int = 65_536
    """Images of a part: the unit of work and of resume."""
    inspect: Inspect = Inspect()
    """What is rejected."""
    copies: Copies
    """How copies are found, which go first."""
    embed: Embed
    """The backbone that says what is alike."""
    clusters: Clusters = Clusters()
    """Within which images are compared."""
    rank: RankWithin = RankWithin()
    """Which of several similar images is preferred."""
    drop: DropSimilar = DropSimilar()
    """How similar is too similar."""
    select: Select = Select()
    """What is kept: by default every image that is left."""
    describe: DescribeSet = DescribeSet()
    """Figures of the selection itself."""
    write: WriteShards = WriteShards()
    """The shards."""


@recipe("semdedup", Semdedup)
def semdedup(p: Pipeline, cfg: Semdedup) -> None:
    """Deduplicate, cluster the survivors, drop those alike within a cluster, write."""
    pool = find_copies(p, cfg, cfg.copies, inspect=cfg.inspect, rows_per_part=cfg.rows_per_part)
    catalog, images = pool.catalog, pool.images

    stages = {"embeddings/clusters": cfg.embed}
    (vectors,) = p.add_pass(read_images, stages, catalog=catalog, images=images, duplicates=pool.duplicates)
    centres = p.add("centroids/clusters", cfg.clusters, embeddings=vectors, catalog=catalog)
    home = BuildLists(homes=("pool",), probes=(), num_probes=1)
    lists = p.add("lists/clusters", home, embeddings=vectors, centroids=centres, catalog=catalog)
    ranked = p.add("semdedup/ranked", cfg.rank, lists=lists, centroids=centres)
    judged = p.add("semdedup/verdicts", cfg.drop, ranked=ranked, duplicates=pool.duplicates, catalog=catalog)

    chosen = p.add("selection", cfg.select, catalog=catalog, images=images, duplicates=judged, neighbors=pool.neighbors)
    p.add("figures", cfg.describe, selection=chosen, embeddings=vectors, neighbors=pool.neighbors, catalog=catalog)
    p.add("shards/data", cfg.write, selection=chosen, catalog=catalog, images=images)
