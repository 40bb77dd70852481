import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from curate.config import parse
from curate.errors import ConfigError
from curate.models.backbones.load import load_backbone
from curate.trainer.objectives.settings import SitSettings
from curate.trainer.objectives.sit import contrastive_loss, corrupt, reconstruction_loss
from curate.trainer.parallel import World
from curate.trainer.train import train
from tests.trainer.objectives.tiny import BATCH, build, config, context, swin, views, vit, without_gradient

SETTINGS = SitSettings(head_hidden=32, head_out=16)
TURNED = SETTINGS.model_copy(update={"rotation_weight": 0.5})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_contrast_equals_a_plain_loop_over_queries():
    queries, keys = torch.randn(2, 6, 8, generator=generator())
    losses = []
    for view in range(2):
        for image in range(3):
            query = queries[3 * view + image]
            scores = [
                float(F.cosine_similarity(query, keys[3 * (1 - view) + other], dim=0)) / 0.2 for other in range(3)
            ]
            losses.append(-scores[image] + math.log(sum(math.exp(score) for score in scores)))
    found = contrastive_loss(queries, keys, temperature=0.2, world=World())
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_contrast_looks_at_the_images_of_all_ranks():
    """Two ranks, told by a world that gathers from a list, have the mean loss of one with both batches."""
    queries, keys = torch.randn(2, 2, 2, 3, 8, generator=generator())  # (rank, view, image, dim)

    class Told(World):
        def all_gather(self, values):
            view = next(v for v in range(2) if torch.equal(values, F.normalize(keys[self.rank, v], dim=-1)))
            return F.normalize(keys[:, view], dim=-1).flatten(0, 1)

    split = [
        contrastive_loss(queries[r].flatten(0, 1), keys[r].flatten(0, 1), temperature=0.2, world=Told(r, 2))
        for r in range(2)
    ]
    joined = (x.transpose(0, 1).flatten(0, 2) for x in (queries, keys))
    together = contrastive_loss(*joined, temperature=0.2, world=World())
    assert torch.stack(split).mean().item() == pytest.approx(together.item(), rel=1e-5)


def test_repair_equals_a_plain_mean_over_hidden_pixels():
    images, pixels = torch.randn(2, 2, 3, 8, 8, generator=generator())
    hidden = torch.rand(2, 1, 8, 8, generator=generator()) < 0.4
    repaired = torch.zeros(2, 4, 48)
    errors = []
    for crop in range(2):
        for row in range(8):
            for column in range(8):
                patch, inside = row // 4 * 2 + column // 4, row % 4 * 4 + column % 4
                for channel in range(3):
                    value = pixels[crop, channel, row, column]
                    repaired[crop, patch, 16 * channel + inside] = value
                    if hidden[crop, 0, row, column]:
                        errors.append(abs(float(value - images[crop, channel, row, column])))
    assert reconstruction_loss(repaired, images, hidden).item() == pytest.approx(np.mean(errors), rel=1e-5)
    assert reconstruction_loss(repaired, images, torch.zeros_like(hidden)).item() == 0


def test_damage_shows_noise_or_another_image_where_hidden_and_nothing_elsewhere():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(-1, 3, 32, 32)  # each its number
    for foreign_share, spoiled in ((0.0, set()), (1.0, {5.0, 0.0, 1.0, 2.0, 3.0, 4.0})):
        settings = SETTINGS.model_copy(update={"foreign_share": foreign_share})
        damaged, hidden = corrupt(images, settings, generator=generator())
        where = hidden.expand_as(images)
        assert torch.equal(damaged[~where], images[~where])
        assert not (damaged == images)[where].any()
        if spoiled:
            for number in range(6):
                assert set(damaged[number][where[number]].tolist()) == {float((number - 1) % 6)}
        else:
            assert (damaged - images.mean())[where].std() > 0
            assert damaged[where].mean().abs() < 0.1
            assert damaged[where].std() == pytest.approx(1, abs=0.1)
    assert 0.5 < hidden.float().mean() < 0.7


def test_parts_equal_plain_ones_of_the_damaged_crops(monkeypatch):
    objective = build(TURNED, vit(num_registers=1))
    shown = {}
    for name, method in (("student", "forward_crops"), ("teacher", "forward_needed")):
        backbone = getattr(objective, name)["backbone"]
        monkeypatch.setattr(backbone, method, spying(getattr(backbone, method), shown, name))
    output = objective(views(), context())
    student, teacher = objective.student, objective.teacher
    damaged, whole = shown["student"], shown["teacher"]
    with torch.no_grad():
        seen = student["backbone"].forward_features(damaged)
        keys = teacher["contrast_head"](teacher["backbone"](whole))
        contrast = contrastive_loss(student["contrast_head"](seen.cls), keys, temperature=0.2, world=World())
        hidden = (damaged != whole).any(dim=1, keepdim=True)
        repaired = reconstruction_loss(student["decoder"](seen.patches), whole, hidden)
        turns = torch.tensor([quarters(whole[i], views().global_crops[i]) for i in range(2 * BATCH)])
        rotation = F.cross_entropy(student["rotation_head"](seen.registers[:, 0]), turns)
    wanted = {"contrast": contrast, "reconstruction": repaired, "rotation": rotation}
    assert output.terms.keys() == wanted.keys()
    for name, loss in wanted.items():
        assert output.terms[name].item() == pytest.approx(loss.item(), rel=1e-5), name
    assert output.loss.item() == pytest.approx((contrast + repaired + 0.5 * rotation).item(), rel=1e-5)
    assert len(set(turns.tolist())) > 1


def spying(forward, shown, name):
    def spy(crops, *args, **kwargs):
        shown.setdefault(name, crops[0])
        return forward(crops, *args, **kwargs)

    return spy


def quarters(turned, upright):
    (found,) = [k for k in range(4) if torch.equal(turned, upright.rot90(k, dims=(1, 2)))]
    return found


def test_without_rotation_the_teacher_sees_the_crops_as_they_are(monkeypatch):
    objective, shown = build(SETTINGS, vit()), {}
    backbone = objective.teacher["backbone"]
    monkeypatch.setattr(backbone, "forward_needed", spying(backbone.forward_needed, shown, "teacher"))
    assert set(objective(views(), context()).terms) == {"contrast", "reconstruction"}
    assert torch.equal(shown["teacher"], views().global_crops)


@pytest.mark.parametrize(("settings", "registers"), [(SETTINGS, 0), (TURNED, 1)])
def test_gradients_reach_the_student_and_never_the_teacher(settings, registers):
    objective = build(settings, vit(num_registers=registers))
    objective(views(), context()).loss.backward()
    assert without_gradient(objective) == {"backbone.mask_token"}
    assert all(p.grad is None for p in objective.teacher.parameters())


def test_the_same_moment_gives_the_same_damage():
    objective = build(SETTINGS, vit())
    first, again, other = (objective(views(), context(seed)).loss.item() for seed in (0, 0, 1))
    assert first == again != other


def test_chance_is_the_loss_of_a_student_that_knows_nothing():
    objective = build(TURNED, vit(num_registers=1))
    assert set(objective.chance) == {"rotation"}  # a batch of unknown size
    with torch.no_grad():
        for name in ("contrast_head", "rotation_head"):
            for p in objective.student[name][-1].parameters():
                p.zero_()
    parts = objective(views(), context()).terms
    assert objective.chance == {"contrast": math.log(BATCH), "rotation": math.log(4)}
    for name, chance in objective.chance.items():
        assert parts[name].item() == pytest.approx(chance)


def test_a_backbone_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="objective=sit needs a ViT, found model.timm=swin_tiny_patch4_window7_224"):
        build(SETTINGS, swin())
    with pytest.raises(ConfigError, match="rotation_weight is 0.5, and no register.* set model.num_registers=1"):
        build(TURNED, vit())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_share": [0.5, 1.0]}, r"hidden_share is \[0.5, 1.0\]; needed: 0 <= first <= second < 1"),
        ({"block_side": [0.0, 0.3]}, r"block_side is \[0.0, 0.3\]; needed: 0 < first <= second <= 1"),
    ],
)
def test_impossible_damage_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        parse(SitSettings, values, where="test")


def test_a_run_trains_exports_and_has_no_heads(tmp_path):
    run = config(
        tmp_path,
        crops={"global_size": 32, "num_local": 0, "local_size": 16},
        objective={"kind": "sit", "head_hidden": 32, "head_out": 16, "rotation_weight": 1.0},
    )
    result = train(run)
    assert np.isfinite([[row["loss_contrast"], row["loss_reconstruction"]] for row in result.log]).all()
    assert not (tmp_path / "run" / "heads.safetensors").exists()
    stamp = result.export.stat().st_mtime_ns
    assert train(run).export.stat().st_mtime_ns == stamp
    pictures = torch.randn(2, 3, 32, 32, generator=generator())
    assert load_backbone("curate", weights=str(result.export), device="cpu").module(pictures).shape == (2, 192)
