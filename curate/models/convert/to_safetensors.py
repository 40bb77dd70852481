"""The trainer's own format, which `model: curate` loads; heads lie beside it as heads.safetensors."""

from pathlib import Path

from curate.models.convert.source import HEADS, Source
from curate.models.convert.target import Embed, Options, Target, Tokens
from curate.models.files.export import read_export, write_export
from curate.models.files.heads import write_heads


def write(source: Source, path: Path, options: Options) -> None:
    """`write_export`, with everything that the source says of itself."""
    del options
    write_export(path, source.network, source.info)
    if source.heads is not None:
        info, state = source.heads
        write_heads(path.parent / HEADS, state, info)


def read(source: Source, path: Path) -> Embed:
    """`read_export`, as `curate run` does."""
    del source
    network = read_export(path)[0].eval()
    return lambda images: Tokens(*network.forward_features(images)[::2])


def howto(source: Source, path: Path) -> str:
    """Where a config names the file."""
    del source
    return f"embed: {{model: curate, weights: {path}}}"


TARGET = Target(suffix=".safetensors", write=write, read=read, howto=howto, takes_heads=True)
