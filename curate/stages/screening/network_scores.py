"""What the stages that score pictures by a network have in common: which weights, and that they are there in time."""

import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import pyarrow as pa
from pydantic import field_validator

from curate.config import Execution, absolute_path
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.finished import Finished
from curate.engine.table import Table
from curate.errors import MissingExtra
from curate.models.files.digest import hash_file
from curate.models.screening.shipped import ShippedNetwork
from curate.stages.screening.scoring import PictureScores
from curate.tables import score

NetworkT = TypeVar("NetworkT")
_LOADING = threading.Lock()


class NetworkScores(PictureScores):
    """Scores pictures by a network whose weights a package ships; it runs in the threads that decode, on the CPU."""

    network: ClassVar[ShippedNetwork]
    """Which network, and where its weights are."""

    weights: Annotated[str | None, Execution()] = None
    """ONNX file of the same network; null: the one of the package that ships it. Known by its content, so it may
    move."""

    @field_validator("weights")
    @classmethod
    def _absolute_weights(cls, weights: str | None) -> str | None:
        return None if weights is None else absolute_path(weights)  # workers may have another current directory

    def find_weights(self) -> Path:
        """The file, looked for when a run is planned, and so before anything is made.

        Raises:
            MissingExtra: the package, onnx or onnxruntime is not installed.
            WeightsError: there is no such file of the user.
        """
        file = self.network.find(self.weights)
        for library in ("onnx", "onnxruntime"):
            if not _is_installed(library):
                raise MissingExtra(library, self.network.extra)
        return file

    def pins(self) -> dict[str, str]:
        return {"weights": self.digest()}

    def digest(self) -> str:
        """SHA-256 of the weights, in hex."""
        return hash_file(self.find_weights())

    def score(self, name: str, dtype: pa.DataType, doc: str, **told: Any) -> pa.Field:
        """A column of scores that tells the network and its weights; the rest is `tables.score`'s."""
        return score(name, dtype, doc, model=self.network.model, weights=self.digest(), **told)

    def flops(self) -> float:
        """Operations for one image."""
        raise NotImplementedError

    def row_bytes(self) -> float:
        """Bytes of a row beside its id, compressed."""
        return 4

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Within a pass; in one of its own, with decoding."""
        listed: Shape = inputs["catalog"]
        made = listed._replace(row_bytes=ID_BYTES + self.row_bytes(), columns=1 + len(self.score_names()), widths={})
        note = "" if given.images < 1_000_000 else f"{self.network.model} runs on processors, also where there is a GPU"
        demand = Demand(forward=made.rows * self.flops(), written=made.num_bytes, note=note)
        return (demand if inputs.get("images") is None else demand.with_reading(made.rows, given)), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        weights = table.complete_manifest().pins.get("weights", "")[:digits]
        yield "Models", f"{table.name}: {self.network.model}, license {self.network.license} (weights {weights})"


def load_once(make: Callable[[Path], NetworkT], network: ShippedNetwork, weights: str | None) -> NetworkT:
    """The network of the user's file, or of the package's, made once a process; safe in threads."""
    with _LOADING:
        return _load(make, network, weights)  # type: ignore[return-value]


@cache
def _load(make: Callable[[Path], object], network: ShippedNetwork, weights: str | None) -> object:
    return make(network.find(weights))


def _is_installed(library: str) -> bool:
    from importlib.util import find_spec

    return find_spec(library) is not None
