"""Any timm model as a backbone to train, with the methods of `VisionTransformer`.

timm's models differ in what they call tokens. Plain ViTs return (B, T, D) with cls and registers first; multi-stage
models (Swin, ConvNeXt, PVT) return the feature maps of their last stage, channels first or last; and some apply the
final norm only after pooling. `timm_features` brings all of them to one form. The pooled vector, which stands in the
place of the cls token, is timm's own, so that timm computes the same from an export.

Groups of crops of different size run one after another: only our ViT packs them into one pass.

The teacher normalizes by the running statistics of batch norms, which are copied from the student: they are averages
already. Statistics that stand still (`frozen_statistics`) are those that the network was given.
"""

import difflib
import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.errors import ConfigError
from curate.models.conventions import timm_pooling
from curate.models.nets.config import TowerConfig
from curate.models.nets.features import Features, NeededTokens
from curate.models.nets.statistics import follow_batches
from curate.models.nets.timm_arguments import check_arguments

ANY_SIZE = {"strict_img_size": False, "dynamic_img_size": True}
"""Arguments that let a timm model take crops of several sizes: Swin's, then a ViT's."""
RESERVED = ("num_classes", "pretrained", "features_only", "checkpoint_path", "pretrained_cfg_overlay")
"""Arguments of `timm.create_model` that a tower sets itself, or that do not fit a backbone to train."""


def tower_config(
    name: str,
    *,
    image_size: int | None = None,
    token_size: int | None = None,
    outputs: int | None = None,
    **kwargs: Any,
) -> TowerConfig:
    """The timm architecture `name`, set to take crops of several sizes where the model can.

    Args:
        image_size: side of the largest crops, pixels, for models that are built for a size, such as Swin.
        token_size: side in pixels of the patches to whose grid the last map is resized; None: it stays as it is.
        outputs: width of a linear layer after pooling; None: the vector is what timm pools.
        kwargs: further arguments of timm's model; they win over `image_size` and over how its authors pool it.

    Raises:
        ConfigError: timm has no such model, does not take these arguments, or pools to a width that its tokens do not
            have.
    """
    import timm

    if not timm.is_model(name) or "." in name:
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "timm.list_models() has the names"
        raise ConfigError(f"{name}: timm has no such architecture; {hint}")
    refused = sorted(kwargs.keys() & set(RESERVED))
    if refused:
        raise ConfigError(f"{name}: {', '.join(refused)} cannot be given to a backbone to train; leave it out")
    kwargs = timm_pooling(name) | kwargs
    if image_size is not None and timm.get_pretrained_cfg(name).fixed_input_size:
        kwargs = {"img_size": image_size} | kwargs
    try:
        check_arguments(kwargs)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    plain = TowerConfig(name=name, outputs=outputs, kwargs=json.loads(json.dumps(kwargs)))
    with torch.device("meta"):
        net = plain.create()
    if outputs is not None and not isinstance(net.get_classifier(), nn.Linear):
        raise ConfigError(
            f"{name}: does not end with a linear layer, so that there are no {outputs} outputs; leave outputs out"
        )
    if getattr(net, "head_hidden_size", net.num_features) != net.num_features:
        raise ConfigError(
            f"{name}: pools to {net.head_hidden_size} dims, its tokens have {net.num_features}; "
            "choose a model whose head has no layer before the classifier, such as swin_tiny_patch4_window7_224"
        )
    known = inspect.signature(type(net).__init__).parameters
    flexible = next(({key: value} for key, value in ANY_SIZE.items() if key in known), {})
    return TowerConfig(name=name, token_size=token_size, outputs=outputs, kwargs=flexible | plain.kwargs)


class TimmTower(nn.Module):
    """A timm model without classifier; `net` is timm's model, with timm's names of parameters."""

    def __init__(self, config: TowerConfig, *, generator: torch.Generator | None = None) -> None:
        """Build the model with fresh weights drawn from `generator` (None: torch's global one)."""
        super().__init__()
        self.config = config
        self.frozen_statistics = False
        """Whether batch norms keep the statistics that they have, in training too."""
        with _drawing_from(generator):
            self.net = config.create()
        self.dim: int = config.outputs or self.net.num_features

    def train(self, mode: bool = True) -> "TimmTower":
        """Put the network in training mode; frozen statistics stay as they are."""
        super().train(mode)
        self.follow_batches(True)
        return self

    def follow_batches(self, follows: bool) -> None:
        """Whether batch norms take in the statistics of batches in training, where these are not frozen for good."""
        follow_batches(self.net, follows and not self.frozen_statistics)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalized images -> (B, D), the pooled features of timm."""
        return self.net(images)

    def forward_features(self, images: Tensor, masks: Tensor | None = None) -> Features:
        """The pooled vector (as `cls`) and the tokens of one group of crops.

        Raises:
            ValueError: masks were given; these models have no mask token.
            ConfigError: the model gives no single map of tokens.
        """
        if masks is not None:
            raise ValueError(f"{self.config.name}: has no mask token; train it with an objective without masks")
        return timm_features(self.net, images, where=self.config.name, token_size=self.config.token_size)

    def forward_crops(
        self,
        crops: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> list[Features]:
        """All groups of crops, one after another; see `VisionTransformer.forward_crops`.

        Raises:
            ValueError: a mask was given.
        """
        masks = [None] * len(crops) if masks is None else masks
        with _drawing_from(generator, crops[0].device) if self.training else nullcontext():
            return [self.forward_features(images, mask) for images, mask in zip(crops, masks, strict=True)]

    def forward_needed(
        self,
        crops: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        *,
        patches: Sequence[Tensor | None] | None = None,
        generator: torch.Generator | None = None,
    ) -> list[NeededTokens]:
        """As `forward_crops`, but returns the tokens asked for alone; see `VisionTransformer.forward_needed`."""
        patches = [None] * len(crops) if patches is None else patches
        groups = self.forward_crops(crops, masks, generator=generator)
        wanted = [slice(0) if rows is None else rows for rows in patches]
        return [
            NeededTokens(group.cls, group.patches.flatten(0, 1)[rows])
            for group, rows in zip(groups, wanted, strict=True)
        ]


def timm_features(net: Any, images: Tensor, *, where: str, token_size: int | None = None) -> Features:
    """The pooled vector (as `cls`) and the tokens of a timm model, row by row from the top left, after its final norm.

    Args:
        where: name of the model, for messages.
        token_size: side in pixels of the patches to whose grid a map of tokens is resized, before the norm; the pooled
            vector is of the map as it was. None: it is not resized.

    Raises:
        ConfigError: the model gives no single map of tokens, or `token_size` was given to one without a map.
    """
    last = net.forward_features(images)
    if not isinstance(last, Tensor) or last.ndim not in (3, 4):
        raise ConfigError(f"{where}: gives no single map of tokens; choose another timm model")
    last_layer = net.get_classifier() if getattr(net, "num_classes", 0) else nn.Identity()
    pooled = last_layer(net.forward_head(last, pre_logits=True))
    if last.ndim == 3:
        if token_size is not None:
            raise ConfigError(f"{where}: gives tokens and no map that could be resized; leave token_size out")
        prefix = getattr(net, "num_prefix_tokens", 0)
        tokens = last_layer(_token_norm(net)(last))
        return Features(pooled, tokens[:, min(1, prefix) : prefix], tokens[:, prefix:])
    last = last.permute(0, 3, 1, 2) if getattr(net, "output_fmt", "NCHW") == "NHWC" else last
    if token_size is not None:
        grid = tuple(side // token_size for side in images.shape[-2:])
        last = F.interpolate(last, size=grid, mode="bilinear", antialias=True)
    patches = last_layer(_map_norm(net)(last).flatten(2).transpose(1, 2))
    return Features(pooled, patches[:, :0], patches)


def _token_norm(net: Any) -> nn.Module:
    """The norm that a ViT applies after pooling in the place of one before it: for one scale of values, tokens need it
    too."""
    after = getattr(net, "fc_norm", None)
    return after if after is not None and isinstance(getattr(net, "norm", None), nn.Identity) else nn.Identity()


def _map_norm(net: Any) -> nn.Module:
    """The norm that a model applies after pooling, as ConvNeXt does: for one scale of values, tokens need it too."""
    if getattr(net, "output_fmt", "NCHW") == "NHWC":
        return nn.Identity()
    return getattr(getattr(net, "head", None), "norm", None) or nn.Identity()


@contextmanager
def _drawing_from(generator: torch.Generator | None, device: torch.device | None = None) -> Iterator[None]:
    """Within it, torch's global random numbers, which timm draws from, follow from `generator`; None: change nothing.

    The state of the global generators is put back afterwards, so that `generator` alone decides what timm draws.
    """
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for where in cuda:
            with torch.cuda.device(where):
                torch.cuda.manual_seed(seed)
        yield
