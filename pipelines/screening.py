"""Screening: what must not be in a result at all, by scores of the images and rules on them.

Scores cost passes over pictures and networks; rules cost nothing. See `stages/screening/screen.py`.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from curate.config import Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.stages.images.pictures import PictureStage
from curate.stages.screening.read_origin import ReadOrigin
from curate.stages.screening.rules import Drop
from curate.stages.screening.scoring import SCORES
from curate.stages.screening.screen import Screen


class Screening(Settings):
    """What is measured of the images, and which of them are rejected for it."""

    drop: dict[str, Drop] = Field(default_factory=dict)
    """By score: which images of the pool are rejected: bounds such as {above: 0.8}, `preset` for those that belong to
    the score, or true for a score that is true or false."""

    opt_outs: Literal["honor", "note"] | None = "honor"
    """Pictures whose owners reserve the use for training: by headers of their server (`X-Robots-Tag: noai`,
    `TDM-Reservation`), columns of a list, or metadata in the file. honor: they are rejected, with the reason
    `opted_out`; note: the column `opted_out` says what was found; null: nobody looks."""
    c2pa: bool = False
    """Whether Content Credentials (C2PA) in the pictures are read: who made them, how, and whether they may be trained
    on; needs the package c2pa-python (extra c2pa)."""

    def picture_stages(self) -> dict[str, PictureStage]:
        """By table: what the pass that decodes images makes beside facts and copy embeddings."""
        stages: dict[str, PictureStage] = {}
        if self.opt_outs is not None or self.c2pa:
            stages[f"{SCORES}origin"] = ReadOrigin(c2pa=self.c2pa)
        return stages


def score_pool(p: Pipeline, cfg: Screening, *, catalog: Ref, images: Ref, exact: Ref, made: Mapping[str, Ref]) -> Ref:
    """All scores side by side, and what the rules reject.

    Args:
        exact: pairs of images of equal bytes.
        made: the tables of the pass, by name: those of `cfg.picture_stages` and embeddings.
    """
    scores = [ref for name, ref in made.items() if name.startswith(SCORES)]
    screen = Screen(drop=cfg.drop, opt_outs=cfg.opt_outs == "honor").placed_as(cfg)
    return p.add("scores", screen, catalog=catalog, images=images, scores=scores or None)
