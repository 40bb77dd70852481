import math

import numpy as np
import pytest
import torch
from torch import nn

from curate.feed.crops import Crops
from curate.models.backbones.load import load_backbone
from curate.models.nets.features import Features
from curate.trainer.objectives.esvit import match_regions
from curate.trainer.objectives.settings import EsVitSettings
from curate.trainer.train import train
from tests.trainer.objectives.tiny import (
    BATCH,
    HEAD,
    LOCAL,
    PROTOTYPES,
    SWIN,
    SWIN_KWARGS,
    build,
    config,
    context,
    cross_entropy,
    swin,
    views,
    vit,
    without_gradient,
)

SETTINGS = EsVitSettings(head_hidden=32, head_bottleneck=16)
BACKBONES = pytest.mark.parametrize("backbone", [vit, swin])


def generator():
    return torch.Generator().manual_seed(0)


def spread_centers(objective):
    objective.center.copy_(torch.linspace(-0.1, 0.1, PROTOTYPES))
    objective.region_center.copy_(torch.linspace(0.2, -0.2, PROTOTYPES))


@torch.no_grad()
def plain_losses(objective, large, small):
    """View and region loss, crop by crop, pair by pair, token by token."""
    student, teacher = objective.student, objective.teacher
    view, region = [], []
    for image in range(BATCH):
        crops = [large[v * BATCH + image] for v in range(2)] + [small[v * BATCH + image] for v in range(LOCAL)]
        for t in range(2):
            found = teacher["backbone"].forward_features(crops[t][None])
            target = torch.softmax((teacher["dino_head"](found.cls)[0] - objective.center) / 0.05, dim=0)
            for crop in (crop for v, crop in enumerate(crops) if v != t):
                seen = student["backbone"].forward_features(crop[None])
                view.append(cross_entropy(target, student["dino_head"](seen.cls)[0]))
                tokens = []
                for token in seen.patches[0]:
                    cosines = [nn.functional.cosine_similarity(token, other, dim=0) for other in found.patches[0]]
                    matched = found.patches[0][int(np.argmax(cosines))]
                    scores = teacher["region_head"](matched[None])[0]
                    matched_target = torch.softmax((scores - objective.region_center) / 0.05, dim=0)
                    tokens.append(cross_entropy(matched_target, student["region_head"](token[None])[0]))
                region.append(np.mean(tokens))
    return np.mean(view), np.mean(region)


@BACKBONES
def test_both_losses_equal_plain_ones_of_crops_pairs_and_tokens(backbone):
    objective = build(SETTINGS, backbone())
    spread_centers(objective)
    view, region = plain_losses(objective, *views()[:2])
    output = objective(views(), context())
    assert output.terms["view"].item() == pytest.approx(view, rel=1e-5)
    assert output.terms["region"].item() == pytest.approx(region, rel=1e-5)
    assert output.loss.item() == pytest.approx((view + region) / 2, rel=1e-5)


def test_regions_are_matched_wherever_they_moved():
    """Two images; local crops show the regions of the first view of their image, in another order."""
    tokens = torch.randn(4, 6, 8, generator=generator())  # the teacher's: view 1 of both images, then view 2
    order = torch.randperm(6, generator=generator())
    found = Features(tokens[:, 0], tokens[:, :0], tokens)
    large = Features(tokens[:, 0], tokens[:, :0], 2 * tokens[[2, 3, 0, 1]])  # each view as the other one's teacher
    small = Features(tokens[:2, 0], tokens[:2, :0], 3 * tokens[:2, order])
    matches, weights = match_regions([large, small], found)
    rows = torch.arange(24).view(4, 6)
    of_large, of_small = matches.split([24, 12], dim=1)
    assert torch.equal(of_large, rows[[2, 3, 0, 1]].flatten().expand(2, -1))
    assert torch.equal(of_small[0], rows[:2, order].flatten())
    assert torch.equal(of_small[1] // 6, torch.tensor([2] * 6 + [3] * 6))  # of the second view of their image
    assert weights.sum() == pytest.approx(1)
    assert weights[-1] == pytest.approx(2 * weights[0].item())  # a local view is in two pairs, a global one in one


@BACKBONES
def test_gradients_reach_the_student_and_never_the_teacher(backbone):
    objective = build(SETTINGS.model_copy(update={"norm_last_layer": False}), backbone())
    objective(views(), context()).loss.backward()
    assert without_gradient(objective) - {"backbone.mask_token"} == set()
    assert all(p.grad is None for p in objective.teacher.parameters())


def test_both_centers_follow_their_own_scores():
    objective = build(SETTINGS, vit())
    with torch.no_grad():
        seen = objective.teacher["backbone"].forward_features(views().global_crops)
        view, region = objective.teacher["dino_head"](seen.cls), objective.teacher["region_head"](seen.patches)
    objective(views(), context())
    torch.testing.assert_close(objective.center, 0.1 * view.mean(dim=0))
    torch.testing.assert_close(objective.region_center, 0.1 * region.mean(dim=(0, 1)))


def test_without_local_crops_two_pairs_remain():
    large = views().global_crops
    assert build(SETTINGS, swin())(Crops(large, large[:0]), context()).loss.isfinite()


def test_chance_is_the_loss_of_a_student_that_knows_nothing():
    objective = build(SETTINGS, vit())
    with torch.no_grad():
        for head in ("dino_head", "region_head"):
            objective.student[head].last_layer.scale.zero_()
    parts = objective(views(), context()).terms
    for name, chance in objective.chance.items():
        assert parts[name].item() == pytest.approx(chance) == math.log(PROTOTYPES)


def test_a_vit_trains(tmp_path):
    log = train(config(tmp_path, objective={"kind": "esvit", **HEAD}, iterations=2)).log
    assert np.isfinite([[row["loss_view"], row["loss_region"]] for row in log]).all()


def test_a_swin_trains_and_its_export_embeds(tmp_path):
    swin_of_runs = {"timm": SWIN, "timm_kwargs": SWIN_KWARGS}
    result = train(config(tmp_path, model=swin_of_runs, objective={"kind": "esvit", **HEAD}))
    assert np.isfinite([row["loss"] for row in result.log]).all()
    assert (tmp_path / "run" / "heads.safetensors").exists()
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before, after = (
        load_backbone("curate", weights=str(path), device="cpu", precision="fp32").module(pictures)
        for path in (result.initial, result.export)
    )
    assert before.shape == after.shape == (3, 16)
    assert not torch.equal(before, after)
