"""What the formats have in common: what they are asked to write, and what is compared."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from curate.models.convert.source import Source


class Tokens(NamedTuple):
    """What every format must give for normalised images (B, 3, H, W)."""

    cls: Tensor  # (B, D)
    patches: Tensor  # (B, N, D)


Embed = Callable[[Tensor], Tokens]
"""A model in its own library."""


@dataclass(frozen=True)
class Options:
    """What the user may say of a format."""

    opset: int | None = None
    """Of ONNX; None: its default."""


class Write(Protocol):
    """Write the backbone of `source` to `path`, a temporary place with the final name."""

    def __call__(self, source: Source, path: Path, options: Options) -> None: ...


class Read(Protocol):
    """Load what was written, by the library that the format belongs to."""

    def __call__(self, source: Source, path: Path) -> Embed: ...


@dataclass(frozen=True)
class Target:
    """A format."""

    suffix: str
    """Of the output; empty: a folder."""
    write: Write
    read: Read
    howto: Callable[[Source, Path], str]
    """How to load the output, as a line of code."""
    any_size: bool = True
    """Whether the file takes pictures of other sizes than the one at which it is checked."""
    takes_heads: bool = False
    """Whether projection heads have a place in it."""
