"""ONNX files as backbones: `model: onnx` with the file as `weights`, and its declaration beside it.

What a declaration holds is shown in `files/declaration.py`, what a file may not do in `files/onnx_graph.py`. `curate
export --to onnx` writes both, so that an export is a backbone again.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from curate.errors import WeightsError
from curate.models.conventions import CONVENTIONS
from curate.models.files.declaration import Declaration, read_declaration
from curate.models.files.onnx_graph import check_graph, find_data, fixed_batch
from curate.models.files.weights import is_url
from curate.models.info import ModelInfo

if TYPE_CHECKING:
    from torch import nn

MODELS = ("onnx",)
HOWTO = "set `weights` to an .onnx file with its declaration NAME.onnx.yaml beside it"
NO_LICENSE = "unknown: its declaration names none"


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`.

    Raises:
        WeightsError: no weights given, though only they have a declaration; or it is absent or wrong.
    """
    if weights is None:
        raise WeightsError(f"{model}: no weights given; {HOWTO}")
    file = find_onnx(weights, model=model)
    return describe_file(model, file, read_declaration(file))


def build(info: ModelInfo) -> "nn.Module":
    """The graph as a network."""
    return build_file(info, read_declaration(info.weights_file()))


def find_onnx(weights: str | Path, *, model: str) -> Path:
    """The ONNX file: `weights` itself, or the only one in that folder.

    Raises:
        WeightsError: no such file on this machine, or several.
    """
    if is_url(str(weights)):
        raise WeightsError(f"{model}: {weights}: an ONNX file needs its declaration beside it; download both, {HOWTO}")
    path = Path(weights).expanduser()
    found = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    if not found:
        raise WeightsError(f"{model}: {path}: a folder without an .onnx file; {HOWTO}")
    if len(found) > 1:
        raise WeightsError(f"{model}: {path}: holds {len(found)} .onnx files; name one of them")
    if not found[0].is_file():
        raise WeightsError(f"{model}: {path}: no such weight file; {HOWTO}")
    if found[0].suffix != ".onnx":
        raise WeightsError(f"{model}: {path}: not an .onnx file; {HOWTO}")
    return found[0]


def describe_file(model: str, file: Path, declared: Declaration, *, package: str = "") -> ModelInfo:
    """What is known of the model in an ONNX file.

    Args:
        package: the installed package that brings the file, with its license; empty: none.

    Raises:
        WeightsError: one of its data files is absent, or leads out of the folder.
    """
    return ModelInfo(
        model=model,
        dim=declared.output.dim,
        license="; ".join(filter(None, [declared.license, package])) or NO_LICENSE,
        preprocess=declared.input.preprocess(),
        how_to_get=HOWTO,
        weights=file,
        bf16=False,
        own_precision=True,
        data=find_data(file, declared.data),
        declared=declared.vectors_digest(),
        pooling=CONVENTIONS["onnx"].pooling,
        copies=declared.copies.rule() if declared.copies else None,
        package=package,
    )


def build_file(info: ModelInfo, declared: Declaration) -> "nn.Module":
    """The graph as a network, checked against its declaration.

    Raises:
        MissingExtra: onnx is not installed.
        WeightsError: no ONNX file, one that reads other files or code, or a declaration that disagrees with it.
    """
    from curate.models.nets.onnx_network import OnnxNetwork

    file = info.weights_file()
    return OnnxNetwork(file, declared, batch=fixed_batch(check_graph(file, declared)))
