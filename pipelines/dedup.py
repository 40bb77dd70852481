"""The quick job on any folder: inspect, embed, remove near-duplicates, write what is left."""

from typing import NamedTuple

from curate.config import Settings
from curate.pipeline import Pipeline, Ref
from curate.recipe import RecipeConfig, recipe
from curate.stages.catalog import Catalog
from curate.stages.deduplicate import Deduplicate
from curate.stages.embed import Embed
from curate.stages.inspect import Inspect
from curate.stages.lists import BuildLists, FitLists
from curate.stages.neighbors import FindNeighbors
from curate.stages.read_images import read_images
from curate.stages.select import Select
from curate.stages.write_shards import WriteShards


class Copies(Settings):
    """How copies are found: a copy-detection embedding, and PDQ hashes beside it."""

    embed: Embed
    """The copy-detection model; `lite0-copy` comes with PyPI alone, `sscd` is the paper's."""
    fit_lists: FitLists = FitLists()
    """Coarse centroids of the inverted lists."""
    build_lists: BuildLists = BuildLists()
    """Which lists a vector goes to."""
    neighbors: FindNeighbors = FindNeighbors()
    """Thresholds of the embedding; by default those known for its model."""
    hashes: bool = True
    """Also join by PDQ hashes of the image and its mirrored and turned copies."""
    hash_neighbors: FindNeighbors = FindNeighbors()
    """Thresholds of the hashes: 1 - 2 * Hamming / 256."""


class Dedup(RecipeConfig):
    """Fields of `recipe: dedup`."""

    rows_per_part: int = 65_536
    """Images of a part: the unit of work and of resume."""
    inspect: Inspect = Inspect()
    """What is rejected."""
    copies: Copies
    """How copies are found."""
    select: Select = Select()
    """What is kept: by default every image without a kept copy."""
    write: WriteShards = WriteShards()
    """The shards."""


class Deduplicated(NamedTuple):
    """Tables that every recipe starts from."""

    catalog: Ref
    images: Ref
    neighbors: list[Ref]
    duplicates: Ref


@recipe("dedup", Dedup)
def dedup(p: Pipeline, cfg: Dedup) -> None:
    """Inspect, embed, deduplicate, select all that is kept, write shards."""
    pool = find_copies(p, cfg, cfg.copies, inspect=cfg.inspect, rows_per_part=cfg.rows_per_part)
    chosen = p.add(
        "selection",
        cfg.select,
        catalog=pool.catalog,
        images=pool.images,
        duplicates=pool.duplicates,
        neighbors=pool.neighbors,
    )
    p.add("shards/data", cfg.write, selection=chosen, catalog=pool.catalog, images=pool.images)


def find_copies(
    p: Pipeline, cfg: RecipeConfig, copies: Copies, *, inspect: Inspect, rows_per_part: int
) -> Deduplicated:
    """List, read every image once, and judge copies within the pool and of held-out images."""
    catalog = p.add("catalog", Catalog(sources=cfg.sources, rows_per_part=rows_per_part))
    images, vectors = p.add_pass(read_images, {"images": inspect, "embeddings/copy": copies.embed}, catalog=catalog)

    centres = p.add("centroids/copy", copies.fit_lists, embeddings=vectors, catalog=catalog)
    lists = p.add("lists/copy", copies.build_lists, embeddings=vectors, centroids=centres, catalog=catalog)
    pairs = [p.add("neighbors/copy", copies.neighbors, lists=lists, catalog=catalog)]
    if copies.hashes:
        centres = p.add("centroids/pdq", copies.fit_lists, hashes=images, catalog=catalog)
        lists = p.add("lists/pdq", copies.build_lists, hashes=images, centroids=centres, catalog=catalog)
        pairs.append(p.add("neighbors/pdq", copies.hash_neighbors, lists=lists, catalog=catalog))

    duplicates = p.add("duplicates", Deduplicate(), catalog=catalog, images=images, neighbors=pairs)
    return Deduplicated(catalog, images, pairs, duplicates)
