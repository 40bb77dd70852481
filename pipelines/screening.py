"""Screening: what must not be in a result at all, by scores of the images and rules on them.

Scores cost passes over pictures and networks; rules cost nothing. See `stages/screening/screen.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from curate.config import Execution
from curate.engine.pipeline import Pipeline, Ref
from curate.pipelines.picture_scores import ScoresOfPictures
from curate.pipelines.table_scores import KnownEmbeddings, TableScores, score_tables
from curate.stages.screening.read_columns import ReadColumns
from curate.stages.screening.rules import Drop, where_names
from curate.stages.screening.scoring import SCORES
from curate.stages.screening.screen import FACTS, MEASURED, NAMED, Screen


class Screening(TableScores, ScoresOfPictures):
    """What is measured of the images, and which of them are rejected for it."""

    drop: dict[str, Drop] = Field(default_factory=dict)
    """By score: which images of the pool are rejected: bounds such as {above: 0.8}, `preset` for those that belong to
    the score, or true for a score that is true or false."""
    where: str | None = None
    """What an image of the pool must be, as in SQL: `width >= 256 and license in ('cc0', 'by') and blur < 0.8`. It may
    name facts (source, key, uri, width, height, format, num_bytes, pdq_quality, luma_std, smoothness), scores and the
    sources' own columns. An image of which it is null is rejected."""
    show_sensitive: Annotated[bool, Execution()] = False
    """Whether the report shows what sensitive scores find as it is; false: blurred."""

    @model_validator(mode="after")
    def _one_rule_each(self) -> Self:
        twice = next((name for name in self.example_rules() if name in self.drop), None)
        if twice is not None:
            raise ValueError(f"drop.{twice}: the rule of these examples is their `above`; leave this one out")
        return self

    @field_validator("where")
    @classmethod
    def _readable(cls, where: str | None) -> str | None:
        if where is not None:
            where_names(where)
        return where

    def score_names(self) -> tuple[str, ...]:
        """Names of the scores, of which the sources' own columns are told apart; asked without weights at hand."""
        return (*self.picture_score_names(), *self.table_score_names())


def score_pool(
    p: Pipeline,
    cfg: Screening,
    known: KnownEmbeddings,
    *,
    catalog: Ref,
    images: Ref,
    made: Mapping[str, Ref],
) -> Ref:
    """All scores side by side, and what the rules reject.

    Args:
        made: the tables of the pass, by name: those of `cfg.picture_stages` and embeddings.
    """
    scores = [ref for name, ref in made.items() if name.startswith(SCORES)]
    scores += score_tables(p, cfg, known, catalog=catalog, images=images, made=made)
    rules = {"lists": cfg.list_rules(), "drop": {**cfg.example_rules(), **cfg.drop}, "where": cfg.where}
    honored = cfg.opt_outs == "honor"
    screen = Screen(**rules, opt_outs=honored, show_sensitive=cfg.show_sensitive).placed_as(cfg)
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
