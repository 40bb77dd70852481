import pytest
import torch
from safetensors.torch import load_file

from curate.config import parse
from curate.errors import ConfigError
from curate.feed.crops import Crops
from curate.feed.sizes import Sides
from curate.trainer.config import TrainConfig
from curate.trainer.masked_views import take_images
from curate.trainer.memory import estimate_memory
from curate.trainer.objectives.settings import DinoV2Settings
from curate.trainer.start import resolve_start, share_images
from curate.trainer.train import train
from tests.trainer.objectives.tiny import BATCH, build, config, context, views, vit

HEADS = {"head_hidden": 24, "head_bottleneck": 12}
TEACHER = {"preset": "tiny", "patch_size": 8, "depth": 1, "dim": 48, "heads": 3, "drop_path": 0.0}
WIDE, NARROW = ({**TEACHER, "dim": dim, "drop_path": 0.4, "depth": 2} for dim in (96, 24))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run, and the settings of a distillation of it."""
    root = tmp_path_factory.mktemp("teacher")
    objective = {"kind": "dinov3", "prototypes": 20, "koleo_group": 2, **HEADS}
    train(config(root, model=TEACHER, objective=objective, iterations=2))
    return {**objective, "prototypes": "auto", "distill_from": str(root / "run")}


def files_of(folder):
    return {name: load_file(folder / name) for name in ("backbone.safetensors", "heads.safetensors")}


def losses(log):
    return [{name: value for name, value in row.items() if name.startswith("loss")} for row in log]


def test_students_of_one_run_are_those_of_runs_of_their_own(tmp_path, teacher):
    students = {"narrow": {"model": NARROW}}
    both = train(config(tmp_path, model=WIDE, objective=teacher, students=students, output=str(tmp_path / "both")))
    alone = {
        name: train(config(tmp_path, model=model, objective=teacher, output=str(tmp_path / name)))
        for name, model in {"wide": WIDE, "narrow": NARROW}.items()
    }
    pairs = {"wide": both.export.parent, "narrow": both.export.parent / "students/narrow"}
    for name, folder in pairs.items():
        for file, tensors in files_of(folder).items():
            for key, value in files_of(alone[name].export.parent)[file].items():
                assert torch.equal(tensors[key], value), (name, key)
    for row, one, other in zip(both.log, alone["wide"].log, alone["narrow"].log, strict=True):
        assert row["loss_dino"] == one["loss_dino"]
        assert row["loss_narrow/dino"] == other["loss_dino"]
        assert row["loss"] == pytest.approx(one["loss"] + other["loss"], rel=1e-6)
        assert row["gradient_norm_narrow/backbone"] == other["gradient_norm_backbone"]


def test_a_run_with_students_goes_on_where_it_stopped(tmp_path, teacher):
    students = {"narrow": {"model": NARROW, "every": 2}}
    changes = {"model": WIDE, "objective": teacher, "students": students}
    whole = train(config(tmp_path, **changes, output=str(tmp_path / "whole")))
    (tmp_path / "cut").mkdir()
    cut = config(tmp_path, **changes, output=str(tmp_path / "cut"))
    train(cut)
    newest = max((tmp_path / "cut/checkpoints").glob("step-*"))
    assert (newest / "students/narrow/heads.safetensors").exists()
    for path in [*newest.rglob("*")][::-1]:
        path.unlink() if path.is_file() else path.rmdir()
    newest.rmdir()
    (tmp_path / "cut/students/narrow/backbone.safetensors").unlink()
    again = train(cut)
    assert losses(again.log) == losses(whole.log)
    for folder in ("", "students/narrow"):
        first, second = (files_of(tmp_path / run / folder) for run in ("whole", "cut"))
        assert all(torch.equal(second[file][key], value) for file in first for key, value in first[file].items())


def test_a_student_of_every_other_image_learns_as_on_these_alone():
    """Targets of a centered softmax are a row's own, so that those of some images do not depend on the others."""
    settings = DinoV2Settings(**HEADS, centering="softmax", koleo_weight=0.0, distill_from="x", masked_share=1.0)
    frozen = build(settings, vit()).teacher
    both, alone = (build(settings, vit()) for _ in range(2))
    other = build(settings, vit())
    both.add_student("more", other, every=2)
    both.frozen_teacher = alone.frozen_teacher = frozen
    crops = views()
    masks = torch.rand(2 * BATCH, 16, generator=torch.Generator().manual_seed(0)) < 0.4
    output = both.forward_masked(crops, masks, context())
    part = Crops(*(take_images(group, BATCH, 2) for group in crops.groups))
    wanted = alone.forward_masked(part, take_images(masks, BATCH, 2), context())
    for name in ("dino", "ibot"):
        assert output.terms[f"more/{name}"].item() == pytest.approx(wanted.terms[name].item(), rel=1e-5)
    output.loss.backward()
    assert all(p.grad is not None for p in both.student.parameters() if p.requires_grad)


def test_a_convnet_of_timm_is_distilled_beside_a_vit(tmp_path, teacher):
    students = {"conv": {"model": {"timm": "test_convnext", "token_size": 8, "drop_path": 0.0}}}
    sizes = {"global_size": 64, "local_size": 32, "num_local": 1}  # its stem and stages reduce a side to a 32nd
    result = train(config(tmp_path, model=NARROW, objective=teacher, students=students, crops=sizes, iterations=2))
    assert result.log[-1]["loss_conv/ibot"] > 0
    assert "stem.0.weight" in load_file(result.export.parent / "students/conv/backbone.safetensors")


def test_images_are_shared_by_cost(tmp_path, teacher):
    students = {name: {"model": NARROW, "every": every} for name, every in {"a": "cost", "b": "cost", "c": 4}.items()}
    given = config(tmp_path, model=NARROW, objective=teacher, students=students, batch_size=8)
    assert given.objective.koleo_group == 2

    class OneOfTwo:
        size = 2

    costs = {"": 10, "a": 31, "b": 100, "c": 10}
    found = {name: share_images(given, name, costs, OneOfTwo()) for name in "abc"}
    assert found == {"a": 2, "b": 4, "c": 4}  # b would see one of 8, and a process has 4


def test_students_that_cannot_be_are_refused(tmp_path, teacher):
    values = {"shards": "x", "output": str(tmp_path), "model": NARROW, "crops": {"global_size": 32, "local_size": 16}}
    with pytest.raises(ConfigError, match="students are distilled from one teacher; set objective.distill_from"):
        parse(TrainConfig, {**values, "students": {"a": {"model": NARROW}}}, where="test")
    students = {"a": {"model": NARROW | {"patch_size": 7}}}
    with pytest.raises(ConfigError, match="crops.global_size 32 is not a multiple of patch_size 7"):
        parse(TrainConfig, {**values, "objective": teacher, "students": students}, where="test")
    with pytest.raises(ConfigError, match="students"):
        parse(TrainConfig, {**values, "objective": teacher, "students": {"../a": {"model": NARROW}}}, where="test")
    fourth = {"a": {"model": NARROW, "every": 4}}
    with pytest.raises(ConfigError, match=r"sees 1 images of a pass, among which KoLeo finds no groups of 2"):
        train(config(tmp_path, model=NARROW, objective=teacher, students=fourth))
    third = {"a": {"model": NARROW, "every": 3}}
    with pytest.raises(ConfigError, match=r"students.a.every is 3, which does not divide the 4 images of a process"):
        train(config(tmp_path, model=NARROW, objective=teacher, students=third))


def test_the_plan_counts_all_students(teacher, tmp_path):
    def memory(**changes):
        given = config(tmp_path, objective=teacher, batch_size=8, **changes)
        effective = resolve_start(given, num_images=20, num_samples=20)
        return estimate_memory(given, effective, sides=Sides(32, 16), precision="fp32")

    wide, narrow = memory(model=WIDE), memory(model=NARROW)
    both = memory(model=WIDE, students={"narrow": {"model": NARROW, "every": 2}})
    assert both.parameters == wide.parameters + narrow.parameters
    assert both.activations == wide.activations + narrow.activations / 2
