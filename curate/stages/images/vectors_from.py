"""Where vectors come from: a model, or files that somebody has made already."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from curate.sources.vector_files import OwnEmbeddings
from curate.stages.images.embed import Embed


def _kind(value: Any) -> str:
    own = isinstance(value, OwnEmbeddings) or (isinstance(value, dict) and "table" in value)
    return "own" if own else "model"


VectorsFrom = Annotated[Annotated[Embed, Tag("model")] | Annotated[OwnEmbeddings, Tag("own")], Discriminator(_kind)]
"""{model: ...}: what embeds the images; {table: ...}: vectors that are there."""
