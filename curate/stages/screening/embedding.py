"""Which embeddings a score is made from: some that a run has anyway, or those of a model of its own."""

import re
from typing import ClassVar, Literal

from curate.config import digest, identity
from curate.sources.vector_files import OwnEmbeddings
from curate.stages.images.embed import Embed
from curate.stages.images.vectors_from import VectorsFrom

Embedding = Literal["copy", "ssl"] | VectorsFrom
"""copy: those of copy detection; ssl: the recipe's own; or a model, or vectors that are there."""


class EmbedForScores(Embed):
    """Embeds every image that is not rejected, in the pass that decodes them. Such tables come and go with scores."""

    stands_alone: ClassVar[bool] = True

    @classmethod
    def of(cls, embed: Embed) -> "EmbedForScores":
        """The same settings."""
        found = cls.model_construct(**{name: getattr(embed, name) for name in type(embed).model_fields})
        return found.placed_as(embed)

    def table(self) -> str:
        """Where its vectors lie: by the model and a digest of the settings, so that other scores move none."""
        return table_of(self)


def table_of(vectors: Embed | OwnEmbeddings) -> str:
    """The table of vectors that are there for scores alone."""
    model = re.sub(r"[^A-Za-z0-9.]+", "-", vectors.model.rpartition("/")[2]).strip("-.")
    return f"internal/embeddings/{model}-{digest(identity(vectors))[:8]}"
