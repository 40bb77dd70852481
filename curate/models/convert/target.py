"""What the formats have in common: what they write, and what is compared."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from curate.models.convert.source import LoadedBackbone


class Tokens(NamedTuple):
    """The outputs that every format must give for normalized images (B, 3, H, W)."""

    cls: Tensor  # (B, D)
    patches: Tensor  # (B, N, D)


Forward = Callable[[Tensor], Tokens]
"""A model in the library of its format: from normalized images to tokens."""


@dataclass(frozen=True)
class Options:
    """Options of single formats."""

    opset: int | None = None
    """Version of ONNX's operators; None: the default."""


class WriteFormat(Protocol):
    """Writes a backbone to `path`, a temporary place with the final name."""

    def __call__(self, source: LoadedBackbone, path: Path, options: Options) -> None: ...


class ReadFormat(Protocol):
    """Loads what was written with the library that the format is for."""

    def __call__(self, source: LoadedBackbone, path: Path) -> Forward: ...


@dataclass(frozen=True)
class Target:
    """A format to convert to."""

    suffix: str
    """Suffix of the output; empty: it is a folder."""
    write: WriteFormat
    """Writes the file or folder."""
    read: ReadFormat
    """Loads it again, to compare outputs."""
    howto: Callable[[LoadedBackbone, Path], str]
    """Tells how to load the output, as a line of code."""
    any_size: bool = True
    """Whether the model takes pictures of other sizes than the one at which outputs are compared."""
    takes_token_size: bool = True
    """Whether what was written is compared with tokens of the size that a timm model's map is resized to."""
    takes_heads: bool = False
    """Whether the format has a place for projection heads."""
