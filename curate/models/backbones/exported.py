"""Exports of the trainer as backbones: `model: curate` with the file as `weights`."""

from typing import TYPE_CHECKING

from curate.errors import ConfigError, WeightsError
from curate.models.conventions import CONVENTIONS
from curate.models.files.header import HOWTO, read_header
from curate.models.files.weights import locate
from curate.models.info import ModelInfo

if TYPE_CHECKING:
    from torch import nn

MODELS = ("curate",)


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`; the number of dims of a timm architecture is asked of timm.

    Raises:
        WeightsError: no weights given, though only they know the architecture.
    """
    if weights is None:
        raise WeightsError(f"{model}: no weights given; {HOWTO}")
    file = locate(weights, None, model=model, fetch=fetch, howto=HOWTO)
    if file is None:
        raise WeightsError(f"{model}: {weights} is not downloaded yet; {HOWTO}")
    config, export = read_header(file)
    try:
        dim = config.dim
    except ConfigError as error:
        raise WeightsError(f"{file}: {error}") from error
    return ModelInfo(
        model=model,
        dim=dim,
        license=export.license,
        preprocess=export.preprocess,
        how_to_get=HOWTO,
        weights=file,
        pooling=CONVENTIONS[model].pooling,
    )


def outline(info: ModelInfo) -> "nn.Module":
    """See `load.outline`."""
    from curate.models.nets.trained import build_trained

    return build_trained(read_header(info.weights_file())[0])


def build(info: ModelInfo) -> "nn.Module":
    """The network with its weights."""
    from curate.models.files.export import read_export

    return read_export(info.weights_file())[0]
