import torch
from torch import nn

from curate.models.placement import is_convnet, place, send

CPU = torch.device("cpu")


def test_only_convnets_run_channels_last() -> None:
    convnet = nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(5)))
    assert is_convnet(convnet)
    assert not is_convnet(nn.Sequential(nn.Conv2d(3, 8, 14), nn.Linear(8, 8)))
    placed = place(convnet, CPU)
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not placed.training
    assert not any(parameter.requires_grad for parameter in placed.parameters())


def test_sending_keeps_values() -> None:
    batch = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    sent = send(batch, CPU, channels_last=True)
    assert sent.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(sent, batch)
