"""KoLeo, and targets from the teacher's scores by a centered softmax; `sinkhorn` has the other way.

Scores are (M, K) over K prototypes in any float dtype; everything here computes in float32. The cross-entropies with
these targets are in `projected.py`.

Source: DINO, arXiv:2104.14294; iBOT, arXiv:2111.07832; DINOv2, arXiv:2304.07193.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from curate.feed.crops import NUM_GLOBAL_CROPS
from curate.trainer.heads import Projection
from curate.trainer.objectives.settings import ObjectiveSettings
from curate.trainer.parallel import World
from curate.trainer.projected import Targets

CENTER_MOMENTUM = 0.9
KOLEO_EPS = 1e-8


def centered_targets(
    teacher: Projection, center: Tensor, *, temperature: float, world: World, momentum: float = CENTER_MOMENTUM
) -> Targets:
    """Targets by a softmax of scores around `center` (K,), computed for the rows that are asked for.

    The center moves in place towards this pass's mean, for the targets of the next pass.
    """
    before = center.clone()
    update_center(center, teacher, world=world, momentum=momentum)
    return lambda rows: softmax_targets(teacher.scores(rows), before, temperature=temperature)


@torch.no_grad()
def softmax_targets(scores: Tensor, center: Tensor, *, temperature: float) -> Tensor:
    """Softmax of centered scores: (M, K) float32; the center (K,) keeps single prototypes from dominating."""
    return F.softmax(torch.sub(scores, center).div_(temperature), dim=-1)  # float32, as the center is


@torch.no_grad()
def update_center(center: Tensor, teacher: Projection, *, world: World, momentum: float = CENTER_MOMENTUM) -> None:
    """Move `center` (K,) in place towards the mean of the teacher's scores over all ranks' rows."""
    with torch.autocast(center.device.type, enabled=False):  # the sum of products is the product of the sum
        summed = F.linear(teacher.units.float().sum(dim=0), teacher.prototypes.float())
    total = world.sum(summed)
    count = world.sum(summed.new_full((), len(teacher.units)))
    # Without rows it stays as it is. To branch on their number, the host would wait for the device.
    center.lerp_(total / count.clamp_min(1), (1 - momentum) * (count > 0))


def koleo_loss(features: Tensor) -> Tensor:
    """Spread features over the sphere: minus the mean log distance to the nearest neighbor in the batch.

    Args:
        features: (B, D) of one view, not normalized; B >= 2.

    Returns:
        () float32. Features that coincide exactly have no direction to part in and get no gradient from it,
        instead of an infinite one.

    Raises:
        ValueError: fewer than two rows.

    Source: Sablayrolles et al. 2018, arXiv:1806.03198.
    """
    if len(features) < 2:
        raise ValueError(f"koleo_loss: {len(features)} rows; a nearest neighbor needs at least 2")
    with torch.autocast(features.device.type, enabled=False):
        x = F.normalize(features.float(), dim=-1, eps=KOLEO_EPS)  # (B, D)
        with torch.no_grad():
            similarity = x @ x.T
            nearest = similarity.fill_diagonal_(-2.0).argmax(dim=1)
        squared = (x - x[nearest]).square().sum(dim=-1)
        distance = squared.clamp_min(KOLEO_EPS**2).sqrt()  # the clamp cuts the gradient at 0
        return -torch.log(distance + KOLEO_EPS).mean()


def add_koleo(
    loss: Tensor,
    terms: dict[str, Tensor],
    cls: Tensor,
    settings: ObjectiveSettings,
    *,
    world: World,
    factor: float = 1.0,
    num_views: int = NUM_GLOBAL_CROPS,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`loss` and its `terms` with KoLeo among them, where the settings and the iteration give it a weight.

    Args:
        cls: (num_views * B, D) the student's features of global views; each view spreads among the images of all ranks,
            or of each group of them.
        factor: the iteration's, on the weight of the settings.
    """
    weight = settings.koleo_weight * factor
    if weight == 0:
        return loss, terms
    views = [world.all_gather(view) for view in cls.chunk(num_views)]
    group = settings.koleo_group or len(views[0])
    losses = [koleo_loss(part) for view in views for part in view.split(group)]
    koleo = torch.stack(losses).sum() / (len(views[0]) // group)
    return loss + weight * koleo, {**terms, "koleo": koleo}
