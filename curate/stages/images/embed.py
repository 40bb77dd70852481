"""Embed: one unit vector an image, by a frozen backbone."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from curate.config import Execution
from curate.engine.stage import Input, Map, each
from curate.engine.store import Table
from curate.models.backbones.backbone import Backbone
from curate.models.backbones.load import describe, load_backbone
from curate.models.device import PrecisionChoice, resolve_device, resolve_precision
from curate.tables import CATALOG, DUPLICATES, IMAGES, embeddings_schema


class Embed(Map):
    """Embeds accepted images; with `duplicates`, only the pool images that were kept and the curated ones."""

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": each(CATALOG),
        "images": each(IMAGES, optional=True),
        "duplicates": each(DUPLICATES, optional=True),
    }

    model: str
    """Id of a backbone, see `curate models`."""
    weights: Annotated[str | None, Execution()] = None
    """Weight file, folder or URL; None: what the model id brings along or the hub has. Known by their content, so
    a file may move."""
    precision: PrecisionChoice = "auto"
    """Of the forward pass; auto: the faster one on the device, chosen once for the whole table."""
    dtype: Literal["float16", "float32"] = "float16"
    """Of the stored vectors."""
    batch_size: Annotated[int, Field(ge=1), Execution()] = 32
    """Images of a forward pass."""
    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        info = describe(self.model, self.weights, fetch=True)
        return embeddings_schema(info.dim, dtype=self.dtype, model=self.model, weights=info.weights_hash)

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.precision != "auto":
            return self
        info, device = describe(self.model, self.weights, fetch=True), resolve_device(self.device)
        chosen = previous["precision"] if previous else resolve_precision("auto", device, bf16=info.bf16)
        return self.model_copy(update={"precision": chosen})

    def pins(self) -> dict[str, str]:
        return {"weights": describe(self.model, self.weights, fetch=True).weights_hash}

    def resources(self) -> dict[str, float]:
        return {"GPU": 1} if resolve_device(self.device).type == "cuda" else {}

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        return count_embedded(table)

    def backbone(self) -> Backbone:
        """The model, loaded once a process."""
        return _load(self.model, self.weights, self.device, self.precision)

    def embed(self, pixels: list[np.ndarray]) -> np.ndarray:
        """(N, D) vectors of one batch of (3, H, W) uint8 images, in the dtype of the table."""
        return self.backbone().embed(torch.from_numpy(np.stack(pixels))).numpy().astype(self.dtype)


def count_embedded(table: Table) -> dict[str, Any]:
    """Metrics of a table of vectors: how many there are, in all and by part."""
    by_part = [len(rows) - rows["vector"].null_count for rows in table.scan(["vector"])]
    return {"embedded": sum(by_part), "embedded_by_part": by_part}


@lru_cache(maxsize=4)
def _load(model: str, weights: str | None, device: str, precision: PrecisionChoice) -> Backbone:
    return load_backbone(model, weights=weights, device=device, precision=precision)
