"""Steps of DINOv2 on planted weights, crops and masks, told in a few numbers each: the loss, its terms, and of every
gradient the norm and the product with a random direction.

`golden_dinov2.json` holds what they were when the step was compared with that of DINOv2's authors: on equal weights,
crops and masks the losses were equal to 1e-6, and every gradient to 1.6e-6 of its norm. So the file stands for the
authors' code, and is not to be made again from ours. Weights and crops are uniform draws, which are the same on every
machine, each by a seed of its own, so that neither the order of parameters nor how they are first drawn counts.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from curate.feed.crops import Crops
from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.objective import ForwardContext
from curate.trainer.objectives.settings import DinoV2Settings
from curate.trainer.parallel import World

FILE = Path(__file__).with_name("golden_dinov2.json")
BATCH, LOCAL, SIDE, PATCH = 4, 3, 28, 7
VIT = {"depth": 2, "image_size": SIDE, "patch_size": PATCH, "dim": 48, "heads": 3, "layer_scale_init": 0.5}
CASES = {
    "long": ({"ffn": "swiglu", "num_registers": 2}, {"centering": "sinkhorn", "tied_heads": False}),
    "short": ({"ffn": "mlp"}, {"centering": "softmax", "tied_heads": True}),
}
"""Changes of the backbone and of the objective: the recipe of LVD-142M, and that of ImageNet-1k."""
MASKED = {0: range(3, 9), 2: range(1), 5: range(2, 14), 7: (0, 5, 10, 15)}
"""Masked patches of some of the 2B global crops."""


def planted(name, shape):
    """Uniform in -1..1, by the name alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return 2 * torch.rand(shape, generator=generator) - 1


def build(case):
    vit, settings = CASES[case]
    sizes = {"head_hidden": 40, "head_bottleneck": 24}
    backbone = VisionTransformer(vit_config("vit_tiny", **VIT, **vit))
    objective = DinoV2Settings(**(sizes | settings)).build(
        backbone, prototypes=36, world=World(), generator=torch.Generator()
    )
    with torch.no_grad():
        for role in ("student", "teacher"):
            for name, p in getattr(objective, role).named_parameters():
                scales = name.endswith((".gamma", ".scale")) or (".norm" in name and "weight" in name)
                p.copy_(float(scales) + 0.15 * planted(f"{role} {name}", p.shape))
        for name in ("dino_center", "ibot_center"):
            getattr(objective, name).copy_(0.1 * planted(name, (36,)))
    return objective.train()


def measure(case):
    """The numbers of a case, JSON-ready."""
    objective = build(case)
    crops = Crops(planted("large", (2 * BATCH, 3, SIDE, SIDE)), planted("small", (LOCAL * BATCH, 3, 14, 14)))
    masks = torch.zeros(2 * BATCH, (SIDE // PATCH) ** 2, dtype=torch.bool)
    for crop, patches in MASKED.items():
        masks[crop, list(patches)] = True
    context = ForwardContext(0.06, np.random.default_rng(0), torch.Generator())
    output = objective.forward_masked(crops, masks, context)
    output.loss.backward()
    gradients = {name: digest(name, p.grad) for name, p in objective.student.named_parameters()}
    terms = {name: term.item() for name, term in output.terms.items()}
    return {"loss": output.loss.item(), "terms": terms, "gradients": gradients}


def digest(name, gradient):
    """Norm of a gradient, and its product with a random direction of length 1."""
    direction = planted(f"direction {name}", gradient.shape).double()
    return [float(gradient.double().norm()), float((gradient.double() * direction).sum() / direction.norm())]


def read_golden():
    return json.loads(FILE.read_text(encoding="utf-8"))
