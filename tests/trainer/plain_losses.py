"""The losses between prototypes, of all scores at once: what the projected losses are compared with."""

import torch
import torch.nn.functional as F
from torch import Tensor


def dino_loss(student: Tensor, targets: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Mean cross-entropy over all pairs of a teacher's view and another view of the student.

    Args:
        student: (V, B, K) scores of V views, the global ones first.
        targets: (T, B, K) the teacher's, of the T global views in the same order; rows sum to 1.

    Returns:
        () float32, nats; T (V - 1) pairs of equal weight: pairs of a view with itself are left out.
    """
    log_probs = F.log_softmax(student.float() / temperature, dim=-1)
    with torch.autocast(student.device.type, enabled=False):
        pairs = -torch.einsum("tbk,vbk->tv", targets, log_probs) / student.shape[1]  # (T, V)
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0.0).sum() / (same.numel() - int(same.sum()))


def ibot_loss(student: Tensor, targets: Tensor, weights: Tensor, *, num_crops: int, temperature: float = 0.1) -> Tensor:
    """Cross-entropy on masked patches: mean within each crop, summed over crops, divided by `num_crops`.

    Args:
        student: (M, K) scores at the M masked patches of all global crops.
        targets: (M, K) the teacher's, of the same patches unmasked; rows sum to 1.
        weights: (M,) 1 / number of masked patches in the patch's crop.
        num_crops: global crops of the batch, masked or not: 2B.

    Returns:
        () float32, nats; 0 when nothing is masked.
    """
    log_probs = F.log_softmax(student.float() / temperature, dim=-1)
    cross_entropy = -(targets * log_probs).sum(dim=-1)  # (M,)
    return (cross_entropy * weights).sum() / num_crops


def dinov3_dino_loss(student: Tensor, targets: Tensor, *, local_weight: float, temperature: float = 0.1) -> Tensor:
    """The mean over pairs of a local and a global view, and that over pairs of two global ones, each with its share.

    Args:
        student: (V, B, K) scores of V views, the two global ones first.
        targets: (2, B, K) the teacher's.
    """
    scores = student.double() / temperature
    log_probs = scores - scores.logsumexp(dim=-1, keepdim=True)

    def mean_over(pairs: list[tuple[int, int]]) -> Tensor:
        return torch.stack([-(targets[t].double() * log_probs[v]).sum(dim=-1).mean() for t, v in pairs]).mean()

    views = len(student) - 2
    total = 2 * views + 2
    crossed = 2 / total * mean_over([(0, 1), (1, 0)])
    return crossed + local_weight * 2 * views / total * mean_over(
        [(t, v) for t in range(2) for v in range(2, views + 2)]
    )


def koleo_of_groups(cls: Tensor, *, group: int, views: int) -> Tensor:
    """Minus the mean log distance to the nearest neighbor of a group, mean over groups, sum over views."""
    total = torch.zeros((), dtype=torch.float64)
    for view in cls.double().chunk(views):
        parts = []
        for part in view.split(group):
            units = part / part.norm(dim=-1, keepdim=True)
            distances = torch.cdist(units, units, compute_mode="donot_use_mm_for_euclid_dist")
            distances = distances + 9 * torch.eye(len(units), dtype=torch.float64)
            parts.append(-(distances.amin(dim=1) + 1e-8).log().mean())
        total = total + torch.stack(parts).mean()
    return total


def gram_loss(student: Tensor, teacher: Tensor) -> float:
    """Squared differences of the cosines of every two patches, (C, P, D) and (C, P, E), by loops."""
    total, count = 0.0, 0
    for crops in zip(student.double(), teacher.double(), strict=True):
        own, given = (patches / patches.norm(dim=-1, keepdim=True) for patches in crops)
        for i in range(len(own)):
            for j in range(len(own)):
                total += float(own[i] @ own[j] - given[i] @ given[j]) ** 2
                count += 1
    return total / count


def sigreg(features: Tensor, directions: Tensor, *, knots: int, knot_range: float) -> float:
    """The Epps-Pulley statistic of features (N, E) along directions (E, M), by loops over directions and points."""
    points = torch.linspace(-knot_range, knot_range, knots, dtype=torch.float64)
    total = 0.0
    for direction in directions.double().T:
        numbers = features.double() @ direction
        values = []
        for t in points:
            gap = torch.exp(1j * t * numbers).mean() - torch.exp(-(t**2) / 2)
            values.append(gap.abs() ** 2 * torch.exp(-(t**2) / 2))
        total += len(features) * float(torch.trapezoid(torch.stack(values), points))
    return total / directions.shape[1]
