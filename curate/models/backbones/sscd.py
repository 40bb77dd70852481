"""SSCD, the copy-detection descriptor of DINOv2's pipeline, as the TorchScript file of its authors.

TorchScript is code: loading a file runs what its author put into it. This is the one loader that executes a file, and
it takes only the path or URL that the user gives; `#sha256=HEX` at the end of a URL pins its content.

Source: Pizzi et al. 2022, arXiv:2202.10261. Code and weights are MIT-licensed.
"""

from typing import TYPE_CHECKING

from curate.errors import WeightsError, first_line
from curate.models.conventions import CONVENTIONS, preprocess_of
from curate.models.files.weights import locate
from curate.models.info import ModelInfo

if TYPE_CHECKING:
    from torch import nn

FAMILY = "sscd"
MODELS = (FAMILY,)
URL = "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt"
HOWTO = f"set `weights` to the URL {URL}, or to the path of that file"


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`."""
    return ModelInfo(
        model=model,
        dim=512,
        license="MIT",
        preprocess=preprocess_of(FAMILY),
        how_to_get=HOWTO,
        weights=locate(weights, None, model=model, fetch=fetch, howto=HOWTO),
        pooling=CONVENTIONS[FAMILY].pooling,
        bf16=False,  # its thresholds were calibrated in full precision
    )


def build(info: ModelInfo) -> "nn.Module":
    """The TorchScript module; loading it runs the code in the file.

    Raises:
        WeightsError: not a TorchScript file.
    """
    import torch

    file = info.weights_file()
    try:
        return torch.jit.load(str(file), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{info.model}: {file}: not a TorchScript file ({first_line(error)}); {HOWTO}") from error
