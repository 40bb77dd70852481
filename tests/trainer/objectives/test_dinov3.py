import pytest
import torch

from curate.feed.crops import Crops
from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.heads import LinearPrototypeLayer
from curate.trainer.objective import LossWeights
from curate.trainer.objectives.settings import DinoV3Settings
from curate.trainer.parallel import World
from curate.trainer.sinkhorn import sinkhorn_targets
from curate.trainer.train import train
from tests.trainer import plain_losses
from tests.trainer.objectives.tiny import PROTOTYPES, build, config, context, without_gradient

BATCH, LOCAL = 4, 3
HEADS = {"head_hidden": 32, "head_bottleneck": 16, "ibot_head": {"prototypes": 28, "hidden": 24, "bottleneck": 12}}
SETTINGS = DinoV3Settings(**HEADS, koleo_group=2, local_weight=0.5)
VIT = vit_config("dinov3_tiny", depth=2, image_size=32, patch_size=8, layer_scale_init=1.0, local_norm=True)


def vit():
    return VisionTransformer(VIT, generator=torch.Generator().manual_seed(0))


def views(*, gram=None, local=LOCAL):
    generator = torch.Generator().manual_seed(1)

    def noise(number, side):
        return torch.randn(number, 3, side, side, generator=generator)

    crops = Crops(noise(2 * BATCH, 32), noise(local * BATCH, 16))
    return crops if gram is None else crops._replace(gram=noise(2 * BATCH, gram))


def masks():
    found = torch.zeros(2 * BATCH, 16, dtype=torch.bool)
    found[0, :3], found[4, 5:10], found[5, 2] = True, True, True
    return found


def seen_by_student(objective, crops):
    """Tokens of the student as one pass gives them: the losses alone are compared."""
    generator = context().generator
    with torch.no_grad():
        return objective.student["backbone"].forward_crops(crops.groups, [masks(), None], generator=generator)


def plain_terms(objective, crops):
    settings, teacher, student = objective.settings, objective.teacher, objective.student
    with torch.no_grad():
        seen = teacher["backbone"].forward_features(crops.global_crops)
        targets = sinkhorn_targets(teacher["dino_head"](seen.cls), temperature=0.05, world=World())
        patches = sinkhorn_targets(teacher["ibot_head"](seen.patches[masks()]), temperature=0.05, world=World())
        large, small = seen_by_student(objective, crops)
        scores = student["dino_head"](torch.cat([large.cls, small.cls])).unflatten(0, (-1, BATCH))
        hidden = student["ibot_head"](large.patches[masks()])
        weights = (masks() / masks().sum(dim=1, keepdim=True).clamp_min(1))[masks()]
    spread = large.cls if settings.koleo_views == "both" else large.cls[:BATCH]
    return {
        "dino": plain_losses.dinov3_dino_loss(
            scores, targets.unflatten(0, (2, -1)), local_weight=settings.local_weight
        ),
        "ibot": plain_losses.ibot_loss(hidden.double(), patches.double(), weights, num_crops=2 * BATCH),
        "koleo": plain_losses.koleo_of_groups(spread, group=settings.koleo_group, views=len(spread) // BATCH),
    }


@pytest.mark.parametrize("koleo_views", ["both", "first"])
def test_a_step_equals_the_plain_formulas(koleo_views):
    objective = build(SETTINGS.model_copy(update={"koleo_views": koleo_views}), vit())
    wanted = plain_terms(objective, views())
    output = objective.forward_masked(views(), masks(), context())
    for name, value in wanted.items():
        assert output.terms[name].item() == pytest.approx(value.item(), rel=1e-6), name
    total = wanted["dino"] + wanted["ibot"] + 0.1 * wanted["koleo"]
    assert output.loss.item() == pytest.approx(total.item(), rel=1e-6)


def test_with_all_weights_1_the_term_between_crops_is_dinov2s():
    objective = build(SETTINGS.model_copy(update={"local_weight": 1.0}), vit())
    with torch.no_grad():
        seen = objective.teacher["backbone"](views().global_crops)
        targets = sinkhorn_targets(objective.teacher["dino_head"](seen), temperature=0.05, world=World())
        groups = seen_by_student(objective, views())
        scores = objective.student["dino_head"](torch.cat([group.cls for group in groups])).unflatten(0, (-1, BATCH))
    wanted = plain_losses.dino_loss(scores, targets.unflatten(0, (2, -1)))
    output = objective.forward_masked(views(), masks(), context())
    assert output.terms["dino"].item() == pytest.approx(wanted.item(), rel=1e-6)
    assert output.terms["dino"].item() == pytest.approx(objective.chance["dino"], rel=0.2)


def test_gram_anchors_all_patches_of_the_student_to_those_of_larger_crops():
    objective = build(SETTINGS, vit())
    objective.gram_teacher = VisionTransformer(VIT, generator=torch.Generator().manual_seed(5)).eval()
    crops = views(gram=64)
    plain = objective.forward_masked(crops, masks(), context())
    assert "gram" not in plain.terms
    with torch.no_grad():
        large, _ = seen_by_student(objective, crops)
        grid = objective.gram_teacher.forward_features(crops.gram).patches.transpose(1, 2).unflatten(2, (8, 8))
        given = torch.nn.functional.interpolate(grid, (4, 4), mode="bicubic").flatten(2).transpose(1, 2)
    weights = LossWeights(gram=2.0)
    output = objective.forward_masked(crops, masks(), context()._replace(weights=weights))
    wanted = plain_losses.gram_loss(large.patches, given)
    assert output.terms["gram"].item() == pytest.approx(wanted, rel=1e-6)
    assert output.loss.item() == pytest.approx(plain.loss.item() + 2 * wanted, rel=1e-6)
    output.loss.backward()
    assert all(p.grad is None for p in objective.gram_teacher.parameters())
    assert not any("gram_teacher" in name for name in objective.checkpoint_state())


def test_gram_without_its_teacher_or_crops_says_what_is_missing():
    objective = build(SETTINGS, vit())
    given = context()._replace(weights=LossWeights(gram=1.0))
    with pytest.raises(ValueError, match=r"Objective.gram_teacher and Crops.gram are needed"):
        objective.forward_masked(views(), masks(), given)


def test_gradients_reach_all_of_the_student_and_nothing_of_the_teacher():
    objective = build(SETTINGS, vit())
    objective(views(), context()).loss.backward()
    assert without_gradient(objective) <= {"backbone.blocks.0.attn.qkv.bias", "backbone.blocks.1.attn.qkv.bias"}
    assert all(p.grad is None for p in objective.teacher.parameters())


def test_heads_are_separate_and_their_prototypes_plain():
    objective = build(SETTINGS, vit())
    for name, count in {"dino_head": PROTOTYPES, "ibot_head": 28}.items():
        assert isinstance(objective.student[name].last_layer, LinearPrototypeLayer)
        assert objective.student[name].num_prototypes == count


def test_settings_are_the_published_ones():
    settings = DinoV3Settings()
    found = (settings.koleo_weight, settings.koleo_group, settings.koleo_views, settings.student_temperature)
    assert found == (0.1, 16, "both", 0.1)
    assert (settings.masked_share, settings.mask_ratio) == (0.5, (0.1, 0.5))


def test_a_run_logs_its_figure_and_leaves_heads_that_go_on(tmp_path):
    objective = {"kind": "dinov3", "prototypes": 32, **HEADS, "koleo_group": 2}
    first = train(config(tmp_path, objective=objective))
    assert all(-1 <= row["cls_patch_cosine"] <= 1 for row in first.log)
    heads = str(first.export.with_name("heads.safetensors"))
    again = train(config(tmp_path, objective=objective, init_heads=heads, output=str(tmp_path / "again")))
    assert again.log[0]["loss_dino"] != first.log[0]["loss_dino"]
