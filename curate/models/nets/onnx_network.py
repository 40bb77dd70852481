"""A graph of ONNX as a network: onnxruntime computes, torch sees a module.

onnxruntime has threads of its own. They are as many as torch has, since that number is what a run gives to a process,
and they sleep while there is nothing to compute: by default they would spin, on cores that other workers and the
threads that decode need. A session keeps its number for life, so a new number means a new session.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from curate.errors import ConfigError, MissingExtra, WeightsError, foreign_text
from curate.models.files.declaration import PIXELS, Declaration
from curate.models.files.onnx_graph import RANKS

TYPES = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8, "int8": np.int8}
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SILENT: Literal[4] = 4
"""Level of its log: errors are raised here, with what to do."""
UNIT = 0.02
"""How far from 1 the length of a vector that is declared normalized may be: half precision and int8 round."""

Provider: TypeAlias = tuple[str, dict[str, Any]]


class OnnxNetwork(nn.Module):
    """Pictures to vectors, by a session of onnxruntime on the device where the pictures are."""

    def __init__(self, file: Path, declared: Declaration, *, batch: int | None) -> None:
        """`batch` is the number of pictures that the graph takes at once; None: any."""
        super().__init__()
        self.file, self.declared, self.batch = file, declared, batch
        self._session: tuple[tuple[str, int], Any] | None = None

    def prepare(self, device: torch.device) -> None:
        """Make the session, and see that two blank pictures become two vectors of the declared length.

        Raises:
            MissingExtra: onnxruntime is not installed.
            ConfigError: it cannot compute on this device.
            WeightsError: it does not load the file, or the vectors are not as declared.
        """
        side = self.declared.input.size
        self.forward(torch.zeros(2, 3, side, side, device=device), blank=True)

    def forward(self, images: Tensor, *, blank: bool = False) -> Tensor:
        """(B, 3, S, S) normalized float32 -> (B, D) float32, on the device of the images."""
        session, given = self._session_on(images.device), self._as_input(images)
        size = self.batch or max(1, len(given))
        pieces = [_run(session, self, given[start : start + size], size) for start in range(0, len(given), size)]
        vectors = np.concatenate(pieces) if pieces else np.empty((0, self.declared.output.dim), np.float32)
        if not np.isfinite(vectors).all():
            raise WeightsError(
                f"{self.file}: gives vectors with infinite values or NaN; are range, mean and std as the model was "
                "trained, and do its values fit its precision?"
            )
        if self.declared.output.normalized and not blank:
            self._check_lengths(vectors)
        return torch.from_numpy(vectors).to(images.device)

    def _session_on(self, device: torch.device) -> Any:
        key = (str(device), torch.get_num_threads())
        if self._session is None or self._session[0] != key:
            self._session = (key, open_session(self.file, device, num_threads=key[1]))
        return self._session[1]

    def _as_input(self, images: Tensor) -> np.ndarray:
        how = self.declared.input
        if how.channels == "bgr":
            images = images.flip(1)
        if how.layout == "nhwc":
            images = images.permute(0, 2, 3, 1)
        values = images.float().contiguous().cpu().numpy()
        if how.dtype in PIXELS:
            values = values.round().clip(*PIXELS[how.dtype])
        with np.errstate(over="ignore"):  # infinite values show in the vectors
            return values.astype(TYPES[how.dtype])

    def _check_lengths(self, vectors: np.ndarray) -> None:
        lengths = np.linalg.norm(vectors, axis=1)
        if np.any(np.abs(lengths - 1) > UNIT):
            worst = lengths[np.argmax(np.abs(lengths - 1))]
            raise WeightsError(
                f"{self.file}: its declaration says normalized, but a vector has length {worst:.3g}; set "
                "output.normalized to false, or see whether the input is as the model was trained"
            )


def _run(session: Any, network: OnnxNetwork, given: np.ndarray, size: int) -> np.ndarray:
    """(B, D) float32 vectors; missing pictures of a fixed batch are made up, and their vectors left out."""
    declared = network.declared
    missing = [(0, size - len(given)), *[(0, 0)] * (given.ndim - 1)]
    filled = np.pad(given, missing) if len(given) < size else given
    try:
        (found,) = session.run([declared.output.name], {declared.input.name: filled})
    except Exception as error:  # classes of onnxruntime have no common one
        raise WeightsError(
            f"{network.file}: onnxruntime fails on pictures of shape {filled.shape} ({foreign_text(error)}); are size "
            "and layout as the model needs them, and takes it several pictures at once?"
        ) from error
    found, what = np.asarray(found, np.float32), declared.output.take
    vectors = _take(found, what) if found.ndim in RANKS[what] else found
    if found.ndim not in RANKS[what] or vectors.shape != (size, declared.output.dim):
        raise WeightsError(
            f"{network.file}: {size} pictures give an output of shape {found.shape}, its declaration says "
            f"`{what}` with dim {declared.output.dim}; correct the declaration"
        )
    return vectors[: len(given)]


def _take(found: np.ndarray, what: str) -> np.ndarray:
    """What the declaration takes of an output of tokens (B, T, D) or positions (B, D, H, W)."""
    if what == "vector":
        return found
    if what == "first_token":
        return found[:, 0]
    return found.mean(axis=1 if found.ndim == 3 else (2, 3))


def open_session(file: Path | bytes, device: torch.device, *, num_threads: int) -> Any:
    """An onnxruntime.InferenceSession of a file, or of its content, on exactly this device.

    Raises:
        MissingExtra: onnxruntime is not installed.
        ConfigError: it cannot compute on this device.
        WeightsError: it does not load the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx") from error
    where = str(file) if isinstance(file, Path) else "the graph"
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(file, _options(onnxruntime, num_threads), providers=providers)
        session.disable_fallback()
    except Exception as error:  # classes of onnxruntime have no common one
        raise WeightsError(
            f"{where}: onnxruntime {onnxruntime.__version__} does not load it ({foreign_text(error)}); export it "
            "again, or install a newer onnxruntime"
        ) from error
    used = session.get_providers()
    if device.type == "cuda" and used[0] != CUDA:  # it goes on without a provider that does not start
        raise ConfigError(
            f"device={device}: onnxruntime {onnxruntime.__version__} did not start CUDA and would run {where} on "
            "the CPU; install the onnxruntime-gpu for this CUDA, or set the device to cpu"
        )
    return session


def _options(onnxruntime: Any, num_threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    options.log_severity_level = SILENT
    return options


def _providers(device: torch.device, available: Sequence[str]) -> list[str | Provider]:
    """Where nodes run: on the CPU alone, or on the GPU with those nodes on the CPU that CUDA does not have."""
    if device.type == "cpu":
        return [CPU]
    if CUDA not in available:
        raise ConfigError(
            f"device={device}: the onnxruntime that is installed computes on the CPU alone; install onnxruntime-gpu "
            "in its place, or set the device to cpu"
        )
    return [(CUDA, {"device_id": str(device.index or 0), "use_tf32": "0"}), CPU]
