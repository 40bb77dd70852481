"""Pretrain: self-supervised training on the shards, as a step of a run."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field, field_validator

from curate.config import digest, identity
from curate.engine.devices import may_use_gpu
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.numbers import count
from curate.engine.show import Section, Text
from curate.engine.stage import Batches, Input, Map, whole
from curate.engine.table import Table
from curate.models.device import Precision
from curate.stages.training.log_charts import log_charts
from curate.stages.training.look import look_through
from curate.tables import SHARD_COLUMNS, TRAINING_LOG
from curate.trainer.config import TrainConfig, TrainSettings

if TYPE_CHECKING:
    from curate.trainer.train import TrainResult

CLOCK_FIGURES = frozenset(
    {
        *("images_per_second", "matmul_share", "teraflops"),
        *("feed_seconds", "step_seconds", "communication_seconds", "peak_host_gib", "peak_device_gib"),
    }
)
"""Figures of the log that depend on the machine: left out, so that equal runs give equal tables."""
EXPORTS = "pretrain"
"""Folder of the workdir in which checkpoints and exports lie, each training in a folder of its own."""


class PretrainFigures(Figures):
    """Where the training left its backbones, as paths within the workdir."""

    export: str
    """The trained teacher."""
    initial: str
    """The same backbone before the first iteration."""


class Pretrain(Map):
    """Trains on the shards; checkpoints and exports lie in a folder of the table, named by what made them."""

    inputs: ClassVar[dict[str, Input]] = {"shards": whole(SHARD_COLUMNS)}
    parts_like: ClassVar[str | None] = "one"
    needs_local: ClassVar[str] = (
        "the trainer keeps its checkpoints on a local disk; leave the training out here, then use `curate train` "
        "with shards=URL and a local output"
    )

    train: TrainSettings = TrainSettings()
    """The trainer's settings; shards, output and seed are the run's own."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of weights, order, crops and masks; null: the seed of the run."""

    origins: dict[str, str] = Field(default={})
    """Digests of the weights that the training starts from or distills; they are looked up, not given."""

    @field_validator("train", mode="before")
    @classmethod
    def _without_seed(cls, train: Any) -> Any:
        if isinstance(train, Mapping) and "seed" in train:
            raise ValueError("the training takes the run's seed; set seed=N, or pretrain.seed=N for the training alone")
        return train

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return TRAINING_LOG

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        from curate.trainer.initial import origins

        found = self.model_copy(update={"origins": origins(self.train)})
        if self.train.precision != "auto" or not previous:
            return found
        return found._at(previous["train"]["precision"])

    def is_resolved(self) -> bool:
        return self.train.precision != "auto"

    def resolve_on_worker(self) -> Self:
        from curate.models.device import resolve_device, resolve_precision

        return self._at(resolve_precision(self.train.precision, resolve_device(self.train.device)))

    def _at(self, precision: Precision) -> Self:
        return self.model_copy(update={"train": self.train.model_copy(update={"precision": precision})})

    def resources(self) -> dict[str, float]:
        return {"GPU": 1.0} if may_use_gpu(self.train.device) else {}

    def run(self, part: int, *, shards: Table) -> Batches:
        rows = [
            (int(row["step"]), name, float(value))
            for row in self._train(shards).log
            for name, value in row.items()
            if name != "step" and name not in CLOCK_FIGURES
        ]
        columns = [pa.array(column) for column in zip(*rows, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=TRAINING_LOG)

    def _train(self, shards: Table) -> "TrainResult":
        from curate.trainer.train import train

        output = shards.store.join(self._folder(shards))
        given = self.train.model_dump()
        place = shards.store.join(shards.name)
        return train(TrainConfig(**given, shards=place, output=output, seed=self.seed or 0))

    def _folder(self, shards: Table) -> str:
        made_of = digest([identity(self), [part.content for part in shards.parts()]])
        return f"{EXPORTS}/run-{made_of[:12]}"

    def summarize(self, table: Table, **inputs: Any) -> PretrainFigures:
        folder = self._folder(inputs["shards"])
        return PretrainFigures(export=f"{folder}/backbone.safetensors", initial=f"{folder}/backbone-init.safetensors")

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        rows = run.sample(table, TRAINING_LOG.names).rows.sort_by("step")
        steps = int(rows["step"].to_numpy().max(initial=0))
        text = f"{count(steps)} steps. A falling loss says that training works, not that the features are good."
        yield Section("Pretraining", (Text(text), *log_charts(rows)))
        figures = PretrainFigures.of(table)
        exports = {"initialization": figures.initial, "pretrained": figures.export}
        for shards in run.inputs_of(table, "shards"):
            blocks = look_through(run, shards, exports)
            if blocks:
                yield Section("What the backbone looks at", blocks)
