"""An ONNX graph that looks at one picture at a time, run by a thread that decodes.

Pictures of a pass differ in size, so these networks take them one by one. As many threads decode as the process has
cores, and each runs the networks of the picture that it has just decoded. A session therefore has a single thread of
its own: the cores are all at work without it, and its results are the same bits however many threads there are.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curate.errors import WeightsError, foreign_text
from curate.models.files.onnx_graph import free_axes, read_own_graph


class PictureGraph:
    """A session on the CPU; safe in threads."""

    def __init__(self, file: Path, *, outputs: Sequence[str | None], model: str, any_size: bool = True) -> None:
        """Load a file that may come from anywhere, see `files/onnx_graph.py`.

        Args:
            outputs: names of the outputs that are wanted; None: the only one, whatever its name.
            model: which network it must be, for messages.
            any_size: whether it takes pictures of any size, whatever sizes the file states.

        Raises:
            MissingExtra: onnx or onnxruntime is not installed.
            WeightsError: no ONNX file, one that reads files or code, or another network.
        """
        import torch

        from curate.models.nets.onnx_network import open_session

        self._file, self._model = file, model
        graph = read_own_graph(file)
        content = free_axes(graph) if any_size else bytes(graph.SerializeToString())
        self._session = open_session(content, torch.device("cpu"), num_threads=1)
        inputs = [value.name for value in self._session.get_inputs()]
        there = [value.name for value in self._session.get_outputs()]
        self._outputs = [there[0] if name is None and len(there) == 1 else name for name in outputs]
        if len(inputs) != 1 or not set(self._outputs) <= set(there):
            wanted = ", ".join(name or "one" for name in outputs)
            raise self._other(f"inputs {', '.join(inputs)}, outputs {', '.join(there)}; one input and {wanted} needed")
        self._input = inputs[0]

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The outputs for a batch of one picture, float32 each.

        Raises:
            WeightsError: the network does not take it, or gives values that are no numbers.
        """
        try:
            found = self._session.run(self._outputs, {self._input: pixels})
        except Exception as error:  # classes of onnxruntime have no common one
            raise self._other(
                f"onnxruntime fails on a picture of shape {pixels.shape} ({foreign_text(error)})"
            ) from error
        values = [np.asarray(value, np.float32) for value in found]
        if not all(np.isfinite(value).all() for value in values):
            raise self._other("infinite values or NaN for a picture")
        return values

    def expect(self, value: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
        """An output, which must have this shape; None: any length.

        Raises:
            WeightsError: it has another one.
        """
        if len(value.shape) != len(shape) or any(b not in (None, a) for a, b in zip(value.shape, shape, strict=True)):
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            raise self._other(f"an output of shape {value.shape}; ({wanted}) needed")
        return value

    def _other(self, found: str) -> WeightsError:
        return WeightsError(f"{self._file}: is no {self._model}: {found}; give its .onnx file, or leave weights out")
