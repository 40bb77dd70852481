"""What machines attain: stated profiles of `configs/hardware/`, or this machine, measured (`here.py`)."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from curate.config import Settings, parse, read_yaml

HERE = "here"
"""The name that stands for measuring this machine."""

Rate = Annotated[float, Field(gt=0)]


class Processor(Settings):
    """Products that one CPU core, or one GPU, attains; not what its maker promises."""

    forward: Rate
    """flop/s in the forward pass of a vision transformer, at the precision that `auto` picks."""
    products: Rate
    """flop/s in products of float16 vectors with float32 sums, as searches and k-means make them."""
    price: Annotated[float, Field(ge=0)] = 0.0
    """Of an hour, in any currency; 0: not known."""


class Hardware(Settings):
    """One kind of machine."""

    name: str
    """What the tables call it."""
    cores: Annotated[int, Field(ge=1)]
    """CPU cores of one machine."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of one machine."""
    core: Processor
    """One CPU core."""
    gpu: Processor | None = None
    """One GPU; None: the machine has none."""
    decode: Rate
    """Megapixels a second that one core reads, hashes, decodes and resizes of JPEG files."""
    registration: Rate
    """Pairs of pictures a second that one core lays over each other."""
    rows: Rate
    """Rows a second that one core sorts, joins or draws."""
    read: Rate
    """Bytes a second that one machine reads from the store."""
    write: Rate
    """Bytes a second that one machine writes to the store."""
    storage_price: Annotated[float, Field(ge=0)] = 0.0
    """Of a terabyte (1e12 bytes) for a month."""
    request_price: Annotated[float, Field(ge=0)] = 0.0
    """Of a million requests, most of which read."""


def load_hardware(name: str) -> Hardware:
    """A profile: `here`, the name of a bundled one, or the path of a YAML file.

    Raises:
        ConfigError: there is no such file, or it lacks a field.
    """
    if name == HERE:
        from curate.scale.here import measure_hardware  # which loads PyTorch

        return measure_hardware()
    return parse(Hardware, read_yaml(name if Path(name).suffix else f"hardware/{name}"), where=name)
