"""The projection head, whose outputs are scores of prototypes: products of unit vectors with the prototypes.

Source: Caron et al. 2021, arXiv:2104.14294; sizes of DINOv2, arXiv:2304.07193.
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.nets.lean import autocast_dtype
from curate.models.nets.trained import Trained
from curate.trainer.objectives.settings import PrototypeSettings


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


class PrototypeHead(nn.Module):
    """Three-layer GELU MLP to a bottleneck of unit vectors, then prototype scores: (M, D) -> (M, K)."""

    def __init__(
        self,
        dim: int,
        num_prototypes: int,
        *,
        hidden: int = 2048,
        bottleneck: int = 256,
        generator: torch.Generator | None = None,
    ) -> None:
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
        self.last_layer = PrototypeLayer(bottleneck, num_prototypes, generator=generator)

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


def make_head(
    backbone: Trained, settings: PrototypeSettings, *, prototypes: int, generator: torch.Generator
) -> PrototypeHead:
    """A head for the tokens of `backbone`, with weights drawn from `generator`."""
    return PrototypeHead(
        backbone.config.dim,
        prototypes,
        hidden=settings.head_hidden,
        bottleneck=settings.head_bottleneck,
        generator=generator,
    )


def head_of(networks: nn.ModuleDict, name: str) -> PrototypeHead:
    """The head `name` among the networks of a student or teacher."""
    return cast(PrototypeHead, networks[name])
