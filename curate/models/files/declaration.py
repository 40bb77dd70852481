"""What an ONNX file does not say of itself: how pictures become its input, and its output a vector.

The declaration of `NAME.onnx` is `NAME.onnx.yaml` beside it (JSON is YAML too):

    input:
      name: images            # of the graph's only input
      layout: nchw            # or nhwc
      dtype: float32          # or float16, uint8, int8
      channels: rgb           # or bgr
      size: 224               # pixels of a side of the square
      resize: short_edge_crop # or square: the whole picture squeezed
      short_edge: 256         # before the crop
      interpolation: bicubic  # or bilinear, lanczos
      range: [0, 1]           # what pixels of 0 and 255 become, before mean and std
      mean: [0.485, 0.456, 0.406]
      std: [0.229, 0.224, 0.225]
    output:
      name: cls
      take: vector            # or first_token, mean
      dim: 384
      normalized: false       # true: of unit length already
    license: Apache-2.0
    data: [NAME.onnx.data]    # files with weights beside the graph
    copies:                   # optional: how similar copies are
      threshold: 0.6
      heldout_threshold: 0.45
      verification: {floor: 0.5, threshold: 0.7, heldout_threshold: 0.7}
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from curate.config import Settings, SettingsT, digest, parse
from curate.errors import ConfigError, WeightsError, foreign_text
from curate.models.thresholds import CopyRule, Thresholds, Verification
from curate.ops.images.preprocess import Preprocess
from curate.text import read_text

SUFFIX = ".yaml"
"""What follows the name of the ONNX file in that of its declaration."""
MAX_BYTES = 1 << 16
"""A longer file is no declaration."""
MAX_DEPTH = 8
"""Lists and mappings inside each other; a declaration needs three."""
PIXELS = {"uint8": (0.0, 255.0), "int8": (-128.0, 127.0)}
"""The range of the integer inputs: pixels as they are, or shifted by 128."""

Triple = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Cosine = Annotated[float, Field(ge=-1, le=1)]


def _plain_name(name: str) -> str:
    if name in ("", ".", "..") or any(letter in '/\\:*"<>|' or not letter.isprintable() for letter in name):
        raise ValueError("the plain name of a file beside the graph is needed, without a folder")
    return name


class DeclaredInput(Settings):
    """How a picture becomes the input of the graph."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the graph's only input."""
    layout: Literal["nchw", "nhwc"]
    """Order of the axes: images, channels, height, width."""
    dtype: Literal["float32", "float16", "uint8", "int8"]
    """Type of its values."""
    channels: Literal["rgb", "bgr"]
    """Order of the channels, also of `mean` and `std`."""
    size: Annotated[int, Field(ge=1, le=4096)]
    """Side of the square, pixels."""
    resize: Literal["short_edge_crop", "square"]
    """Bring the short side to `short_edge` and crop the center, or squeeze the whole picture into the square."""
    short_edge: Annotated[int, Field(ge=1, le=8192)] | None = None
    """Short side before the crop, pixels; null: `size`."""
    interpolation: Literal["bilinear", "bicubic", "lanczos"]
    """How pictures are resized."""
    range: tuple[FiniteFloat, FiniteFloat] | None = None
    """What pixels of 0 and 255 become, before `mean` and `std`; null: 0..1, of integers the range of their type."""
    mean: Triple = (0.0, 0.0, 0.0)
    """Subtracted from each channel after `range`."""
    std: Triple = (1.0, 1.0, 1.0)
    """What each channel is divided by then, > 0."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.limits
        if not low < high:
            raise ValueError(f"range [{low:g}, {high:g}]: the first value must be below the second")
        if min(self.std) <= 0:
            raise ValueError("std: values above 0 are needed")
        plain = ((low, high), self.mean, self.std) == (PIXELS.get(self.dtype), (0.0,) * 3, (1.0,) * 3)
        if self.dtype in PIXELS and not plain:
            raise ValueError(f"dtype {self.dtype} takes pixels as they are: leave out range, mean and std")
        edge = self.short_edge or self.size
        if edge < self.size or (self.resize == "square" and edge != self.size):
            needed = "equals size where resize is square" if self.resize == "square" else "is size or more"
            raise ValueError(f"short_edge {edge}: it {needed}; size is {self.size}")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        """What pixels of 0 and 255 become."""
        return self.range or PIXELS.get(self.dtype, (0.0, 1.0))

    def preprocess(self) -> Preprocess:
        """The same in our terms: `range` is a part of mean and deviation, and channels are RGB."""
        low, high = self.limits
        step = -1 if self.channels == "bgr" else 1
        mean = [(value - low) / (high - low) for value in self.mean[::step]]
        std = [value / (high - low) for value in self.std[::step]]
        return Preprocess(
            size=self.size,
            resize=self.resize,
            short_edge=self.short_edge or self.size,
            interpolation=self.interpolation,
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
        )


class DeclaredOutput(Settings):
    """How the output of the graph becomes one vector a picture."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the output that is read; the graph may have others."""
    take: Literal["vector", "first_token", "mean"]
    """vector: the output is (B, D); first_token: the first of (B, T, D); mean: of the tokens of (B, T, D), or of the
    positions of (B, D, H, W)."""
    dim: Annotated[int, Field(ge=1, le=65_536)]
    """D, length of the vectors."""
    normalized: bool
    """Whether they have unit length already; others are normalized before they are compared."""


class DeclaredVerification(Settings):
    """See `thresholds.Verification`."""

    floor: Cosine
    """Smallest cosine similarity of a pair that is tried, -1..1."""
    crowd_floor: Cosine | None = None
    """The same among pictures that look alike, where it is lower, -1..1; null: it is not."""
    alike: Cosine
    """Cosine similarity from which two images look alike, -1..1."""
    sure: Cosine
    """Cosine similarity from which there is nothing to verify, -1..1."""

    @property
    def lowest(self) -> float:
        """The smallest cosine similarity that is searched."""
        return self.floor if self.crowd_floor is None else self.crowd_floor


class DeclaredCopies(Settings):
    """How similar copies are in the vectors of this file."""

    threshold: Cosine
    """Cosine similarity from which two images of the pool are copies, -1..1."""
    heldout_threshold: Cosine
    """The same for an image of the pool and a held-out one."""
    verification: DeclaredVerification | None = None
    """Which pairs are verified by laying one picture over the other; null: none, the thresholds decide."""

    @model_validator(mode="after")
    def _cosines_ascend(self) -> Self:
        tried = self.verification
        if tried is not None and not tried.lowest <= tried.floor <= tried.alike <= tried.sure:
            raise ValueError(
                f"verification: crowd_floor {tried.lowest:g}, floor {tried.floor:g}, alike {tried.alike:g}, sure "
                f"{tried.sure:g} must ascend"
            )
        return self

    def rule(self) -> CopyRule:
        """As the search takes it."""
        limits, tried = Thresholds(self.threshold, self.heldout_threshold), self.verification
        if tried is None:
            return CopyRule(limits)
        return CopyRule(limits, Verification(tried.floor, tried.alike, tried.sure, tried.lowest))


class Declaration(Settings):
    """What a backbone is made of, besides the ONNX file."""

    input: DeclaredInput
    """How a picture becomes the input of the graph."""
    output: DeclaredOutput
    """How the output of the graph becomes one vector a picture."""
    license: Annotated[str, Field(min_length=1)] | None = None
    """License of the weights; null: that of the package that brings them, or unknown."""
    data: tuple[Annotated[str, AfterValidator(_plain_name)], ...] = ()
    """Files beside the graph that hold weights; it may read no others."""
    copies: DeclaredCopies | None = None
    """How similar copies are; null: not known, so a run needs thresholds."""

    def vectors_digest(self) -> str:
        """Digest of what decides the vectors: neither license nor thresholds do."""
        return digest(self.model_dump(mode="json", include={"input", "output"}))


def declaration_path(file: Path) -> Path:
    """Where the declaration of an ONNX file is."""
    return file.with_name(file.name + SUFFIX)


def read_declaration(file: Path) -> Declaration:
    """The declaration beside an ONNX file.

    Raises:
        WeightsError: there is none, or it is not one.
    """
    path = declaration_path(file)
    if not path.is_file():
        raise WeightsError(
            f"{file}: no declaration {path.name} beside it, which says how its input is made and its output read; "
            "write one as curate/models/files/declaration.py shows"
        )
    return read_declared(path, Declaration)


def read_declared(path: Path, kind: type[SettingsT]) -> SettingsT:
    """What a file of plain YAML declares.

    Raises:
        WeightsError: it is none of this kind.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise WeightsError(f"{path}: {size} bytes, a declaration has at most {MAX_BYTES}; is it another file?")
    try:
        text = read_text(path)
        simple = _is_simple(text)
        values = yaml.safe_load(text) if simple else None
    except (yaml.YAMLError, ConfigError, ValueError) as error:
        raise WeightsError(f"{path}: not valid YAML ({foreign_text(error)}); correct it") from error
    if not simple:
        raise WeightsError(f"{path}: has YAML aliases (*name) or more than {MAX_DEPTH} levels; write plain values")
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise WeightsError(f"{path}: a mapping of {_keys(kind)} is needed; correct it")
    try:
        return parse(kind, values, where=str(path))
    except ConfigError as error:
        raise WeightsError(str(error)) from error


def _keys(kind: type[Settings]) -> str:
    """The first keys of a declaration."""
    names = list(kind.model_fields)[:2]
    return f"`{names[0]}`, `{names[1]}` and so on"


def _is_simple(text: str) -> bool:
    """Whether a YAML text is read in the time that its length suggests: a few aliases can name billions of values, and
    deep lists take the parser's time with the square of their depth."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
            return False
    return True


def write_declaration(file: Path, declaration: Declaration) -> None:
    """Write the declaration beside an ONNX file; equal content gives equal bytes."""
    values = declaration.model_dump(mode="json", exclude_none=True)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    declaration_path(file).write_text(text, encoding="utf-8")
