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
