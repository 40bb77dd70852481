"""The embeddings that a recipe works with: of a model, in a pass over the images, or made elsewhere."""

from curate.engine.pipeline import Pipeline, Ref
from curate.sources.vector_files import OwnEmbeddings
from curate.stages.images.embed import Embed
from curate.stages.images.match_vectors import GroupMatches, MatchVectors
from curate.stages.images.own_vectors import OwnVectors


def embed_pool(
    p: Pipeline, name: str, vectors: Embed | OwnEmbeddings, *, catalog: Ref, images: Ref, duplicates: Ref | None
) -> Ref:
    """The table `name` of the images that deduplication leaves and the curated ones; without it, of all."""
    if isinstance(vectors, Embed):
        (ref,) = p.add_pass({name: vectors}, catalog=catalog, images=images, duplicates=duplicates)
        return ref
    folder = f"internal/own/{name.rpartition('/')[2]}"
    matched = p.add(f"{folder}/matched", MatchVectors(own=vectors), catalog=catalog, images=images)
    grouped = p.add(f"{folder}/grouped", GroupMatches(own=vectors), matched=matched)
    given = {"catalog": catalog, "images": images, "duplicates": duplicates}
    return p.add(name, OwnVectors(own=vectors), grouped=grouped, matched=matched, **given)
