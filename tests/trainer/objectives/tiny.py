"""Tiny backbones, batches and runs that the tests of the objectives share."""

import numpy as np
import torch

from curate.config import parse
from curate.feed.crops import Crops
from curate.models.nets.config import vit_config
from curate.models.nets.tower import TimmTower, tower_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.config import TrainConfig
from curate.trainer.objective import ForwardContext
from curate.trainer.parallel import World
from tests.feed.shards import write_shards

BATCH, LOCAL, PROTOTYPES = 3, 2, 20
SWIN = "swin_tiny_patch4_window7_224"
SWIN_KWARGS = {"patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}


def vit(**changes):
    config = vit_config("vit_tiny", depth=2, image_size=16, patch_size=4, layer_scale_init=1.0, **changes)
    return VisionTransformer(config, generator=torch.Generator().manual_seed(0))


def swin():
    config = tower_config(SWIN, image_size=16, drop_path_rate=0.0, **SWIN_KWARGS)
    return TimmTower(config, generator=torch.Generator().manual_seed(0))


def build(settings, backbone, *, world=None):
    """The objective with a student that has parted from the teacher."""
    generator = torch.Generator().manual_seed(0)
    objective = settings.build(backbone, prototypes=PROTOTYPES, world=world or World(), generator=generator).train()
    with torch.no_grad():
        for p in objective.student.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return objective


def views(*, local=LOCAL):
    generator = torch.Generator().manual_seed(1)
    large = torch.randn(2 * BATCH, 3, 16, 16, generator=generator)
    return Crops(large, torch.randn(local * BATCH, 3, 8, 8, generator=generator))


def context(seed=0, temperature=0.05):
    return ForwardContext(temperature, np.random.default_rng(seed), torch.Generator().manual_seed(seed))


def without_gradient(objective):
    """Names of the student's parameters that the last backward pass did not reach."""
    return {name for name, p in objective.student.named_parameters() if p.grad is None or not p.grad.any()}


def cross_entropy(targets, scores, temperature=0.1):
    """Of two rows, plainly."""
    scores = scores.double() / temperature
    return -float((targets.double() * (scores - scores.exp().sum().log())).sum())


def config(tmp_path, **changes):
    """A run of four iterations."""
    shards = tmp_path / "shards"
    if not shards.exists():
        write_shards(shards)
    values = {
        "shards": str(shards),
        "output": str(tmp_path / "run"),
        "model": {"preset": "tiny", "patch_size": 8, "depth": 2, "drop_path": 0.3, "num_registers": 1},
        "crops": {"global_size": 32, "local_size": 16, "num_local": 2},
        "optimizer": {"base_lr": 4e-3, "warmup_iterations": 1, "clip_by": "parameter"},
        "batch_size": 4,
        "iterations": 4,
        "checkpoint_every": 2,
        "log_every": 1,
        "precision": "fp32",
        "device": "cpu",
    }
    return parse(TrainConfig, values | changes, where="test")


HEAD = {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16}
