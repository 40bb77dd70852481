"""What makes two starts of a training the same run, and what a resumed one takes over from its checkpoints.

A checkpoint stores the settings that change results, the precision, a fingerprint of the shards and digests of the
weights that the run started from. A start that finds a checkpoint must bring the same; settings that change speed
alone and the places of folders may differ.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from curate.config import Settings, differences, identity
from curate.errors import WorkdirError
from curate.locking import LOCK
from curate.models.device import Precision, resolve_precision
from curate.text import shortened
from curate.trainer.checkpoint import list_checkpoints, read_metadata
from curate.trainer.config import TrainConfig
from curate.trainer.effective import Effective
from curate.trainer.initial import origins

PLACES = ("shards", "output")
"""Settings that say where things lie: a run goes on after they moved."""
SCHEDULING = frozenset({"iterations", "phases"})
"""Settings of what is still to come; they may change as long as they change nothing that is done."""
LONGEST = 200
"""Characters of a value that an error shows."""
GRAM_FILE = re.compile(r"origins\.phases\.\d+\.gram\.teacher")
"""Names of the digests of Gram teachers that come from files."""
FUTURE = SCHEDULING | {"log_every", "evaluate_every"}
"""Settings that a resumed run may change."""


def refuse_foreign_files(folder: Path) -> None:
    """Leave a folder alone that holds files and was never locked by a training.

    Raises:
        WorkdirError: it is such a folder.
    """
    if folder.is_dir() and not (folder / LOCK).exists() and any(folder.iterdir()):
        raise WorkdirError(f"output={folder}: not empty, and no training of curate; give an empty or new folder")


def run_identity(
    config: TrainConfig, *, precision: Precision, shards: str, classes: Mapping[str, Sequence[Any]] | None = None
) -> dict[str, Any]:
    """The JSON-ready values that two starts must share to be one run.

    Args:
        shards: the fingerprint of the data.
        classes: the values of each guide's column, which are the outputs of its head.
    """
    settings = {name: value for name, value in identity(config).items() if name not in PLACES}
    settings |= {"classes": {column: list(values) for column, values in classes.items()}} if classes else {}
    return settings | {"precision": precision, "shards": shards, "origins": origins(config)}


def check_identity(
    checkpoint: Path, wanted: Mapping[str, Any], config: TrainConfig, *, step: int, past: Mapping[str, Any]
) -> list[str]:
    """Compare what a checkpoint stores with `wanted`, as `run_identity` gives it of `config`.

    Settings of what is still to come may have changed (`FUTURE`), if the `step` iterations that are done do not depend
    on the change.

    Args:
        past: what those iterations depend on by the settings of now, as `Timeline.past` gives it.

    Returns:
        The settings that have changed, for people: `iterations was 1000, now 1500`.

    Raises:
        WorkdirError: they differ, or the checkpoint is damaged; every differing value is named.
    """
    stored = _filled(_stored_identity(checkpoint), _defaults(config))
    found = {name: (old, new) for name, old, new in differences(stored, _plain(wanted)) if not _comes(name, old, new)}
    changed = [f"{name} was {_told(old)}, now {_told(new)}" for name, (old, new) in found.items()]
    advice = ""
    if found.keys() <= FUTURE:
        moved = _moved(checkpoint, past) if found.keys() & SCHEDULING else []
        if not moved and config.iterations >= step:
            return changed
        changed += [f"the {step} iterations done would have had another {', '.join(moved)}"] if moved else []
        changed += [f"{step} iterations are done"] if config.iterations < step else []
        advice = "; a run can be made longer with optimizer.schedule=constant and ema.end=constant" if moved else ""
    if changed:
        raise WorkdirError(
            f"checkpoint {checkpoint} belongs to another run: {'; '.join(changed)}; set them back, remove "
            f"{checkpoint.parents[1]} to start anew, or set another output=FOLDER{advice}"
        )
    return []


def keep_begun(config: TrainConfig, effective: Effective) -> Effective:
    """The numbers to go on with: what `auto` became when the run began stays, also when the run was made longer."""
    found = list_checkpoints(Path(config.output) / "checkpoints")
    begun = read_metadata(found[-1][1]).get("effective") if found else None
    if not isinstance(begun, dict):
        return effective
    optimizer, objective = config.optimizer, config.objective
    asked = {
        "warmup_iterations": optimizer.warmup_iterations,
        "freeze_last_layer_iterations": optimizer.freeze_last_layer_iterations,
        "teacher_momentum": objective.teacher_momentum,
        "teacher_temperature_iterations": getattr(objective, "teacher_temperature_iterations", None),
    }
    return effective.model_copy(update={n: begun[n] for n, given in asked.items() if given == "auto" and n in begun})


def settle_precision(config: TrainConfig, device: torch.device) -> Precision:
    """The precision of a run: `auto` is measured when it begins, and a resumed run keeps what it began with."""
    found = list_checkpoints(Path(config.output) / "checkpoints")
    if config.precision == "auto" and found:
        begun: Precision = _stored_identity(found[-1][1])["precision"]
        return begun
    return resolve_precision(config.precision, device)


def _stored_identity(checkpoint: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads(read_metadata(checkpoint)["identity"])
        stored["precision"]
    except (KeyError, TypeError, ValueError) as error:
        raise WorkdirError(
            f"checkpoint {checkpoint}: does not say which run it belongs to; remove it, and the run goes on from the "
            "one before it"
        ) from error
    return stored


def _comes(name: str, old: object, new: object) -> bool:
    """Whether a difference is that phases name a Gram teacher's file now, or no longer; the phases tell whether the
    iterations done have used it. One file in another's place is no such change."""
    return GRAM_FILE.fullmatch(name) is not None and None in (old, new)


def _told(value: object) -> str:
    return shortened(str(value), LONGEST)


def _plain(values: Mapping[str, Any]) -> Any:
    """As a checkpoint stores it: lists for tuples."""
    return json.loads(json.dumps(values))


def _moved(checkpoint: Path, past: Mapping[str, Any]) -> list[str]:
    """Names of what the iterations done would not depend on in the same way."""
    before = read_metadata(checkpoint).get("past")
    return [name for name, _, _ in differences(before if isinstance(before, dict) else {}, _plain(past))]


def _defaults(settings: Settings) -> dict[str, Any]:
    """The defaults of all fields of settings, and of those in them, that change results."""
    found: dict[str, Any] = {}
    for name in identity(settings):
        value, field = getattr(settings, name), type(settings).model_fields[name]
        if isinstance(value, Settings):
            found[name] = _defaults(value)
        elif not field.is_required():
            found[name] = field.get_default(call_default_factory=True)
    return found


def _filled(stored: dict[str, Any], defaults: Mapping[str, Any]) -> Any:
    """What a checkpoint stores, and the defaults of settings that it does not know yet: by them, trainings of earlier
    versions went on as before."""
    filled = dict(stored)
    for name, value in defaults.items():
        within = filled.setdefault(name, {} if isinstance(value, dict) else _plain({name: value})[name])
        if isinstance(value, dict) and isinstance(within, dict):
            filled[name] = _filled(within, value)
    return filled
