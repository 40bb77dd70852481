"""One way to name a backbone, wherever one is asked for.

| written | means |
|---|---|
| `lite0`, `dinov2_vitl14_reg`, `timm/NAME`, `my_package.module:NAME` | the id of a model, see `backbones/load.py` |
| `runs/tiny/backbone.safetensors` | an export of the trainer |
| `runs/tiny` | the export in that folder |
| `models/net.onnx`, `models` | an ONNX file with its declaration beside it, or the folder that holds both |

Weights are named apart from the model only where the id needs a file that does not tell what it is.
"""

from pathlib import Path

from curate.errors import WeightsError
from curate.models.files.header import BACKBONE

BY_FILE = {".safetensors": "curate", ".onnx": "onnx"}
"""Ids of the models that are nothing without a file, by its suffix."""


def resolve_model(model: str, weights: str | None = None) -> tuple[str, str | None]:
    """The id of a model and its weights, of a name as a person gives it.

    Args:
        model: an id, a file or a folder, see above.
        weights: file or URL that the id needs; None: packaged, from the hub, or what `model` names.

    Raises:
        WeightsError: a folder that holds no backbone, or more than one.
    """
    suffix = Path(model).suffix
    if suffix in BY_FILE:
        return BY_FILE[suffix], model
    folder = Path(model).expanduser()
    if not model or weights is not None or not folder.is_dir():
        return model, weights
    return _in_folder(model, folder) or (model, weights)


def _in_folder(name: str, folder: Path) -> tuple[str, str] | None:
    """What lies in a folder; None: nothing, and the name may well be an id."""
    if (folder / BACKBONE).is_file():
        return "curate", str(folder / BACKBONE)
    found = sorted(folder.glob("*.onnx"))
    if len(found) == 1:
        return "onnx", str(found[0])
    if found:
        raise WeightsError(f"{name}: a folder that holds {len(found)} ONNX files; name one of them")
    if "/" not in name.rstrip("/"):
        return None
    raise WeightsError(
        f"{name}: a folder that holds no {BACKBONE} and no ONNX file; of weights of others give the id of their model "
        "(`curate models` lists them), and the file as weights"
    )
