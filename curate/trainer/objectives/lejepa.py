"""LeJEPA: all views of an image have one feature, and features lie as an isotropic Gaussian.

There is neither teacher nor prototype in the loss, and nothing that is balanced against collapse but one weight; the
student's average is kept as in every training, and is the product.

The defaults are those of the paper's two listings: 17 points from -5 to 5; the statistic times N, the number of images;
its mean over views; and views that approach the mean of the global ones, in which local crops, that may not show the
object, have no part. Its authors' minimal example differs: 17 points from 0 to 3, which are 33 from -3 to 3, 256
directions, and the mean of all views (`knots: 33`, `knot_range: 3`, `directions: 256`, `target: all`). A statistic
without N and with the weight m is, up to a factor, this loss with a weight of m / (m + N (1 - m)).

Source: Balestriero and LeCun 2025, arXiv:2511.08544.
"""

import numpy as np
import torch
from torch import Tensor, nn

from curate.feed.crops import NUM_GLOBAL_CROPS, Crops
from curate.models.nets.trained import Trained
from curate.trainer.heads import make_mlp
from curate.trainer.losses import add_koleo
from curate.trainer.objective import ForwardContext, Objective, ObjectiveOutput, backbone_of
from curate.trainer.objectives.feature_settings import LeJepaSettings
from curate.trainer.parallel import World


class LeJepa(Objective):
    """Agreement of views, and SIGReg."""

    def __init__(self, student: nn.ModuleDict, settings: LeJepaSettings, *, world: World) -> None:
        """`student` holds `backbone` and `projector`."""
        super().__init__(student, world=world)
        self.settings = settings

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The loss of normalized crops of B images."""
        settings = self.settings
        groups = backbone_of(self.student).forward_needed(crops.groups, generator=context.generator)
        cls = torch.cat([group.cls for group in groups])
        views = self.student["projector"](cls).unflatten(0, (-1, crops.num_images))  # (V, B, E)
        directions = draw_directions(views.shape[-1], settings.directions, rng=context.rng).to(views.device)
        terms = {
            "sigreg": sigreg(views, directions, knots=settings.knots, knot_range=settings.knot_range, world=self.world),
            "agreement": agreement(views, global_only=settings.target == "global"),
        }
        loss = settings.sigreg_weight * terms["sigreg"] + (1 - settings.sigreg_weight) * terms["agreement"]
        seen = groups[0].cls
        loss, terms = add_koleo(loss, terms, seen, settings, world=self.world, factor=context.weights.koleo)
        return ObjectiveOutput(loss, terms, seen.detach(), seen=seen)


def draw_directions(dim: int, number: int, *, rng: np.random.Generator) -> Tensor:
    """(dim, number) random unit vectors as columns; equal on ranks whose `rng` is."""
    drawn = torch.from_numpy(rng.standard_normal((dim, number), dtype=np.float32))
    return drawn / drawn.norm(dim=0, keepdim=True)


def sigreg(views: Tensor, directions: Tensor, *, knots: int, knot_range: float, world: World) -> Tensor:
    """How far the features of each view are from a standard Gaussian: the Epps-Pulley statistic along directions.

    Of N numbers x it is N times the integral of |mean exp(itx) - exp(-t^2/2)|^2 exp(-t^2/2) over t, here by the
    trapezoid rule; the integrand is even, so that the points above 0 stand for those below.

    Args:
        views: (V, B, E) features of V views of this rank's images; N counts those of all ranks.
        directions: (E, M) of length 1, equal on all ranks.
        knots: points of the rule, odd, evenly from -knot_range to knot_range.

    Returns:
        () float32, mean over views and directions.
    """
    with torch.autocast(views.device.type, enabled=False):
        step = 2 * knot_range / (knots - 1)
        at = step * torch.arange(knots // 2 + 1, device=views.device)  # (T,)
        gaussian = torch.exp(-at.square() / 2)
        widths = torch.full_like(at, 2 * step)
        widths[[0, -1]] = step  # 0 stands for itself alone, the last for half an interval on each side
        angles = (views.float() @ directions).unsqueeze(-1) * at  # (V, B, M, T)
        means = torch.stack([angles.cos().mean(dim=1), angles.sin().mean(dim=1)])  # (2, V, M, T)
        real, imaginary = world.all_gather(means.unsqueeze(0)).mean(dim=0)
        error = (real - gaussian).square() + imaginary.square()
        return views.shape[1] * world.size * (error * gaussian * widths).sum(dim=-1).mean()


def agreement(views: Tensor, *, global_only: bool = True) -> Tensor:
    """How far the features of the views of an image are from one another.

    Args:
        views: (V, B, E) features, those of global crops first.
        global_only: whether an image's own feature is the mean of its global views, or else of all.

    Returns:
        () float32, mean squared distance of all views from their image's feature, over images and dimensions.
    """
    views = views.float()
    return (views - views[: NUM_GLOBAL_CROPS if global_only else None].mean(dim=0)).square().mean()


def build_lejepa(
    settings: LeJepaSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> LeJepa:
    """LeJEPA around `backbone`, with `projector`, whose outputs are of scale 1 from the start: a Gaussian is near then,
    and SIGReg, which hardly sees features that all lie at 0, has a gradient."""
    hidden = settings.projector_hidden
    widths = (backbone.config.dim, hidden, hidden, settings.projector_out)
    projector = make_mlp(*widths, generator=generator, std=None)
    return LeJepa(nn.ModuleDict({"backbone": backbone, "projector": projector}), settings, world=world)
