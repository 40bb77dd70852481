import numpy as np
import pytest
import torch
import torch.nn.functional as F

from curate.feed.crops import Crops
from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.losses import koleo_loss
from curate.trainer.masked_views import draw_judged
from curate.trainer.masks import draw_masks
from curate.trainer.objective import ForwardContext, LossWeights
from curate.trainer.objectives.settings import DinoV2Settings
from curate.trainer.parallel import World
from curate.trainer.sinkhorn import sinkhorn_targets
from tests.trainer.plain_losses import dino_loss, ibot_loss

VIT = vit_config("vit_tiny", depth=2, image_size=16, patch_size=4, layer_scale_init=1.0)
SETTINGS = DinoV2Settings(head_hidden=32, head_bottleneck=16)
BATCH, LOCAL = 4, 2


def fresh(vit=VIT, *, seed=0, world=None, **changes):
    generator = torch.Generator().manual_seed(seed)
    settings = SETTINGS.model_copy(update=changes)
    backbone = VisionTransformer(vit, generator=generator)
    return settings.build(backbone, prototypes=20, world=world or World(), generator=generator)


def build(vit=VIT, **changes):
    objective = fresh(vit, **changes)
    with torch.no_grad():  # part the student from the teacher
        for p in objective.student.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return objective.train()


def batch():
    generator = torch.Generator().manual_seed(1)
    large = torch.randn(2 * BATCH, 3, 16, 16, generator=generator)
    small = torch.randn(LOCAL * BATCH, 3, 8, 8, generator=generator)
    masks = torch.zeros(2 * BATCH, 16, dtype=torch.bool)
    masks[0, :3], masks[4, 5:10], masks[5, 2] = True, True, True
    return Crops(large, small), masks


def context(seed=0):
    return ForwardContext(0.05, np.random.default_rng(seed), torch.Generator().manual_seed(seed))


def run(objective, seed=0):
    return objective.forward_masked(*batch(), context(seed))


def test_parts_equal_a_plain_crop_by_crop_computation():
    objective = build()
    output = run(objective)
    (large, small, *_), masks = batch()
    student, teacher = objective.student, objective.teacher
    with torch.no_grad():
        seen = teacher["backbone"].forward_features(large)
        targets = sinkhorn_targets(teacher["dino_head"](seen.cls), temperature=0.05, world=World())
        patch_scores = torch.cat([teacher["ibot_head"](seen.patches[i][masks[i]]) for i in range(8)])
        patch_targets = sinkhorn_targets(patch_scores, temperature=0.05, world=World())
        features = [student["backbone"].forward_features(large[i : i + 1], masks[i : i + 1]) for i in range(8)]
        cls = torch.cat([f.cls for f in features])
        local = torch.cat([student["backbone"].forward_features(x[None]).cls for x in small])
        views = torch.stack([*cls.split(BATCH), *local.split(BATCH)])
        hidden = torch.cat([student["ibot_head"](f.patches[0][m]) for f, m in zip(features, masks, strict=True)])
        weights = torch.cat([torch.full((int(m.sum()),), 1 / max(int(m.sum()), 1)) for m in masks])
        wanted = {
            "dino": dino_loss(student["dino_head"](views), targets.unflatten(0, (2, -1))),
            "ibot": ibot_loss(hidden, patch_targets, weights, num_crops=8),
            "koleo": koleo_loss(cls[:BATCH]) + koleo_loss(cls[BATCH:]),
        }
    for name, loss in wanted.items():
        assert output.terms[name].item() == pytest.approx(loss.item(), rel=1e-4), name
    total = wanted["dino"] + wanted["ibot"] + 0.1 * wanted["koleo"]
    assert output.loss.item() == pytest.approx(total.item(), rel=1e-4)


def test_gradients_reach_the_student_and_never_the_teacher():
    objective = build()
    run(objective).loss.backward()
    assert all(p.grad is None for p in objective.teacher.parameters())
    without = {n for n, p in objective.student.named_parameters() if p.grad is None}
    assert without == set()


def test_tied_heads_share_one_head():
    objective = build(tied_heads=True)
    assert set(objective.student) == {"backbone", "dino_head"}
    assert run(objective).terms["ibot"] > 0


def test_parts_without_weight_are_not_computed():
    output = run(build(ibot_weight=0.0, koleo_weight=0.0))
    assert set(output.terms) == {"dino"}
    assert output.loss.item() == output.terms["dino"].item()


def test_softmax_centering_moves_both_centers():
    objective = build(centering="softmax")
    assert run(objective).loss.isfinite()
    assert objective.dino_center.abs().sum() > 0
    assert objective.ibot_center.abs().sum() > 0


def test_sinkhorn_leaves_centers_alone():
    objective = build()
    run(objective)
    assert objective.dino_center.abs().sum() == 0


def test_stochastic_depth_follows_the_generator_and_spares_the_teacher():
    objective = build(VIT.model_copy(update={"drop_path_rate": 0.5}))
    first, again, other = run(objective, 0), run(objective, 0), run(objective, 1)
    assert first.loss.item() == again.loss.item() != other.loss.item()
    assert torch.equal(first.features, other.features)


def test_no_local_crops_leave_the_two_global_pairs():
    (large, small, *_), masks = batch()
    assert build().forward_masked(Crops(large, small[:0]), masks, context()).loss.isfinite()


def test_one_seed_gives_one_objective():
    first, second, other = fresh(seed=3), fresh(seed=3), fresh(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.backbone.pos_embed, other.backbone.pos_embed)


@pytest.mark.parametrize("exact", [False, True])
def test_ranks_share_the_masks_of_one_batch(exact):
    drawn = draw_masks(4 * BATCH, 4, rng=np.random.default_rng(7), exact=exact)
    whole = torch.from_numpy(drawn).unflatten(0, (2, 2, BATCH))
    for rank in range(2):
        given = {"rng": np.random.default_rng(7), "world": World(rank, 2), "exact": exact}
        masks = draw_judged(batch()[0], VIT, SETTINGS, **given)
        assert torch.equal(masks, whole[:, rank].flatten(0, 1))
    assert whole.any(dim=-1).sum() == 2 * BATCH  # half of all crops, whatever the ranks


def test_a_distilled_student_sees_no_masks_and_follows_the_guide_where_there_would_be_some():
    objective = build(masked_share=1.0)
    objective.frozen_teacher = fresh(seed=9).teacher
    views, _ = batch()
    output = objective(views, context())
    masks = torch.from_numpy(draw_masks(2 * BATCH, 4, rng=np.random.default_rng(0), share=1.0))
    with torch.no_grad():
        seen = objective.frozen_teacher["backbone"].forward_features(views.global_crops)
        scores = objective.frozen_teacher["ibot_head"](seen.patches[masks])
        patches = sinkhorn_targets(scores, temperature=0.05, world=World())
        student = objective.student["backbone"].forward_features(views.global_crops)
        weights = (masks / masks.sum(dim=1, keepdim=True))[masks]
        wanted = ibot_loss(objective.student["ibot_head"](student.patches[masks]), patches, weights, num_crops=8)
        cosines = F.cosine_similarity(student.cls[:, None], student.patches, dim=-1)
    assert masks.any(dim=1).all()
    assert output.terms["ibot"].item() == pytest.approx(wanted.item(), rel=1e-4)
    torch.testing.assert_close(output.features, student.cls)
    of_crops = (cosines * masks).sum(dim=1) / masks.sum(dim=1)  # of the student: the guide's never change
    assert output.figures["cls_patch_cosine"].item() == pytest.approx(of_crops.mean().item(), rel=1e-4)
    assert not any(name.startswith("frozen_teacher") for name in objective.checkpoint_state())
    output.loss.backward()
    assert all(p.grad is None for p in objective.frozen_teacher.parameters())


def test_chance_follows_the_weight_of_pairs_with_local_crops():
    objective = build()
    with torch.no_grad():
        objective.student["dino_head"].last_layer.scale.zero_()
    for local in (1.0, 0.25):
        given = context()._replace(weights=LossWeights(local=local))
        output = objective.forward_masked(*batch(), given)
        assert output.terms["dino"].item() == pytest.approx(objective.chance["dino"])


def test_factors_of_an_iteration_scale_the_terms():
    objective = build()
    plain = run(objective).terms
    given = LossWeights(dino=0.5, ibot=2.0, koleo=3.0)
    output = objective.forward_masked(*batch(), context()._replace(weights=given))
    wanted = 0.5 * plain["dino"] + 2 * plain["ibot"] + 0.3 * plain["koleo"]
    assert output.loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    without = objective.forward_masked(*batch(), context()._replace(weights=LossWeights(koleo=0.0)))
    assert set(without.terms) == {"dino", "ibot"}


def test_the_cosine_of_cls_and_own_patches_is_the_teachers():
    objective = build()
    (large, *_), masks = batch()
    with torch.no_grad():
        seen = objective.teacher["backbone"].forward_features(large)
        found = [F.cosine_similarity(seen.cls[i, None], seen.patches[i][masks[i]]).mean() for i in (0, 4, 5)]
    assert run(objective).figures["cls_patch_cosine"].item() == pytest.approx(
        torch.stack(found).mean().item(), rel=1e-4
    )
