"""The format of the trainer's own exports, which `model: curate` loads; heads lie beside it as heads.safetensors."""

from pathlib import Path

from curate.models.convert.source import LoadedBackbone
from curate.models.convert.target import Forward, Options, Target, Tokens
from curate.models.files.export import read_export, write_export
from curate.models.files.header import HEADS
from curate.models.files.heads import write_heads


def write_safetensors(source: LoadedBackbone, path: Path, options: Options) -> None:
    """Write an export with everything that the source says of itself."""
    del options
    write_export(path, source.network, source.info)
    if source.heads is not None:
        info, state = source.heads
        write_heads(path.parent / HEADS, state, info)


def read_safetensors(source: LoadedBackbone, path: Path) -> Forward:
    """Load with `read_export`, as a run does that embeds with it."""
    del source
    network = read_export(path)[0].eval()
    return lambda images: Tokens(*network.forward_features(images)[::2])


def safetensors_howto(source: LoadedBackbone, path: Path) -> str:
    """The lines of a config that name the file."""
    del source
    return f"embed: {{model: curate, weights: {path}}}"


SAFETENSORS = Target(
    suffix=".safetensors", write=write_safetensors, read=read_safetensors, howto=safetensors_howto, takes_heads=True
)
