"""The pipeline behind DINOv2's LVD-142M, in the order of section 3 of its paper (arXiv:2304.07193).

The web-scale first steps of the paper (domains dropped, NSFW filtering, faces blurred) are not run here; the
dataset card says so.
"""

from collections.abc import Mapping
from typing import ClassVar

from curate.config import Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.pipelines.clusters import fit_clusters
from curate.pipelines.copies import CurationConfig, deduplicate_pool, draw_map, write_shards
from curate.pipelines.hierarchical import RENAMED, Junk, find_junk
from curate.pipelines.search import GroundTruth, find_pairs
from curate.pipelines.vectors import embed_pool
from curate.sources.vector_files import OwnEmbeddings
from curate.stages.clusters.assign import Assign
from curate.stages.clusters.fit_clusters import FitClusters
from curate.stages.images.embed import Embed
from curate.stages.images.vectors_from import VectorsFrom
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.find_truth import FindTruth
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.rank_neighbors import RankNeighbors
from curate.stages.search.sample_queries import SampleQueries
from curate.stages.selection.describe import DescribeSet
from curate.stages.selection.group_by_image import GroupByImage
from curate.stages.selection.match_queries import MatchQueries
from curate.stages.selection.retrieve import Retrieve

REFILL_DEPTH = 8
"""Candidates per image that sample-based retrieval needs where collisions are refilled."""


class Retrieval(Settings):
    """How pool images that resemble the curated sets are found."""

    embed: VectorsFrom
    """A self-supervised backbone; the paper has a ViT-H/16 trained on ImageNet-22k."""
    clusters: FitClusters = FitClusters()
    """How the pool that is left is clustered by k-means."""
    fit_lists: FitLists = FitLists(stored=("pool",))
    """How the coarse centroids for the search of nearest neighbors are fitted."""
    retrieve: Retrieve = Retrieve()
    """Sample-based and cluster-based retrieval."""


class Lvd142m(CurationConfig):
    """The config of `recipe: lvd142m`."""

    renamed: ClassVar[Mapping[str, str]] = RENAMED

    retrieval: Retrieval
    """How images that resemble the curated sets are found."""
    junk: Junk | None = Junk()
    """How junk is kept out where clusters are balanced (`select.balance`); null: nothing is kept out."""
    describe: DescribeSet = DescribeSet()
    """How the selection itself is measured."""

    @property
    def backbone(self) -> Embed | OwnEmbeddings:
        return self.retrieval.embed


def lvd142m(p: Pipeline, cfg: Lvd142m) -> None:
    """Deduplicate, drop what touches benchmarks, retrieve from curated sets, rebalance, write."""
    curate_pool(p, cfg)


def curate_pool(p: Pipeline, cfg: Lvd142m) -> Ref | None:
    """Declare the steps from the sources to the shards, which it returns; None: `write` is null."""
    if not cfg.sources.curated:
        raise cfg.field_error(
            "sources.curated",
            f": recipe {cfg.recipe} retrieves from curated images and none are given; set sources.curated=DIR, or use "
            "configs/hierarchical.yaml, which needs none",
        )
    # 1. Catalog, checks, near-duplicates within the pool (appendix A: self-deduplication) and of held-out
    #    benchmarks (relative deduplication: whole components go).
    pool = deduplicate_pool(p, cfg)
    catalog, images, duplicates = pool.catalog, pool.images, pool.duplicates

    # 2. The survivors and the curated images, embedded by a self-supervised ViT.
    given = {"catalog": catalog, "images": images, "duplicates": duplicates}
    vectors = embed_pool(p, "embeddings/retrieval", cfg.retrieval.embed, **given)

    # 3. Retrieval: k nearest for large curated sets, clusters hit more than 3 times for small ones.
    fitted = cfg.retrieval.clusters
    centroids = fit_clusters(p, fitted, embeddings=vectors, catalog=catalog)
    assign = Assign(spherical=fitted.spherical, device=fitted.device)
    leaves = p.add("assignments", assign, embeddings=vectors, centroids=centroids)
    by_cluster_alone = cfg.retrieval.retrieve.route == "cluster"
    near = None if by_cluster_alone else _nearest_to_curated(p, cfg.retrieval, catalog, vectors)
    found = p.add("internal/retrieved", cfg.retrieval.retrieve, catalog=catalog, nearest=near, assignments=leaves)

    # Not in the paper: a balanced draw must not take from clusters of junk.
    looked_for = cfg.junk if cfg.select.balance is not None else None
    junk = find_junk(p, looked_for, catalog=catalog, embeddings=vectors, assignments=leaves)

    # 4. The union with the curated sets as they are, rebalanced over the clusters, as shuffled shards.
    clustered = {"assignments": leaves, "centroids": centroids, "junk": junk}
    chosen = p.add("selection", cfg.select, **pool.selectable, retrieved=found, **clustered)
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
    return None if cfg.write is None else write_shards(p, cfg.write, images=images, blurs=pool.blurs, **given)


def _nearest_to_curated(p: Pipeline, cfg: Retrieval, catalog: Ref, vectors: Ref) -> Ref:
    """The pool images nearest to each curated one, through inverted lists of the pool."""
    sample = cfg.retrieve.sample
    depth = sample.largest_k * (REFILL_DEPTH if sample.refill else 1)
    pairs = find_pairs(
        p,
        "retrieval",
        fit=cfg.fit_lists,
        build=BuildLists(stored=("pool",), queries=("curated",)),
        find=FindNeighbors(
            threshold=-1, heldout_threshold=-1, max_neighbors=depth, queries=("curated",), answers=("pool",)
        ),
        measured_by=GroundTruth(
            SampleQueries(queries=("curated",)), FindTruth(threshold=-1, max_neighbors=depth, answers=("pool",))
        ),
        catalog=catalog,
        embeddings=vectors,
    )
    near = p.add("internal/nearest/ranked", RankNeighbors(k=depth), neighbors=pairs, catalog=catalog)
    if sample.refill:
        near = p.add("internal/nearest/matched", MatchQueries(sample=sample), nearest=near, catalog=catalog)
    return p.add("internal/nearest/by_image", GroupByImage(), nearest=near, catalog=catalog)
