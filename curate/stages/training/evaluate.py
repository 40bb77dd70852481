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


class Evaluate(Map):
    """k-NN of the pretrained teacher and of its own initialization on a folder of labeled images."""

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
        pretrained, initial = (self._accuracy(pretrain.store.find(path)) for path in (made.export, made.initial))
        gain = pretrained.value - initial.value
        rows = [
            ("pretrained", pretrained.value, pretrained.stderr),
            ("initial", initial.value, initial.stderr),
            ("gain", gain, paired_stderr(pretrained, initial)),
        ]
        names, values, errors = zip(*rows, strict=True)
        num_images = len(pretrained.correct)
        columns = [names, ["knn"] * 3, [self.k] * 3, [num_images] * 3, values, errors]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, EVALUATION, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=EVALUATION)

    def _accuracy(self, weights: str) -> "Accuracy":
        from curate.evaluation.features import embed_folder
        from curate.evaluation.knn import knn_leave_one_out
        from curate.models.backbones.load import load_backbone

        features = embed_folder(load_backbone("curate", weights=weights, precision="fp32"), self._folder())
        return knn_leave_one_out(features.features, features.labels, self.k)

    def rows_in(self, figures: Figures, **inputs: Any) -> int | None:
        """The labeled images are no table of the run."""
        return None

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        rows = table.read_all()
        head = tuple(name.replace("_", " ") for name in rows.column_names)
        body = tuple(tuple(row.values()) for row in rows.to_pylist())
        text = (
            "Frozen features. The gain is compared image by image; one within two standard errors of 0 is no evidence."
        )
        yield Section("Pretraining", (Heading("Evaluation"), Numbers(head, body), Text(text)))
