"""Convert a backbone to the format of another library.

The file is written under a temporary name, loaded by the library that it is for, and published only if that library
gives the outputs that ours gives: a wrong name or a transposed tensor would else show up in a user's results.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from curate.config import refuse_url
from curate.errors import ConfigError, WeightsError
from curate.models.convert import to_hub, to_huggingface, to_onnx, to_safetensors, to_timm
from curate.models.convert.source import LoadedBackbone, load_source, resized, with_plain_map
from curate.models.convert.target import Forward, Options, Target, Tokens
from curate.models.files.publish import publishing
from curate.models.nets.config import ViTConfig
from curate.progress import track

TargetName = Literal["hub", "timm", "huggingface", "safetensors", "onnx"]
TARGETS: dict[str, Target] = {
    "hub": to_hub.HUB,
    "timm": to_timm.TIMM,
    "huggingface": to_huggingface.HUGGINGFACE,
    "safetensors": to_safetensors.SAFETENSORS,
    "onnx": to_onnx.ONNX,
}
TOLERANCE = 1e-4
"""Largest accepted difference between outputs in float32, as a share of the largest value (taken as 1 if smaller)."""
BATCHES = (1, 3)
"""Numbers of pictures in a comparison; two of them, since a traced graph may have fixed the number of one."""


@dataclass(frozen=True)
class OutputDifference:
    """How far the outputs of two libraries lie apart on random pictures."""

    image_size: int
    """Side of the pictures, pixels."""
    images: int
    """Number of pictures."""
    largest: float
    """Largest absolute difference of a value, of cls and patches."""
    scale: float
    """Largest absolute value of our outputs, at least 1."""

    @property
    def accepted(self) -> bool:
        """Whether the outputs are as good as equal; False for NaN too."""
        return self.largest <= TOLERANCE * self.scale


@dataclass(frozen=True)
class Converted:
    """A backbone in another format."""

    path: Path
    """File or folder that was written."""
    checks: list[OutputDifference]
    """Comparisons at the image size where all formats must agree."""
    resampled: OutputDifference | None
    """Comparison at another size, where each library resamples positions in its own way; None: there is one size."""
    howto: str
    """How to load it, as a line of code."""


def convert(
    source: str,
    to: str,
    *,
    output: str | Path | None = None,
    heads: bool = False,
    size: int | None = None,
    opset: int | None = None,
    overwrite: bool = False,
) -> Converted:
    """Write `source` in the format `to`, and publish it only if the library it is for gives equal outputs.

    Args:
        source: see `load_source`.
        output: file or folder; None: beside the source, named after it.
        heads: write the projection heads too (formats hub and safetensors).
        size: side, in pixels, of the pictures for which a ViT's positions are resampled; None: as stored, for ONNX the
            size at which pictures are embedded.
        opset: version of ONNX's operators; None: 18.
        overwrite: replace an output that differs.

    Raises:
        ConfigError: a format, or an option that it does not have.
        WeightsError: a source that cannot be read, outputs that differ, or an output that exists and differs.
        MissingExtra: the format's library is not installed.
    """
    target = _checked_target(to, heads=heads, opset=opset)
    if output is not None:
        refuse_url(output, setting="--output")
    with track(f"export to {to}", 3, unit="steps") as advance:
        loaded = _load_sized(source, target, heads=heads, size=size)
        advance(note="loaded")
        path = _output(loaded, to, output)
        with publishing(path, overwrite=overwrite) as partial, torch.no_grad():
            target.write(loaded, partial, Options(opset=opset))
            advance(note="written")
            embed = target.read(loaded, partial)
            checks = [compare_outputs(loaded, embed, size=loaded.image_size, images=images) for images in BATCHES]
            _refuse_differences(checks, where=f"{source} as {to}")
            resampled = _resampled(loaded, embed) if target.any_size else None
        advance(note="equal")
    return Converted(path, checks, resampled, target.howto(loaded, path))


def _load_sized(source: str, target: Target, *, heads: bool, size: int | None) -> LoadedBackbone:
    loaded = load_source(source, heads=heads)
    loaded = loaded if target.takes_token_size else with_plain_map(loaded)
    if size is None and not target.any_size and isinstance(loaded.network.config, ViTConfig):
        size = loaded.info.image_size
    return loaded if size is None or size == loaded.image_size else resized(loaded, size)


def _output(source: LoadedBackbone, to: str, output: str | Path | None) -> Path:
    path = default_output(source, to) if output is None else Path(output)
    suffix = TARGETS[to].suffix
    if suffix and path.suffix != suffix:
        raise ConfigError(f"{path}: --to {to} writes a {suffix} file; name it {path.with_suffix(suffix)}")
    return path


def _checked_target(to: str, *, heads: bool, opset: int | None) -> Target:
    if to not in TARGETS:
        raise ConfigError(f"--to {to}: no such format; known are {', '.join(get_args(TargetName))}")
    if heads and not TARGETS[to].takes_heads:
        raise ConfigError(f"--to {to} --heads: the format has no place for heads; choose hub or safetensors")
    if opset is not None and to != "onnx":
        raise ConfigError(f"--to {to} --opset {opset}: only onnx has opsets; leave --opset out")
    return TARGETS[to]


def default_output(source: LoadedBackbone, to: str) -> Path:
    """`NAME-FORMAT` beside the source, or in the working directory for weights that came by their id."""
    given = Path(source.name).expanduser()
    stem = given.stem if given.is_file() else given.name
    folder = given.parent if given.exists() else Path()
    return folder / f"{stem}-{to}{TARGETS[to].suffix}"


def compare_outputs(source: LoadedBackbone, embed: Forward, *, size: int, images: int) -> OutputDifference:
    """Compare our outputs with the other library's, on random pictures.

    Raises:
        WeightsError: outputs of another shape.
    """
    pictures = torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(0))
    ours = source.network.forward_features(pictures)
    theirs = embed(pictures)
    pairs: list[tuple[Tensor, Tensor]] = list(zip(theirs, Tokens(ours.cls, ours.patches), strict=True))
    for found, expected in pairs:
        if found.shape != expected.shape:
            raise WeightsError(
                f"{source.name}: converted, it gives outputs of shape {tuple(found.shape)}, needed are "
                f"{tuple(expected.shape)}; nothing was written"
            )
    largest = torch.stack([(found - expected).abs().max() for found, expected in pairs]).max()
    scale = max(1.0, *(float(expected.abs().max()) for _, expected in pairs))
    return OutputDifference(size, images, float(largest), scale)


def _refuse_differences(checks: list[OutputDifference], *, where: str) -> None:
    for check in checks:
        if not check.accepted:
            raise WeightsError(
                f"{where}: outputs of {check.images} pictures of {check.image_size} px differ by {check.largest:.3g}, "
                f"at most {TOLERANCE * check.scale:.3g} is accepted; nothing was written: are its weights finite?"
            )


def _resampled(source: LoadedBackbone, embed: Forward) -> OutputDifference | None:
    """Compare at the size at which pictures are embedded, or, where that is the stored one, at two patches more."""
    config = source.network.config
    if not isinstance(config, ViTConfig):
        return None
    usual = source.info.image_size
    size = config.image_size + 2 * config.patch_size if usual == config.image_size else usual
    if size % config.patch_size:
        return None
    return compare_outputs(source, embed, size=size, images=1)
