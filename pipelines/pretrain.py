"""Curation by the LVD-142M recipe, then DINOv2 pretraining on its shards, then k-NN beside the initialisation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field, field_validator

from curate.config import digest, identity
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, whole
from curate.engine.store import Table
from curate.errors import ConfigError
from curate.evaluation.accuracy import Accuracy, paired_stderr
from curate.evaluation.features import embed_folder
from curate.evaluation.knn import knn_leave_one_out
from curate.models.backbones.load import load_backbone
from curate.models.device import resolve_device, resolve_precision
from curate.pipelines.lvd142m import Lvd142m, curate_pool
from curate.recipe import recipe
from curate.samples.bundled import PHOTOS
from curate.tables import EVALUATION, SHARD_COLUMNS, TRAINING_LOG
from curate.trainer.config import TrainConfig, TrainSettings
from curate.trainer.initial import origins
from curate.trainer.train import TrainResult, train

CLOCK_FIGURES = ("images_per_second", "matmul_share")


class Pretrain(Map):
    """Trains on the shards; checkpoints and exports lie in a folder of the table, named by what made them."""

    inputs: ClassVar[dict[str, Input]] = {"shards": whole(SHARD_COLUMNS)}

    train: TrainSettings = TrainSettings()
    """The trainer's settings; shards, output and seed are the run's own."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Of weights, order, crops and masks; None: the run's seed."""

    origins: dict[str, str] = Field(default={})
    """Digests of the weights that the training starts from or distils; looked up."""

    @field_validator("train", mode="before")
    @classmethod
    def _without_seed(cls, train: Any) -> Any:
        if isinstance(train, Mapping) and "seed" in train:
            raise ValueError("the training takes the run's seed; set seed=N, or pretrain.seed=N for the training alone")
        return train

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return TRAINING_LOG

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        found = self.model_copy(update={"origins": origins(self.train)})
        if self.train.precision != "auto":
            return found
        known = previous["train"]["precision"] if previous else None
        chosen = known or resolve_precision("auto", resolve_device(self.train.device))
        return found.model_copy(update={"train": self.train.model_copy(update={"precision": chosen})})

    def resources(self) -> dict[str, float]:
        return {"GPU": 1} if resolve_device(self.train.device).type == "cuda" else {}

    def run(self, part: int, *, shards: Table) -> Batches:
        rows = [
            (int(row["step"]), name, float(value))
            for row in self._train(shards).log
            for name, value in row.items()
            if name != "step" and name not in CLOCK_FIGURES
        ]
        columns = [pa.array(column) for column in zip(*rows, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=TRAINING_LOG)

    def _train(self, shards: Table) -> TrainResult:
        if not shards.store.is_local:
            raise ConfigError(
                f"workdir={shards.store.root}: the trainer keeps its checkpoints on a local disk; curate there, then "
                "use `curate train` with shards=URL and a local output"
            )
        output = shards.store.join(self._folder(shards))
        given = self.train.model_dump()
        place = shards.store.join(shards.name)
        return train(TrainConfig(**given, shards=place, output=output, seed=self.seed or 0))

    def _folder(self, shards: Table) -> str:
        made_of = digest([identity(self), [part.content for part in shards.parts()]])
        return f"pretrain/run-{made_of[:12]}"

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        folder = self._folder(inputs["shards"])
        return {"export": f"{folder}/backbone.safetensors", "initial": f"{folder}/backbone-init.safetensors"}


class Evaluate(Map):
    """k-NN of the pretrained teacher and of its own initialisation on a labelled folder."""

    inputs: ClassVar[dict[str, Input]] = {"pretrain": whole(TRAINING_LOG)}

    labelled: str = "bundled"
    """Folder with a subfolder of images for each class; bundled: the photographs that come with curate."""
    k: int = 5
    """Neighbours that vote."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        if not self._folder().is_dir():
            raise ConfigError(f"evaluate.labelled={self.labelled}: no such folder; it needs a subfolder for each class")
        return EVALUATION

    def _folder(self) -> Path:
        return PHOTOS if self.labelled == "bundled" else Path(self.labelled)

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def run(self, part: int, *, pretrain: Table) -> Batches:
        made = pretrain.metrics
        pretrained, initial = (self._accuracy(pretrain.store.join(made[name])) for name in ("export", "initial"))
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

    def _accuracy(self, weights: str) -> Accuracy:
        features = embed_folder(load_backbone("curate", weights=weights, precision="fp32"), self._folder())
        return knn_leave_one_out(features.features, features.labels, self.k)


class PretrainConfig(Lvd142m):
    """Fields of `recipe: pretrain`: those of lvd142m, and the training."""

    pretrain: Pretrain = Pretrain()
    """The trainer."""
    evaluate: Evaluate | None = None
    """What is measured on the export; None: nothing."""


@recipe("pretrain", PretrainConfig)
def pretrain(p: Pipeline, cfg: PretrainConfig) -> None:
    """Curate as lvd142m does, pretrain on the shards, evaluate the export."""
    shards = curate_pool(p, cfg)
    log = p.add("pretrain", cfg.pretrain, shards=shards)
    if cfg.evaluate is not None:
        p.add("evaluation", cfg.evaluate, pretrain=log)
