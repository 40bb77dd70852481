"""Screening: what must not be in a result at all, by scores of the images and rules on them.

Scores cost passes over pictures and networks; rules cost nothing. See `stages/screening/screen.py`.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Self

from pydantic import Field, model_validator

from curate.config import Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.sources.hash_lists import HashList
from curate.stages.images.pictures import PictureStage
from curate.stages.screening.hash_bytes import HashBytes
from curate.stages.screening.match_lists import MatchLists, needs_digests
from curate.stages.screening.rules import Drop, ListRule
from curate.stages.screening.scoring import SCORES
from curate.stages.screening.screen import Screen

DIGEST_TABLE = "internal/digests"
"""MD5 and SHA-1 of the images, where a list has such hashes."""


class Screening(Settings):
    """What is measured of the images, and which of them are rejected for it."""

    lists: tuple[HashList, ...] = ()
    """Files of hashes of pictures that must not be in a result; what they name is rejected as `listed`. Of several
    lists that name an image the first one counts."""
    drop: dict[str, Drop] = Field(default_factory=dict)
    """By score: which images of the pool are rejected: bounds such as {above: 0.8}, `preset` for those that belong to
    the score, or true for a score that is true or false."""

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        counts = Counter(one.name for one in self.lists)
        twice = next((name for name, number in counts.items() if number > 1), None)
        if twice is not None:
            raise ValueError(f"lists: {counts[twice]} are called {twice!r}; give each a name of its own")
        return self

    def picture_stages(self, recorded: Collection[str] | None = None) -> dict[str, PictureStage]:
        """By table: what the pass that decodes images makes beside facts and copy embeddings.

        Args:
            recorded: tables of the run that is looked at, whose lists may not be at hand; None: a run is declared.
        """
        hashed = needs_digests(self.lists) if recorded is None else DIGEST_TABLE in recorded
        return {DIGEST_TABLE: HashBytes()} if hashed else {}


def score_pool(p: Pipeline, cfg: Screening, *, catalog: Ref, images: Ref, exact: Ref, made: Mapping[str, Ref]) -> Ref:
    """All scores side by side, and what the rules reject.

    Args:
        exact: pairs of images of equal bytes.
        made: the tables of the pass, by name: those of `cfg.picture_stages` and embeddings.
    """
    scores = [ref for name, ref in made.items() if name.startswith(SCORES)]
    if cfg.lists:
        scores.append(
            p.add("internal/scores/listed", MatchLists(lists=cfg.lists), images=images, digests=made.get(DIGEST_TABLE))
        )
    rules = tuple(ListRule(name=one.name, with_copies=one.with_copies) for one in cfg.lists)
    screen = Screen(lists=rules, drop=cfg.drop).placed_as(cfg)
    return p.add("scores", screen, catalog=catalog, images=images, scores=scores or None)
