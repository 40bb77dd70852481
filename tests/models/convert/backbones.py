"""Small backbones and their exports."""

from pathlib import Path

import torch

from curate.models.files.export import write_export
from curate.models.files.header import ExportInfo
from curate.models.files.heads import HeadsInfo, write_heads
from curate.models.nets.config import ViTConfig
from curate.models.nets.tower import TimmTower, tower_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.heads import PrototypeHead

SIZE = 56
INFO = ExportInfo(
    image_size=SIZE, short_edge=64, mean=(0.4, 0.5, 0.6), license="CC0-1.0", provenance={"iterations": 300}
)
VARIANTS = [(0, "mlp"), (4, "mlp"), (0, "swiglu"), (4, "swiglu")]


def vit(num_registers: int = 0, ffn: str = "mlp") -> VisionTransformer:
    """Every parameter is random; one attention head of 64 dims, as released models have them."""
    config = ViTConfig(dim=64, depth=2, heads=1, image_size=SIZE, num_registers=num_registers, ffn=ffn)
    model = VisionTransformer(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def convnext() -> TimmTower:
    config = tower_config("convnext_atto", dims=(8, 8, 16, 16), depths=(1, 1, 1, 1))
    return TimmTower(config, generator=torch.Generator().manual_seed(0)).eval()


def export(folder: Path, network: VisionTransformer | TimmTower, *, image_size: int = SIZE) -> str:
    """Path of its export."""
    info = INFO.model_copy(update={"image_size": image_size})
    return str(write_export(folder / "backbone.safetensors", network, info))


def add_heads(folder: Path, *names: str) -> dict[str, PrototypeHead]:
    """Heads beside the export."""
    generator = torch.Generator().manual_seed(1)
    heads = {name: PrototypeHead(64, 30, hidden=20, bottleneck=8, generator=generator) for name in names}
    for head in heads.values():
        torch.nn.init.uniform_(head.last_layer.scale, 0.5, 2.0, generator=generator)
    state = {f"{name}.{key}": value for name, head in heads.items() for key, value in head.state_dict().items()}
    info = HeadsInfo(dim=64, hidden=20, bottleneck=8, prototypes=30, names=names, provenance={"iterations": 300})
    write_heads(folder / "heads.safetensors", state, info)
    return heads


def pictures(size: int = SIZE, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))
