"""What makes two starts of a training the same run, and what a resumed one takes over from its checkpoints.

A checkpoint stores the settings that change results, the precision, a fingerprint of the shards and digests of the
weights that the run started from. A start that finds a checkpoint must bring the same; settings that change speed
alone and the places of folders may differ.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from curate.config import differences, identity
from curate.errors import WorkdirError
from curate.locking import LOCK
from curate.models.device import Precision, resolve_precision
from curate.trainer.checkpoint import list_checkpoints, read_metadata
from curate.trainer.config import TrainConfig
from curate.trainer.initial import origins

PLACES = ("shards", "output")
"""Settings that say where things lie: a run goes on after they moved."""


def refuse_foreign_files(folder: Path) -> None:
    """Leave a folder alone that holds files and was never locked by a training.

    Raises:
        WorkdirError: it is such a folder.
    """
    if folder.is_dir() and not (folder / LOCK).exists() and any(folder.iterdir()):
        raise WorkdirError(f"output={folder}: not empty, and no training of curate; give an empty or new folder")


def run_identity(config: TrainConfig, *, precision: Precision, shards: str) -> dict[str, Any]:
    """The JSON-ready values that two starts must share to be one run; `shards` is the fingerprint of the data."""
    settings = {name: value for name, value in identity(config).items() if name not in PLACES}
    return settings | {"precision": precision, "shards": shards, "origins": origins(config)}


def check_identity(checkpoint: Path, wanted: Mapping[str, Any]) -> None:
    """Compare what a checkpoint stores with `wanted`, as `run_identity` gives it.

    Raises:
        WorkdirError: they differ, or the checkpoint is damaged; every differing value is named.
    """
    plain = json.loads(json.dumps(wanted))  # as the stored ones: lists for tuples
    found = differences(_stored_identity(checkpoint), plain)
    changed = [f"{name} was {old}, now {new}" for name, old, new in found]
    if changed:
        raise WorkdirError(
            f"checkpoint {checkpoint} belongs to another run: {'; '.join(changed)}; set them back, remove "
            f"{checkpoint.parents[1]} to start anew, or set another output=FOLDER"
        )


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
    except (KeyError, TypeError, ValueError) as error:
        raise WorkdirError(
            f"checkpoint {checkpoint}: does not say which run it belongs to; remove it, and the run goes on from the "
            "one before it"
        ) from error
    return stored
