"""Evaluate: what pretraining added to the features, measured beside the initialization."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.show import Heading, Numbers, Section, Text
from curate.engine.stage import Batches, Input, Map, whole
from curate.engine.table import Table
from curate.stages.training.pretrain import PretrainFigures
from curate.tables import EVALUATION, TRAINING_LOG

if TYPE_CHECKING:
    from curate.evaluation.accuracy import Accuracy


NAMES = {"parts": "found from a part of it", "knn": "class by nearest neighbors (k-NN)"}
"""What the report calls the measures."""
PARTS_AREA = (0.3, 0.6)
"""Share of the picture's area that a part shows."""
PARTS_SEED = 0
"""Seed of the parts, so that figures of several runs answer the same questions."""


class Evaluate(Map):
    """The pretrained teacher beside its own initialization on a folder of labeled images.

    Is a picture found again by a part of it? Pretraining asks for this, so it shows within minutes. And
    do the nearest pictures tell its class? That takes far more images and steps than a quickstart has.
    """

    version: ClassVar[int] = 2
    inputs: ClassVar[dict[str, Input]] = {"pretrain": whole(TRAINING_LOG, beyond_rows=True)}  # the weights
    parts_like: ClassVar[str | None] = "one"

    labelled: str = "bundled"
    """Folder with a subfolder of images for each class; bundled: the photographs that come with curate."""
    k: int = 5
    """Number of nearest neighbors that vote."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        if not self._folder().is_dir():
            text = f"={self.labelled}: no such folder; it needs a subfolder of images for each class"
            raise self.field_error("labelled", text)
        return EVALUATION

    def _folder(self) -> Path:
        from curate.samples.bundled import PHOTOS

        return PHOTOS if self.labelled == "bundled" else Path(self.labelled)

    def run(self, part: int, *, pretrain: Table) -> Batches:
        from curate.evaluation.accuracy import paired_stderr

        made = PretrainFigures.of(pretrain)
        pretrained, initial = (self._measure(pretrain.store.find(path)) for path in (made.export, made.initial))
        rows = []
        for metric, k in (("parts", None), ("knn", self.k)):
            after, before = pretrained[metric], initial[metric]
            measured = [("pretrained", after.value, after.stderr), ("initial", before.value, before.stderr)]
            measured.append(("gain", after.value - before.value, paired_stderr(after, before)))
            rows += [(name, metric, k, len(after.correct), value, stderr) for name, value, stderr in measured]
        yield pa.RecordBatch.from_pylist([dict(zip(EVALUATION.names, row, strict=True)) for row in rows], EVALUATION)

    def _measure(self, weights: str) -> dict[str, "Accuracy"]:
        from curate.evaluation.features import embed_images
        from curate.evaluation.knn import knn_leave_one_out
        from curate.evaluation.labeled import open_labeled
        from curate.evaluation.parts import find_from_parts
        from curate.models.backbones.load import load_backbone

        backbone, images = load_backbone("curate", weights=weights, precision="fp32"), open_labeled(str(self._folder()))
        return {
            "parts": find_from_parts(backbone, images, area=PARTS_AREA, seed=PARTS_SEED),
            "knn": knn_leave_one_out(embed_images(backbone, images), images.labels, self.k),
        }

    def rows_in(self, figures: Figures, **inputs: Any) -> int | None:
        """The labeled images are no table of the run."""
        return None

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        rows = table.read_all().to_pylist()
        head = ("of the pictures", "pretrained", "initialization", "gain", "standard error", "pictures")
        body = tuple(_measured(metric, [row for row in rows if row["metric"] == metric]) for metric in NAMES)
        yield Section("Pretraining", (Heading("Evaluation"), Numbers(head, body), Text(_meaning(self.k))))


def _measured(metric: str, rows: list[dict[str, Any]]) -> tuple[Any, ...]:
    of = {row["backbone"]: row for row in rows}
    values = (of[name]["value"] for name in ("pretrained", "initial", "gain"))
    return NAMES[metric], *values, of["gain"]["stderr"], of["gain"]["num_images"]


def _meaning(k: int) -> str:
    low, high = (f"{100 * share:.0f}" for share in PARTS_AREA)
    return (
        f"Frozen features, compared picture by picture. Found from a part of it: a random {low} to {high} % of the "
        "picture, mirrored half of the time, is nearest to the picture itself among all; pretraining asks for this, so "
        f"it shows first. Class: the {k} nearest other pictures vote. A gain within two standard errors of 0 is no "
        "evidence: some hundreds of pictures and some minutes teach a network little about classes."
    )
