"""CPU seconds of a DINOv3 ViT beside a DINOv2 ViT of the same size, forward and backward, in turns."""

import statistics
import time
from collections.abc import Sequence
from typing import Annotated

import torch
import typer

from benchmarks.figures import Figure, peak_memory, show
from curate.cli.arguments import Json
from curate.models.device import Precision, autocast
from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer

GLOBAL, LOCAL = 224, 96
"""Sides of the crops, pixels."""
PATCH, REGISTERS = 16, 4
"""Of both, so that both have as many tokens."""
CPU = torch.device("cpu")


def bench_architectures(
    *, size: str = "small", depth: int = 2, images: int = 4, repeats: int = 15, precision: Precision = "fp32"
) -> list[Figure]:
    """Measure both in turns, and keep the median of each.

    Args:
        size: of the presets: tiny, small, base or large.
        depth: number of blocks of both.
        images: of a pass, each in two global and eight local crops.
    """
    networks = {
        name: VisionTransformer(
            vit_config(
                f"{name}_{size}",
                depth=depth,
                patch_size=PATCH,
                image_size=GLOBAL,
                num_registers=REGISTERS,
                drop_path_rate=0.0,
            ),
            generator=torch.Generator().manual_seed(0),
        ).train()
        for name in ("vit", "dinov3")
    }
    crops = [torch.randn(count * images, 3, side, side) for count, side in ((2, GLOBAL), (8, LOCAL))]
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for number in range(repeats + 1):
        order = list(networks.items())
        for name, network in order if number % 2 else order[::-1]:
            spent = _pass(network, crops, precision)
            if number:  # the first one allocates
                seconds[name].append(spent)
    ours, beside = (statistics.median(seconds[name]) for name in ("dinov3", "vit"))
    return [
        Figure(
            f"DINOv3 ViT, {size}, {depth} blocks, {precision}",
            ours,
            "CPU s a pass",
            "DINOv2 ViT of as many tokens",
            beside,
            better="lower",
            peak_bytes=peak_memory(),
            note=f"median of {repeats}, {torch.get_num_threads()} threads",
        )
    ]


def _pass(network: VisionTransformer, crops: Sequence[torch.Tensor], precision: Precision) -> float:
    """CPU seconds of one forward and backward pass."""
    network.zero_grad(set_to_none=True)
    start = time.process_time()
    with autocast(CPU, precision):
        groups = network.forward_crops(crops, generator=torch.Generator().manual_seed(1))
    torch.stack([tokens.float().square().sum() for group in groups for tokens in group]).sum().backward()
    return time.process_time() - start


def command(
    json: Json = False,
    size: Annotated[str, typer.Option(help="tiny, small, base or large")] = "small",
    depth: Annotated[int, typer.Option(help="blocks of both")] = 2,
    images: Annotated[int, typer.Option(help="images of a pass, each in 2 + 8 crops")] = 4,
    repeats: Annotated[int, typer.Option(help="passes of each")] = 15,
) -> None:
    """A DINOv3 ViT beside a DINOv2 ViT of the same size: CPU seconds of a forward and backward pass."""
    figures: list[Figure] = []
    for precision in ("fp32", "bf16"):
        figures += bench_architectures(size=size, depth=depth, images=images, repeats=repeats, precision=precision)
    show(figures, json)
