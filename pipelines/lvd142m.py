"""The pipeline behind DINOv2's LVD-142M, in the order of section 3 of its paper (arXiv:2304.07193).

The web-scale first steps of the paper (domains dropped, NSFW filtering, faces blurred) are not run here; the
dataset card says so.
"""

from curate.config import Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.errors import ConfigError
from curate.pipelines.dedup import Copies, find_copies
from curate.pipelines.hierarchical import Screening, screen_pool
from curate.recipe import RecipeConfig, recipe
from curate.stages.clusters.cluster import Assign, FitClusters
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.read_images import read_images
from curate.stages.search.lists import BuildLists, FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.rank_neighbors import RankNeighbors
from curate.stages.search.truth import FindTruth, SampleQueries
from curate.stages.selection.describe import DescribeSet
from curate.stages.selection.match_queries import MatchQueries
from curate.stages.selection.retrieve import Retrieve
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import WriteShards

REFILL_DEPTH = 8
"""Candidates per image that sample-based retrieval needs where collisions are refilled."""


class Retrieval(Settings):
    """How pool images that resemble the curated sets are found."""

    embed: Embed
    """A self-supervised backbone; the paper has a ViT-H/16 trained on ImageNet-22k."""
    clusters: FitClusters = FitClusters()
    """k-means over the pool that is left."""
    fit_lists: FitLists = FitLists(homes=("pool",))
    """Coarse centroids for the search of nearest neighbours."""
    retrieve: Retrieve = Retrieve()
    """Sample-based and cluster-based retrieval."""


class Lvd142m(RecipeConfig):
    """Fields of `recipe: lvd142m`."""

    rows_per_part: int = 65_536
    """Images of a part: the unit of work and of resume."""
    inspect: Inspect = Inspect()
    """What is rejected."""
    copies: Copies
    """How copies are found."""
    retrieval: Retrieval
    """How images that resemble the curated sets are found."""
    screening: Screening | None = Screening()
    """Junk that is left out where clusters are balanced (`select.balance`); null: nothing is."""
    select: Select = Select()
    """The union of the routes, and its rebalancing."""
    describe: DescribeSet = DescribeSet()
    """Figures of the selection itself."""
    write: WriteShards = WriteShards()
    """The shards."""


@recipe("lvd142m", Lvd142m)
def lvd142m(p: Pipeline, cfg: Lvd142m) -> None:
    """Deduplicate, drop what touches benchmarks, retrieve from curated sets, rebalance, write."""
    curate_pool(p, cfg)


def curate_pool(p: Pipeline, cfg: Lvd142m) -> Ref:
    """Declare the steps from the sources to the shards, which it returns."""
    if not cfg.sources.curated:
        raise ConfigError(
            "sources.curated: recipe lvd142m retrieves from curated images and none are given; set "
            "sources.curated=DIR, or use configs/hierarchical.yaml, which needs none"
        )
    # 1. Catalog, checks, near-duplicates within the pool (appendix A: self-deduplication) and of held-out
    #    benchmarks (relative deduplication: whole components go).
    pool = find_copies(p, cfg, cfg.copies, inspect=cfg.inspect, rows_per_part=cfg.rows_per_part)
    catalog, images, duplicates = pool.catalog, pool.images, pool.duplicates

    # 2. The survivors and the curated images, embedded by a self-supervised ViT.
    stages = {"embeddings/retrieval": cfg.retrieval.embed}
    (vectors,) = p.add_pass(read_images, stages, catalog=catalog, images=images, duplicates=duplicates)

    # 3. Retrieval: k nearest for large curated sets, clusters hit more than 3 times for small ones.
    centres = p.add("centroids/retrieval", cfg.retrieval.clusters, embeddings=vectors, catalog=catalog)
    fitted = cfg.retrieval.clusters
    assign = Assign(spherical=fitted.spherical, device=fitted.device)
    leaves = p.add("assignments", assign, embeddings=vectors, centroids=centres)
    by_cluster_alone = cfg.retrieval.retrieve.route == "cluster"
    near = None if by_cluster_alone else _nearest_to_curated(p, cfg.retrieval, catalog, vectors)
    found = p.add("retrieved", cfg.retrieval.retrieve, catalog=catalog, nearest=near, assignments=leaves)

    # Not in the paper: a balanced draw must not take from clusters of junk.
    screening = cfg.screening if cfg.select.balance is not None else None
    screened = screen_pool(p, screening, catalog=catalog, embeddings=vectors, assignments=leaves)

    # 4. The union with the curated sets as they are, rebalanced over the clusters, as shuffled shards.
    chosen = p.add(
        "selection",
        cfg.select,
        catalog=catalog,
        images=images,
        duplicates=duplicates,
        neighbors=pool.neighbors,
        retrieved=found,
        assignments=leaves,
        centroids=centres,
        screened=screened,
    )
    p.add("figures", cfg.describe, selection=chosen, embeddings=vectors, neighbors=pool.neighbors, catalog=catalog)
    return p.add("shards/data", cfg.write, selection=chosen, catalog=catalog, images=images)


def _nearest_to_curated(p: Pipeline, cfg: Retrieval, catalog: Ref, vectors: Ref) -> Ref:
    """The pool images nearest to each curated one, through inverted lists of the pool."""
    build = BuildLists(homes=("pool",), probes=("curated",))
    sample = cfg.retrieve.sample
    depth = sample.largest_k * (REFILL_DEPTH if sample.refill else 1)
    search = FindNeighbors(
        threshold=-1, heldout_threshold=-1, max_neighbors=depth, queries=("curated",), answers=("pool",)
    )
    coarse = p.add("centroids/lists", cfg.fit_lists, embeddings=vectors, catalog=catalog)
    queries = p.add("queries/retrieval", SampleQueries(queries=("curated",)), embeddings=vectors, catalog=catalog)
    brute = FindTruth(threshold=-1, max_neighbors=depth, answers=("pool",))
    truth = p.add("truth/retrieval", brute, embeddings=vectors, queries=queries, catalog=catalog)
    known = {"queries": queries, "truth": truth}
    lists = p.add("lists/retrieval", build, embeddings=vectors, centroids=coarse, catalog=catalog, **known)
    pairs = p.add("neighbors/retrieval", search, lists=lists, catalog=catalog, **known)
    near = p.add("nearest/ranked", RankNeighbors(k=depth), neighbors=pairs, catalog=catalog)
    if not sample.refill:
        return near
    return p.add("nearest/matched", MatchQueries(sample=sample), nearest=near, catalog=catalog)
