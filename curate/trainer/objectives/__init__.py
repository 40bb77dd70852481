"""The objectives: settings classes by name, whose `build` makes the networks and the loss. Importing this costs no
torch."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny
from pydantic_core import PydanticCustomError

from curate.errors import ConfigError
from curate.registry import resolve
from curate.trainer.objectives import feature_settings  # noqa: F401  the reference tells of every class that is known
from curate.trainer.objectives.settings import ObjectiveSettings

_SETTINGS = "curate.trainer.objectives.settings"
_FEATURES = "curate.trainer.objectives.feature_settings"
BUILT_IN: Mapping[str, str] = {
    "dinov2": f"{_SETTINGS}:DinoV2Settings",
    "dinov3": f"{_SETTINGS}:DinoV3Settings",
    "dino": f"{_SETTINGS}:DinoSettings",
    "esvit": f"{_SETTINGS}:EsVitSettings",
    "sit": f"{_SETTINGS}:SitSettings",
    "distill_features": f"{_FEATURES}:DistillFeaturesSettings",
    "lejepa": f"{_FEATURES}:LeJepaSettings",
    "diet": f"{_FEATURES}:DietSettings",
}
"""Settings class of each objective that comes with curate."""


def find_objective(name: str) -> type[ObjectiveSettings]:
    """The settings class of an objective: built in, an entry point of the group `curate.objectives`, or
    `module:class` or `./file.py:class`.

    Raises:
        ConfigError: there is none of that name, or it is something else.
    """
    found = resolve("objective", name, BUILT_IN, key="kind")
    if not (isinstance(found, type) and issubclass(found, ObjectiveSettings)):
        raise ConfigError(f"kind: {name!r} is {found!r}; a subclass of {_SETTINGS}.ObjectiveSettings is needed")
    return found


def _read_objective(value: Any) -> Any:
    """`objective: dino` is `objective: {kind: dino}`; without a kind it is dinov2. The kind may be given as `name`."""
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        return value
    given = dict(value)
    kind = given.pop("kind", None) or given.pop("name", "dinov2")
    try:
        settings = find_objective(str(kind))
    except ConfigError as error:
        raise PydanticCustomError("objective", "{reason}", {"reason": str(error)}) from error
    return settings.model_validate({"kind": kind, **given})


AnyObjective = Annotated[SerializeAsAny[ObjectiveSettings], BeforeValidator(_read_objective)]
"""Settings of any objective; its `kind` says which."""
