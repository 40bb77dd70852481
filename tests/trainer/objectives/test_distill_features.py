import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from curate.config import parse
from curate.errors import ConfigError
from curate.models.files.export import write_export
from curate.models.files.header import ExportInfo
from curate.models.nets.config import vit_config
from curate.models.nets.tower import TimmTower, tower_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.config import TrainConfig
from curate.trainer.feature_teachers import FeatureTeacher, RunningStandard, on_grid
from curate.trainer.objectives.feature_settings import DistillFeaturesSettings, FeatureTeacherSettings
from curate.trainer.parallel import World
from curate.trainer.train import train
from tests.trainer.objectives.tiny import SWIN, SWIN_KWARGS, build, config, context, swin, views, vit, without_gradient

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The export of a ViT on a grid of 8 x 8, for pictures normalized in a way of its own."""
    shape = vit_config("vit_tiny", depth=1, dim=24, heads=3, image_size=16, patch_size=2, layer_scale_init=1.0)
    net = VisionTransformer(shape, generator=torch.Generator().manual_seed(7))
    info = ExportInfo(image_size=16, short_edge=16, mean=MEAN, std=STD)
    return str(write_export(tmp_path_factory.mktemp("teacher") / "backbone.safetensors", net, info))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_distances(predicted, features):
    """1 - cosine and smooth L1 of the standardized features, in float64 by formula."""
    predicted, features = predicted.double(), features.double()
    mean, variance = features.mean(dim=0), features.var(dim=0, unbiased=False)
    wanted = (features - mean) / (variance + 1e-6).sqrt()
    cosine = (predicted * wanted).sum(dim=1) / predicted.norm(dim=1) / wanted.norm(dim=1)
    gap = (predicted - wanted).abs()
    return 1 - cosine.mean(), torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean()


@pytest.mark.parametrize("backbone", [vit, swin])
def test_a_step_equals_the_plain_formulas(teacher, backbone):
    settings = DistillFeaturesSettings(
        teachers=[teacher, {"model": "luma24", "weight": 3.0, "size": 48}], cls_weight=0.5, smooth_l1_weight=2.0
    )
    objective = build(settings, backbone())
    crops = views(local=0).global_crops
    output = objective(views(local=0), context())
    given = timm_like(teacher)
    with torch.no_grad():
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        pixels = crops * torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
        pixels = pixels + torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
        features = given.forward_features((pixels - mean) / std)
        (seen,) = objective.student["backbone"].forward_crops([crops], generator=context().generator)
        whole, patches = objective.student["maps"](seen.cls, seen.patches)
        side = int(seen.patches.shape[1] ** 0.5)
        grid = features.patches.transpose(1, 2).unflatten(2, (8, 8))
        grid = F.interpolate(grid, (side, side), mode="bilinear", antialias=True)
        luma = objective.feature_teachers[1](crops)[0]
        of_cls = plain_distances(whole[0], features.cls), plain_distances(whole[1], luma)
        of_patches = plain_distances(patches[0].flatten(0, 1), grid.flatten(2).transpose(1, 2).flatten(0, 1))
    assert set(patches) == {0}
    wanted = {
        "cls_cosine": of_cls[0][0] / 4 + 3 * of_cls[1][0] / 4,
        "cls_l1": of_cls[0][1] / 4 + 3 * of_cls[1][1] / 4,
        "patch_cosine": of_patches[0] / 4,
        "patch_l1": of_patches[1] / 4,
    }
    for name, value in wanted.items():
        assert output.terms[name].item() == pytest.approx(value.item(), rel=2e-5), name
    total = 0.5 * (wanted["cls_cosine"] + 2 * wanted["cls_l1"]) + wanted["patch_cosine"] + 2 * wanted["patch_l1"]
    assert output.loss.item() == pytest.approx(total.item(), rel=2e-5)


def timm_like(teacher):
    """The teacher's network, from its file alone."""
    shape = vit_config("vit_tiny", depth=1, dim=24, heads=3, image_size=16, patch_size=2)
    net = VisionTransformer(shape).eval()
    net.load_state_dict(load_file(teacher))
    return net


def test_gradients_reach_the_student_and_its_maps_alone(teacher):
    objective = build(DistillFeaturesSettings(teachers=[teacher]), vit())
    objective(views(local=0), context()).loss.backward()
    assert without_gradient(objective) == {"backbone.mask_token"}
    assert all(p.grad is None for p in objective.feature_teachers.parameters())
    assert not any(name.startswith("feature_teachers") for name in objective.checkpoint_state())
    assert "standards.cls_0.mean" in objective.checkpoint_state()
    assert not objective.train().feature_teachers[0].net.training


def test_running_statistics_are_those_of_all_rows_at_first_and_then_follow():
    standard = RunningStandard(5, momentum=0.9, world=World())
    rows = 100 + 3 * drawn(40, 5)
    for part in rows.split(8):
        standard(part)
    torch.testing.assert_close(standard.mean, rows.mean(dim=0), atol=1e-4, rtol=1e-6)
    torch.testing.assert_close(standard.variance, rows.var(dim=0, unbiased=False), atol=1e-3, rtol=1e-4)
    for _ in range(100):
        standard(5 * rows)
    torch.testing.assert_close(standard.mean, 5 * rows.mean(dim=0), rtol=1e-3, atol=0)
    before = standard.mean.clone()
    standard.eval()(rows)
    assert torch.equal(standard.mean, before)


def test_maps_keep_what_varies_slowly_across_them():
    ramp = torch.linspace(0, 1, 8).expand(8, 8).reshape(1, 64, 1)
    found = on_grid(ramp, 16).view(4, 4)
    assert (found.diff(dim=1) > 0).all()
    assert found.mean().item() == pytest.approx(0.5, abs=1e-6)
    assert torch.equal(on_grid(ramp, 64), ramp)


def test_any_timm_model_of_the_registry_is_a_teacher(tmp_path):
    """An export of a multi-stage model: its map of tokens, and what it pools."""
    net = TimmTower(tower_config(SWIN, image_size=16, **SWIN_KWARGS), generator=torch.Generator().manual_seed(0))
    info = ExportInfo(image_size=16, short_edge=16)
    path = str(write_export(tmp_path / "backbone.safetensors", net, info))
    given = FeatureTeacher(FeatureTeacherSettings(model=path))
    images = views().global_crops
    pooled, patches = given(images)
    with torch.no_grad():
        wanted = net.eval().forward_features(images)
    torch.testing.assert_close(pooled, wanted.cls)
    torch.testing.assert_close(patches, wanted.patches)


def test_a_cnn_with_batch_norms_learns_the_features_of_a_vit(tmp_path, teacher):
    """Its average takes over the statistics of the norms, and timm reads the export."""
    changes = {
        "objective": {"kind": "distill_features", "teachers": [teacher]},
        "model": {"timm": "resnet10t", "drop_path": 0.0},
        "crops": {"global_size": 32, "num_local": 0},
        "optimizer": {"base_lr": 4e-2, "warmup_iterations": 2},
        "iterations": 16,
        "batch_size": 8,
        "checkpoint_every": 16,
    }
    result = train(config(tmp_path, **changes))
    losses = [row["loss"] for row in result.log]
    assert sum(losses[-4:]) < 0.93 * sum(losses[:4])
    net = timm.create_model("resnet10t", num_classes=0)
    net.load_state_dict(load_file(result.export))
    assert net.bn1.num_batches_tracked == 16


def test_a_size_that_a_teacher_does_not_take_is_told(teacher):
    with pytest.raises(ConfigError, match=r"luma24 does not take crops of 16 px: it gives 64 dims, .* to 48"):
        FeatureTeacher(FeatureTeacherSettings(model="luma24"))(views().global_crops)
    with pytest.raises(ConfigError, match=r"does not take crops of 17 px: .*multiples of 2; set its size, .* to 16"):
        FeatureTeacher(FeatureTeacherSettings(model=teacher, size=17))(views().global_crops)


def test_local_crops_and_no_teachers_are_refused(tmp_path, teacher):
    values = {"shards": "x", "output": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"looks at the global crops alone; set crops.num_local=0"):
        parse(TrainConfig, {**values, "objective": {"kind": "distill_features", "teachers": [teacher]}}, where="test")
    with pytest.raises(ConfigError, match="no teacher is named"):
        parse(TrainConfig, {**values, "objective": {"kind": "distill_features", "teachers": []}}, where="test")


def test_a_plan_makes_a_teacher_without_weights_where_its_header_tells_the_network(teacher):
    loaded = FeatureTeacher(FeatureTeacherSettings(model=teacher))
    with torch.device("meta"):
        planned = FeatureTeacher(FeatureTeacherSettings(model=teacher))
        fixed = FeatureTeacher(FeatureTeacherSettings(model="luma24"))
    assert {value.device.type for value in planned.net.state_dict().values()} == {"meta"}
    assert {name: value.shape for name, value in planned.state_dict().items()} == {
        name: value.shape for name, value in loaded.state_dict().items()
    }
    assert (planned.dim, planned.has_patches) == (loaded.dim, loaded.has_patches)
    assert {value.device.type for value in fixed.state_dict().values()} == {"cpu"}
