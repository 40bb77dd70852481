"""The files of weights that a run starts from. Importing this costs no torch."""

from pathlib import Path

from curate.models.files.digest import hash_file
from curate.models.files.header import BACKBONE
from curate.models.files.weights import find_weight_file
from curate.trainer.config import TrainSettings
from curate.trainer.objectives.settings import MaskedSettings


def distilled_export(settings: TrainSettings) -> str | None:
    """The export of the frozen backbone that the run distills; None: it does not distill."""
    return settings.objective.distill_from if isinstance(settings.objective, MaskedSettings) else None


def origins(settings: TrainSettings) -> dict[str, str]:
    """Digest of each file that a run starts from, by the setting that names it: a part of what makes two runs one.

    What is not there yet has none, such as a model id whose weights are fetched when the run begins.
    """
    named: dict[str, str | None] = {"init_from": settings.init_from, "init_heads": settings.init_heads}
    named |= gram_files(settings) | settings.objective.origins()
    found = {name: Path(path).expanduser() for name, path in named.items() if path is not None}
    return {name: _digest(path) for name, path in found.items() if path.exists()}


def gram_files(settings: TrainSettings) -> dict[str, str]:
    """The weights of Gram teachers that the run does not make itself, by the setting that names them."""
    given = {number: phase.gram for number, phase in enumerate(settings.phases) if phase.gram is not None}
    return {f"phases.{number}.gram.teacher": gram.teacher_file for number, gram in given.items() if gram.teacher_file}


def _digest(path: Path) -> str:
    inside = path / BACKBONE
    return hash_file(inside if inside.is_file() else find_weight_file(path))
