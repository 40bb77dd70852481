"""Batch norms whose statistics stand still.

A batch norm normalizes by the mean and variance of the batch in training, and by running averages of these in use. A
network that goes on from weights of others often sees small batches of few images, local crops among them, and each of
several processes its own. So its batch norms may keep the averages that they were given, in training too: the network
then computes the same for an image whatever else is in the batch, and scales and shifts learn on.
"""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """The layers that keep statistics of batches, of torch or derived from its, as timm's."""
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats)


def follow_batches(module: nn.Module, follows: bool) -> None:
    """Let batch norms normalize by the batch, and average its statistics, if the network `follows` and is in training;
    else by the averages, which stay as they are. Layers that do not learn never follow."""
    for layer in batch_norms(module):
        learns = layer.weight is None or layer.weight.requires_grad
        layer.train(module.training and follows and learns)
