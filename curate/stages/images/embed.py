"""Embed: one unit vector an image, by a frozen backbone."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.config import Execution, without_folder
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.errors import ConfigError, WeightsError
from curate.models.backbones.load import check_precision, describe, weights_for_plan
from curate.models.device import PrecisionChoice
from curate.models.names import resolve_model
from curate.ops.images.preprocess import decode_side, preprocess
from curate.ops.vectors import pack
from curate.stages.images.image_tally import VectorTally
from curate.stages.images.pictures import PictureStage, Seen, count_wanted
from curate.tables import embeddings_schema

if TYPE_CHECKING:
    from curate.models.backbones.backbone import Backbone


class EmbedFigures(Figures):
    """How many vectors a table of embeddings holds."""

    embedded: int
    """Vectors in all."""
    embedded_by_part: tuple[int, ...]
    """Vectors of each part."""
    lost: int = 0
    """Images of a later pass that are gone or changed since the first one; they have no vector."""

    @classmethod
    def count(cls, table: Table) -> "EmbedFigures":
        """From what its parts counted: nulls are no vectors."""
        by_part = tuple(part.vectors for part in VectorTally.by_part(table))
        return cls(embedded=sum(by_part), embedded_by_part=by_part)


class Embed(PictureStage):
    """Embeds accepted images; with `duplicates`, only the pool images that were kept and the curated ones."""

    version: ClassVar[int] = 2
    tally: ClassVar[type[Tally] | None] = VectorTally

    model: str
    """Id of a backbone, see `curate models`; or an export of the trainer, an ONNX file, or the folder of one."""
    weights: Annotated[str | None, Execution()] = None
    """Weight file, folder or URL; null: what the model brings along or the hub has. Known by their content, so a file
    may move."""
    precision: PrecisionChoice = "auto"
    """Precision of the forward pass; auto: the faster one on the device, chosen once for the whole table."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the stored vectors."""
    view: Literal["whole", "within_border"] = "whole"
    """What of a picture is embedded: all of it, or what a border of one color surrounds, where there is one."""
    batch_size: Annotated[int, Field(ge=1), Execution()] = 32
    """Images of a forward pass."""
    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    @model_validator(mode="before")
    @classmethod
    def _named_by_a_file(cls, values: Any) -> Any:
        """A file named as the model counts as its weights: tables are known by what it holds, not by its path."""
        if not isinstance(values, dict) or not isinstance(values.get("model"), str):
            return values
        try:
            model, weights = resolve_model(values["model"], values.get("weights"))
        except WeightsError as error:
            raise ValueError(str(error)) from error
        return values | {"model": model, "weights": weights}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        info = describe(self.model, self.weights, fetch=True)
        check_precision(info, self.precision)
        return embeddings_schema(info.dim, dtype=self.dtype, model=self.model, weights=info.weights_hash)

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.precision != "auto" or not previous:
            return self
        return self.model_copy(update={"precision": previous["precision"]})

    def is_resolved(self) -> bool:
        return self.precision != "auto"

    def resolve_on_worker(self) -> Self:
        from curate.models.device import resolve_device, resolve_precision

        info = describe(self.model, self.weights, fetch=True)
        chosen = resolve_precision(self.precision, resolve_device(self.device), bf16=info.bf16)
        return self.model_copy(update={"precision": chosen})

    def pins(self) -> dict[str, str]:
        return {"weights": describe(self.model, self.weights, fetch=True).weights_hash}

    def backbone(self) -> "Backbone":
        """The model, loaded once a process."""
        return _load(self.model, self.weights, self.device, self.precision)

    def embed(self, pixels: list[np.ndarray]) -> np.ndarray:
        """(N, D) vectors of one batch of (3, H, W) uint8 images, in the dtype of the table."""
        import torch

        return self.backbone().embed(torch.from_numpy(np.stack(pixels))).numpy().astype(self.dtype)

    # -- of a pass -------------------------------------------------------------------------------------------

    def least_side(self) -> int:
        return decode_side([self.backbone().preprocess], at_least=64)

    def images_ahead(self) -> int:
        return self.batch_size

    def prepare(self, seen: Seen) -> np.ndarray | None:
        picture = seen.picture if self.view == "whole" else seen.within_border
        return None if picture is None else preprocess(picture, self.backbone().preprocess)

    def collect(self, ids: pa.Array) -> "_Vectors":
        return _Vectors(self, ids)

    # -- telling about it ------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> EmbedFigures:
        figures = EmbedFigures.count(table)
        if inputs.get("images") is None:
            return figures
        wanted = count_wanted(inputs["catalog"], inputs["images"], inputs.get("duplicates"))
        return figures.model_copy(update={"lost": wanted - figures.embedded - table.num_open()})

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        lost = EmbedFigures.of(table).lost
        if lost:
            what = "image of the first pass is" if lost == 1 else "images of the first pass are"
            yield (
                f"{table.name}: {lost:,} {what} gone or changed since, without a vector here; the log names each. "
                f"Bring them back and run with --rebuild {table.name}"
            )

    def rows_in(self, figures: Figures, **inputs: Any) -> int | None:
        """Images that were embedded: a later pass opens no others."""
        assert isinstance(figures, EmbedFigures)
        return figures.embedded

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Within a pass; where it inspects, decoding is counted there."""
        from curate.models.flops import forward_flops

        weights = weights_for_plan(self.model, self.weights)
        dim = describe(self.model, weights).dim
        listed, later = inputs["catalog"], inputs.get("duplicates") is not None
        made = listed._replace(pool=given.kept_images, heldout=0) if later else listed
        share = 1 if self.view == "whole" else given.bordered
        each = share * dim * np.dtype(self.dtype).itemsize
        made = made._replace(row_bytes=ID_BYTES + each, dim=dim, columns=2, widths={})
        demand = Demand(forward=share * made.rows * forward_flops(self.model, weights), written=made.num_bytes)
        if not later:
            return demand, made
        return demand.with_reading(made.rows, given, of=listed.pool + listed.curated), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        weights = table.complete_manifest().pins.get("weights", "")[:digits]
        details = ", ".join(part for part in (f"weights {weights}" if weights else "", self.precision) if part)
        yield "Models", f"{table.name}: {without_folder(self.model)}, license {self._license()} ({details})"

    def _license(self) -> str:
        try:
            return describe(self.model, self.weights).license
        except (WeightsError, ConfigError):  # a report may be written where the file is no more
            return "unknown, since its weights are not here now"


class _Vectors:
    """The vectors of a chunk; the model runs whenever the pixels of a batch are there, while threads decode on."""

    def __init__(self, stage: Embed, ids: pa.Array) -> None:
        self._stage, self._ids = stage, ids
        self._vectors = np.zeros((len(ids), stage.backbone().dim), stage.dtype)
        self._valid = np.zeros(len(ids), bool)
        self._rows: list[int] = []
        self._pixels: list[np.ndarray] = []

    def add(self, row: int, prepared: np.ndarray) -> None:
        self._rows.append(row)
        self._pixels.append(prepared)
        if len(self._rows) == self._stage.batch_size:
            self._embed()

    def _embed(self) -> None:
        self._vectors[self._rows] = self._stage.embed(self._pixels)
        self._valid[self._rows] = True
        self._rows, self._pixels = [], []

    def batch(self) -> pa.RecordBatch:
        """The rows of the whole chunk, null where there was no picture."""
        if self._rows:
            self._embed()
        column = pack(self._vectors, valid=self._valid)
        return pa.RecordBatch.from_arrays([self._ids, column], schema=self._stage.output_schema())


@lru_cache(maxsize=4)
def _load(model: str, weights: str | None, device: str, precision: PrecisionChoice) -> "Backbone":
    from curate.models.backbones.load import load_backbone

    return load_backbone(model, weights=weights, device=device, precision=precision)
