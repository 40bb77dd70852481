"""Semantic deduplication: of images that a backbone finds alike, one stays (SemDeDup).

Abbas et al. 2023, arXiv:2303.09540.
"""

from typing import Literal

from curate.engine.pipeline import Pipeline
from curate.pipelines.clusters import fit_clusters
from curate.pipelines.copies import CurationConfig, deduplicate_pool, draw_map, write_shards
from curate.pipelines.vectors import embed_pool
from curate.sources.vector_files import OwnEmbeddings
from curate.stages.clusters.fit_clusters import FitClusters
from curate.stages.copies.drop_similar import DropSimilar
from curate.stages.copies.rank_within import RankWithin
from curate.stages.images.embed import Embed
from curate.stages.images.vectors_from import VectorsFrom
from curate.stages.search.build_lists import BuildLists
from curate.stages.selection.describe import DescribeSet


class Clusters(FitClusters):
    """One level of clusters: images are compared within them."""

    levels: tuple[int] | Literal["auto_flat"] = "auto_flat"
    """Number of clusters, as a list of one number; auto_flat: one cluster for 20 images. The paper: 50,000 for 440 M
    images."""


class Semdedup(CurationConfig):
    """The config of `recipe: semdedup`."""

    embed: VectorsFrom
    """The backbone that says which images are alike."""
    clusters: Clusters = Clusters()
    """How the images are clustered that are compared with each other."""
    rank: RankWithin = RankWithin()
    """Which of several similar images is preferred."""
    drop: DropSimilar = DropSimilar()
    """How similar is too similar."""
    describe: DescribeSet = DescribeSet()
    """How the selection itself is measured."""

    @property
    def backbone(self) -> Embed | OwnEmbeddings:
        return self.embed


def semdedup(p: Pipeline, cfg: Semdedup) -> None:
    """Deduplicate, cluster the survivors, drop those alike within a cluster, write."""
    pool = deduplicate_pool(p, cfg)
    catalog, images, duplicates = pool.catalog, pool.images, pool.duplicates

    given = {"catalog": catalog, "images": images, "duplicates": duplicates}
    vectors = embed_pool(p, "embeddings/clusters", cfg.embed, **given)
    centroids = fit_clusters(p, cfg.clusters, embeddings=vectors, catalog=catalog)
    build = BuildLists(stored=("pool",), queries=(), num_probes=1)
    lists = p.add("internal/lists/clusters", build, embeddings=vectors, centroids=centroids, catalog=catalog)
    ranked = p.add("internal/semdedup/ranked", cfg.rank, lists=lists, centroids=centroids)
    judged = p.add(
        "internal/semdedup/verdicts",
        cfg.drop,
        ranked=ranked,
        duplicates=duplicates,
        catalog=catalog,
        decided=pool.decided,
    )

    chosen = p.add("selection", cfg.select, **pool._replace(duplicates=judged).selectable)
    given = {"selection": chosen, "catalog": catalog}
    p.add(
        "internal/figures",
        cfg.describe,
        embeddings=vectors,
        neighbors=pool.neighbors,
        duplicates=duplicates,
        **given,
    )
    draw_map(p, cfg.map, pool, embeddings=vectors, selection=chosen)
    if cfg.write is not None:
        write_shards(p, cfg.write, images=images, blurs=pool.blurs, **given)
