"""The projection head, whose outputs are scores of prototypes: products of unit vectors with the prototypes.

Source: Caron et al. 2021, arXiv:2104.14294; sizes of DINOv2, arXiv:2304.07193; plain prototypes: DINOv3,
arXiv:2508.10104.
"""

from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.files.heads import HeadShape
from curate.models.nets.lean import autocast_dtype
from curate.models.nets.trained import Trained
from curate.trainer.objectives.settings import HeadSettings, PrototypeSettings


class Projection(NamedTuple):
    """The two factors of scores; a loss multiplies them in chunks and never holds all scores, see `projected.py`.

    A teacher's prototypes are in the precision of products from the start: autocast would convert them again for each
    chunk. A student's stay as they are, since the loss converts them once and its gradient need not be rounded.
    """

    units: Tensor  # (M, D) of length 1
    prototypes: Tensor  # (K, D)

    def scores(self, rows: slice | Tensor = slice(None)) -> Tensor:
        """(M, K) of all units, or of some."""
        return F.linear(self.units[rows], self.prototypes)

    def split(self, first: int) -> "tuple[Projection, Projection]":
        """The first units and the others, against the same prototypes."""
        return Projection(self.units[:first], self.prototypes), Projection(self.units[first:], self.prototypes)


class PrototypeLayer(nn.Module):
    """Scores of prototypes: a linear layer without bias whose rows are a direction times a trainable scale."""

    def __init__(self, dim: int, num_prototypes: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        bound = dim**-0.5  # torch's own rule for linears; only the learning speed depends on it
        direction = torch.empty(num_prototypes, dim).uniform_(-bound, bound, generator=generator)
        self.direction = nn.Parameter(direction)
        self.scale = nn.Parameter(torch.ones(num_prototypes, 1))

    def prototypes(self) -> Tensor:
        """(K, D) scale times unit direction, by the one pass of `torch.nn.utils.weight_norm`."""
        return torch._weight_norm(self.direction, self.scale, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(M, D) -> (M, K) scores."""
        return F.linear(x, self.prototypes())


class LinearPrototypeLayer(nn.Module):
    """Scores of prototypes that are the rows of a plain linear layer without bias: their lengths are learned too."""

    def __init__(self, dim: int, num_prototypes: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_prototypes, dim))
        nn.init.trunc_normal_(self.weight, std=0.02, generator=generator)

    def prototypes(self) -> Tensor:
        """(K, D), a copy of the weights: FSDP2 frees gathered ones when the head has run, before the loss."""
        return self.weight.clone()

    def forward(self, x: Tensor) -> Tensor:
        """(M, D) -> (M, K) scores."""
        return F.linear(x, self.weight)


class PrototypeHead(nn.Module):
    """Three-layer GELU MLP to a bottleneck of unit vectors, then prototype scores: (M, D) -> (M, K)."""

    last_layer: PrototypeLayer | LinearPrototypeLayer

    def __init__(
        self,
        dim: int,
        num_prototypes: int,
        *,
        hidden: int = 2048,
        bottleneck: int = 256,
        linear: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """The head for tokens of width `dim`.

        Args:
            hidden: width of the two hidden layers.
            bottleneck: width of the unit vectors.
            linear: whether the prototypes are the rows of a plain linear layer instead of directions times scales.
            generator: draws the weights; None: torch's global one.
        """
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
                nn.init.zeros_(layer.bias)
        make = LinearPrototypeLayer if linear else PrototypeLayer
        self.last_layer = make(bottleneck, num_prototypes, generator=generator)

    @property
    def num_prototypes(self) -> int:
        """K, the number of scores."""
        layer = self.last_layer
        return len(layer.weight if isinstance(layer, LinearPrototypeLayer) else layer.direction)

    def project(self, x: Tensor) -> Projection:
        """The unit vectors and prototypes whose products are the scores of tokens (M, dim)."""
        x = self.mlp(x)
        eps = 1e-6 if x.dtype in (torch.float16, torch.bfloat16) else 1e-12
        units, dtype = F.normalize(x, dim=-1, eps=eps), autocast_dtype(x)
        prototypes = self.last_layer.prototypes()
        return Projection(units.to(dtype), prototypes if torch.is_grad_enabled() else prototypes.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(M, dim) tokens -> (M, K) scores."""
        return self.project(x).scores()


def make_mlp(*widths: int, generator: torch.Generator, std: float | None = 0.02) -> nn.Sequential:
    """Linears of these widths with GELUs between them.

    Args:
        std: of the weights; None: that which keeps the scale of what goes through, 1 / sqrt(width).
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.trunc_normal_(linear.weight, std=fan_in**-0.5 if std is None else std, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.GELU()]
    return nn.Sequential(*layers[:-1])


def make_head(backbone: Trained, shape: HeadShape, *, generator: torch.Generator | None = None) -> PrototypeHead:
    """A head of this shape for the tokens of `backbone`, with weights drawn from `generator`."""
    return PrototypeHead(
        backbone.config.dim,
        shape.prototypes,
        hidden=shape.hidden,
        bottleneck=shape.bottleneck,
        linear=shape.last_layer == "linear",
        generator=generator,
    )


def head_shape(
    settings: PrototypeSettings, prototypes: int, own: HeadSettings | None = None, *, linear: bool = False
) -> HeadShape:
    """The widths of a head: its own where it has some, else those of the head for whole crops.

    Args:
        prototypes: of the head for whole crops.
        own: what another head has of its own; None: nothing, or it is the one for whole crops.
    """
    own = own or HeadSettings()
    return HeadShape(
        hidden=own.hidden or settings.head_hidden,
        bottleneck=own.bottleneck or settings.head_bottleneck,
        prototypes=own.prototypes or prototypes,
        last_layer="linear" if linear else "weight_norm",
    )


def head_of(networks: nn.ModuleDict, name: str) -> PrototypeHead:
    """The head `name` among the networks of a student or teacher."""
    return cast(PrototypeHead, networks[name])
