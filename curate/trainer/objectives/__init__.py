"""The objectives, one file each; adding one is a file and a line of each of the two tables here."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field

from curate.models.nets.trained import Trained
from curate.trainer.objective import Objective, ObjectiveSettings
from curate.trainer.objectives import dino, dinov2, esvit, sit
from curate.trainer.objectives.dino import DinoSettings
from curate.trainer.objectives.dinov2 import DinoV2Settings
from curate.trainer.objectives.esvit import EsVitSettings
from curate.trainer.objectives.sit import SitSettings
from curate.trainer.parallel import World


def _with_kind(value: Any) -> Any:
    """`objective: dino` is `objective: {kind: dino}`, and without a kind it is dinov2."""
    if isinstance(value, str):
        return {"kind": value}
    return {"kind": "dinov2", **value} if isinstance(value, Mapping) else value


AnyObjective = Annotated[
    DinoV2Settings | DinoSettings | EsVitSettings | SitSettings,
    Field(discriminator="kind"),
    BeforeValidator(_with_kind),
]
"""Settings of any objective, told apart by `kind`."""

BUILDERS: Mapping[str, Callable[..., Objective]] = {
    "dinov2": dinov2.build,
    "dino": dino.build,
    "esvit": esvit.build,
    "sit": sit.build,
}
"""By `kind`: (settings, backbone, *, prototypes, world, generator) -> the objective with fresh heads."""


def make_objective(
    settings: ObjectiveSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> Objective:
    """The objective around `backbone`, its heads drawn from `generator`."""
    kind: str = settings.kind  # type: ignore[attr-defined]  # every member of the union has one
    return BUILDERS[kind](settings, backbone, prototypes=prototypes, world=world, generator=generator)
