"""Screening: what must not be in a result at all, by scores of the images and rules on them.

Scores cost passes over pictures and networks; rules cost nothing. See `stages/screening/screen.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from curate.config import Execution, Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.stages.images.pictures import PictureStage
from curate.stages.screening.read_columns import ReadColumns
from curate.stages.screening.read_origin import ReadOrigin
from curate.stages.screening.rules import Drop, where_names
from curate.stages.screening.scoring import SCORES, PictureScores
from curate.stages.screening.screen import FACTS, MEASURED, NAMED, Screen


class Screening(Settings):
    """What is measured of the images, and which of them are rejected for it."""

    drop: dict[str, Drop] = Field(default_factory=dict)
    """By score: which images of the pool are rejected: bounds such as {above: 0.8}, `preset` for those that belong to
    the score, or true for a score that is true or false."""
    where: str | None = None
    """What an image of the pool must be, as in SQL: `width >= 256 and license in ('cc0', 'by') and blur < 0.8`. It may
    name facts (source, key, uri, width, height, format, num_bytes, pdq_quality, luma_std, smoothness), scores and the
    sources' own columns. An image of which it is null is rejected."""
    opt_outs: Literal["honor", "note"] | None = "honor"
    """Pictures whose owners reserve the use for training: by headers of their server (`X-Robots-Tag: noai`,
    `TDM-Reservation`), columns of a list, or metadata in the file. honor: they are rejected, with the reason
    `opted_out`; note: the column `opted_out` says what was found; null: nobody looks."""
    c2pa: bool = False
    """Whether Content Credentials (C2PA) in the pictures are read: who made them, how, and whether they may be trained
    on; needs the package c2pa-python (extra c2pa)."""
    show_sensitive: Annotated[bool, Execution()] = False
    """Whether the report shows what sensitive scores find as it is; false: blurred."""

    @model_validator(mode="after")
    def _readable_where(self) -> Self:
        if self.where is not None:
            try:
                where_names(self.where)
            except ValueError as error:
                raise ValueError(f"where: {error}") from None
        return self

    def picture_stages(self) -> dict[str, PictureStage]:
        """By table: what the pass that decodes images makes beside facts and copy embeddings."""
        stages: dict[str, PictureStage] = {}
        if self.opt_outs is not None or self.c2pa:
            stages[f"{SCORES}origin"] = ReadOrigin(c2pa=self.c2pa)
        return stages

    def score_names(self) -> tuple[str, ...]:
        """Names of the scores, of which the sources' own columns are told apart; asked without weights at hand."""
        scoring = (stage for stage in self.picture_stages().values() if isinstance(stage, PictureScores))
        return tuple(name for stage in scoring for name in stage.score_names())


def score_pool(p: Pipeline, cfg: Screening, *, catalog: Ref, images: Ref, exact: Ref, made: Mapping[str, Ref]) -> Ref:
    """All scores side by side, and what the rules reject.

    Args:
        exact: pairs of images of equal bytes.
        made: the tables of the pass, by name: those of `cfg.picture_stages` and embeddings.
    """
    scores = [ref for name, ref in made.items() if name.startswith(SCORES)]
    honor, shown = cfg.opt_outs == "honor", cfg.show_sensitive
    screen = Screen(drop=cfg.drop, opt_outs=honor, where=cfg.where, show_sensitive=shown).placed_as(cfg)
    names = set() if cfg.where is None else set(where_names(cfg.where))
    own = tuple(sorted(names - FACTS.keys() - set(cfg.score_names())))
    columns = p.add("internal/columns", ReadColumns(names=own), catalog=catalog, images=images) if own else None
    return p.add(
        "scores",
        screen,
        catalog=catalog,
        images=images,
        scores=scores or None,
        named=catalog if names & set(NAMED) else None,
        measured=images if names & set(MEASURED) else None,
        columns=[columns] if columns else None,
    )
