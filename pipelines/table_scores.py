"""Scores that are made from tables: lists of hashes, heads on embeddings, and likeness to examples."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple, Self

from pydantic import model_validator

from curate.config import Settings, identity
from curate.engine.pipeline import Pipeline, Ref
from curate.errors import ConfigError
from curate.pipelines.vectors import embed_pool
from curate.sources.hash_lists import HashList
from curate.sources.vector_files import OwnEmbeddings
from curate.stages.images.embed import Embed
from curate.stages.images.pictures import PictureStage
from curate.stages.screening.compare_examples import CompareExamples, Examples
from curate.stages.screening.embed_examples import EmbedExamples
from curate.stages.screening.embedding import Embedding, EmbedForScores, table_of
from curate.stages.screening.hash_bytes import HashBytes
from curate.stages.screening.match_lists import MatchLists, needs_digests
from curate.stages.screening.rules import Bounds, Drop, ListRule
from curate.stages.screening.score_head import ScoreHead
from curate.stages.screening.scoring import SCORES

DIGEST_TABLE = "internal/digests"
"""MD5 and SHA-1 of the images, where a list has such hashes."""
COPY_TABLE = "embeddings/copy"
"""Embeddings of copy detection."""


class KnownEmbeddings(NamedTuple):
    """The backbones of a recipe, which scores may use."""

    copy: Embed
    """That of copy detection, whose vectors lie in `embeddings/copy`."""
    ssl: Embed | OwnEmbeddings | None
    """The recipe's own; None: it has none."""
    decode_side: int
    """Pixels of the short side at which pictures are decoded."""

    def place(self, vectors: Embedding) -> tuple[str, Embed | OwnEmbeddings]:
        """The table with these embeddings, and what they come from.

        Raises:
            ConfigError: the recipe has no such backbone.
        """
        if vectors == "ssl" and self.ssl is None:
            raise ConfigError("screen: embed=ssl: this recipe has no backbone of its own; set embed={model: MODEL}")
        wanted = self.copy if vectors == "copy" else self.ssl if vectors == "ssl" else vectors
        if isinstance(wanted, OwnEmbeddings):
            return table_of(wanted), wanted
        assert isinstance(wanted, Embed)
        if identity(wanted) == identity(self.copy) and wanted.weights in (None, self.copy.weights):
            return COPY_TABLE, self.copy
        made = EmbedForScores.of(wanted)
        return table_of(made), made


class TableScores(Settings):
    """Lists, heads and examples."""

    lists: tuple[HashList, ...] = ()
    """Files of hashes of pictures that must not be in a result; what they name is rejected as `listed`. Of several
    lists that name an image the first one counts."""
    heads: tuple[ScoreHead, ...] = ()
    """Scores of small heads on embeddings, such as aesthetic quality and safety on those of CLIP ViT-L/14."""
    unlike: tuple[Examples, ...] = ()
    """Folders of example pictures: what looks like one of them is rejected."""
    like: tuple[Examples, ...] = ()
    """Folders of example pictures: what does not look like one of them is rejected."""

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        scored = [*(head.name for head in self.heads), *(one.name for one in (*self.unlike, *self.like))]
        for where, names in (("lists", [one.name for one in self.lists]), ("heads, unlike and like", scored)):
            counts = Counter(names)
            twice = next((name for name, number in counts.items() if number > 1), None)
            if twice is not None:
                raise ValueError(f"{where}: {counts[twice]} are called {twice!r}; give each a name of its own")
        return self

    def example_rules(self) -> dict[str, Drop]:
        """By score: which images examples reject."""
        unlike = {one.name: Bounds(above=one.above, with_copies=one.with_copies) for one in self.unlike}
        like = {one.name: Bounds(below=one.above, with_copies=one.with_copies) for one in self.like}
        return {**unlike, **like}

    def list_rules(self) -> tuple[ListRule, ...]:
        """What is done with the images of each list."""
        return tuple(ListRule(name=one.name, with_copies=one.with_copies) for one in self.lists)

    def table_score_names(self) -> tuple[str, ...]:
        """Names of these scores; asked without files at hand."""
        listed = MatchLists().score_names() if self.lists else ()
        return (*listed, *(head.name for head in self.heads), *(one.name for one in (*self.unlike, *self.like)))

    def needed_of_pictures(
        self, known: KnownEmbeddings, recorded: Collection[str] | None = None
    ) -> dict[str, PictureStage]:
        """By table: what the pass that decodes images has to make for these scores.

        Args:
            recorded: tables of the run that is looked at, whose lists may not be at hand; None: a run is declared.
        """
        hashed = needs_digests(self.lists) if recorded is None else DIGEST_TABLE in recorded
        stages: dict[str, PictureStage] = {DIGEST_TABLE: HashBytes()} if hashed else {}
        wanted = [*(head.embed for head in self.heads), *(one.embed for one in (*self.unlike, *self.like))]
        for table, embed in map(known.place, wanted):
            stages |= {table: embed} if isinstance(embed, EmbedForScores) else {}
        return stages


def score_tables(
    p: Pipeline, cfg: TableScores, known: KnownEmbeddings, *, catalog: Ref, images: Ref, made: Mapping[str, Ref]
) -> list[Ref]:
    """The tables of these scores.

    Args:
        made: the tables of the pass, by name: those of `cfg.needed_of_pictures` and embeddings.
    """
    scores = []
    if cfg.lists:
        matched = MatchLists(lists=cfg.lists)
        scores.append(p.add(f"{SCORES}listed", matched, images=images, digests=made.get(DIGEST_TABLE)))
    found = {**made, **_own(p, cfg, known, catalog=catalog, images=images)}
    for head in cfg.heads:
        scores.append(p.add(f"{SCORES}{head.name}", head, embeddings=found[known.place(head.embed)[0]]))
    return scores + [_compared(p, one, known, found) for one in (*cfg.unlike, *cfg.like)]


def _own(p: Pipeline, cfg: TableScores, known: KnownEmbeddings, *, catalog: Ref, images: Ref) -> dict[str, Ref]:
    """By table: embeddings made elsewhere that heads score."""
    places = dict(known.place(head.embed) for head in cfg.heads)
    own = {table: vectors for table, vectors in places.items() if isinstance(vectors, OwnEmbeddings)}
    return {
        table: embed_pool(p, table, vectors, catalog=catalog, images=images, duplicates=None)
        for table, vectors in own.items()
    }


def _compared(p: Pipeline, one: Examples, known: KnownEmbeddings, made: Mapping[str, Ref]) -> Ref:
    """How like some examples the images are."""
    table, embed = known.place(one.embed)
    if isinstance(embed, OwnEmbeddings):
        raise one.field_error("embed", ": nothing here can embed the examples as these vectors were; give a model")
    stage = EmbedExamples(source=one.source, embed=embed, decode_side=known.decode_side).placed_as(one)
    examples = p.add(f"internal/examples/{one.name}", stage)
    compare = CompareExamples(name=one.name)
    return p.add(f"{SCORES}{one.name}", compare, embeddings=made[table], examples=examples)
