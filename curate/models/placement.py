"""How a frozen model lies on a device: memory format, and the batches that come to it."""

import torch
from torch import Tensor, nn

CONVNET_CONVOLUTIONS = 4
"""A model with more convolutions than this is laid out channels last; a ViT has one."""


def is_convnet(module: nn.Module) -> bool:
    """Whether the model is made of convolutions, which run fastest with channels last."""
    return sum(isinstance(part, nn.Conv2d) for part in module.modules()) > CONVNET_CONVOLUTIONS


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """Freeze the module and move it to the device, in the memory format that suits it."""
    module = module.to(device).eval()
    for parameter in module.parameters():  # TorchScript has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return module.to(memory_format=torch.channels_last) if is_convnet(module) else module


def send(batch: Tensor, device: torch.device, *, channels_last: bool = False) -> Tensor:
    """Copy an image batch (B, 3, H, W) to the device, through pinned memory where that overlaps with compute."""
    if channels_last:
        batch = batch.contiguous(memory_format=torch.channels_last)
    if device.type != "cuda":
        return batch.to(device)
    return batch.pin_memory().to(device, non_blocking=True)
