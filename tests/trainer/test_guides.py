import io
import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from curate.config import parse
from curate.errors import ConfigError, SourceError, WorkdirError
from curate.feed.labels import Labels
from curate.models.convert.source import load_source
from curate.trainer.checkpoint import list_checkpoints
from curate.trainer.config import OptimizerSettings, TrainConfig
from curate.trainer.effective import resolve_auto
from curate.trainer.guide_settings import GuideSettings
from curate.trainer.guides import Guided, add_guide_heads, reverse_gradient
from curate.trainer.objective import Objective, ObjectiveOutput
from curate.trainer.objectives import find_objective
from curate.trainer.optimizer import make_optimizer
from curate.trainer.parallel import World
from curate.trainer.phases import Timeline
from curate.trainer.plan import plan_training
from curate.trainer.train import train
from tests.feed.shards import row, write_shard
from tests.trainer.objectives.tiny import BATCH, HEAD, build, context, views, vit

ORGANS, SCANNERS = ("liver", "lung", "spleen"), (3, 7)
LABELS = {
    "organ": Labels("organ", ORGANS, np.array([0, 2, -1, 1, 1, 0], np.int16)),
    "scanner": Labels("scanner", SCANNERS, np.array([-1, 0, 1, 1, -1, 0], np.int16)),
}
GUIDES = (GuideSettings(column="scanner", adversarial=True, weight=0.5), GuideSettings(column="organ", weight=2.0))
IMAGES = torch.tensor([5, 2, 1])
KINDS = {
    "dinov2": {"ibot_weight": 1.0, **HEAD},
    "dinov3": {"koleo_group": None, **HEAD},
    "dino": HEAD,
    "esvit": HEAD,
    "sit": {"head_hidden": 32, "head_out": 16},
    "lejepa": {"projector_hidden": 32, "projector_out": 16, "directions": 8},
    "distill_features": {"teachers": [{"model": "luma24", "size": 48}]},
    "diet": {},
}


def guided_of(kind="dino", *, guides=GUIDES, labels=LABELS):
    settings = find_objective(kind).model_validate({"kind": kind, **KINDS[kind]})
    objective = build(settings, vit(num_registers=1)).eval()
    add_guide_heads(objective, guides, labels, seed=0)
    return objective, Guided(objective, guides, labels)


def seen_with(factor):
    return context()._replace(reversals={"scanner": factor})


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_any_objective_gets_the_cross_entropies_of_the_guides(kind):
    crops = views()._replace(images=IMAGES)
    (objective, _), (_, guided) = guided_of(kind), guided_of(kind)  # of equal weights; centers move with every call
    with torch.no_grad():
        plain, output = objective(crops, seen_with(0.3)), guided(crops, seen_with(0.3))
    wanted = float(plain.loss)
    for guide in GUIDES:
        codes = torch.tensor([LABELS[guide.column].codes[i] for i in IMAGES] * 2, dtype=torch.long)
        logits = objective.student[guide.key](plain.seen).detach()
        entropy = F.cross_entropy(logits, codes, ignore_index=-1)
        labelled = codes >= 0
        right = (logits.argmax(dim=1) == codes)[labelled].float().mean()
        assert float(output.figures[f"guide_{guide.column}_loss"]) == pytest.approx(float(entropy), rel=1e-6)
        assert float(output.figures[f"guide_{guide.column}_accuracy"]) == pytest.approx(float(right))
        wanted += guide.weight * float(entropy)
    assert float(output.loss) == pytest.approx(wanted, rel=1e-6)
    assert output.terms.keys() == plain.terms.keys()


def test_a_reversed_gradient_is_the_gradient_times_a_negative_factor():
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (plain,) = torch.autograd.grad(values.pow(3).sum(), values)
    (reverse,) = torch.autograd.grad(reverse_gradient(values, 0.3).pow(3).sum(), values)
    assert torch.equal(reverse_gradient(values, 0.3), values)
    torch.testing.assert_close(reverse, -0.3 * plain)


def test_the_backbone_learns_against_an_adversary_that_learns_to_read():
    guide = GUIDES[0]
    crops = views()._replace(images=IMAGES)

    def gradients(factor, *, adversarial):
        objective, guided = guided_of(guides=(guide.model_copy(update={"adversarial": adversarial, "hidden": 8}),))
        guided(crops, seen_with(factor)).loss.backward()
        return {name: p.grad.clone() for name, p in objective.student.named_parameters() if p.grad is not None}

    alone, plain, reverse = (
        gradients(0, adversarial=True),
        gradients(1, adversarial=False),
        gradients(0.3, adversarial=True),
    )
    moved = 0
    for name, gradient in reverse.items():
        if name.startswith("guide_"):  # the head itself learns to read, however strong the reversal is
            torch.testing.assert_close(gradient, plain[name])
        else:
            torch.testing.assert_close(gradient, alone[name] - 0.3 * (plain[name] - alone[name]), atol=1e-6, rtol=1e-4)
            moved += not torch.equal(gradient, alone[name])
    assert moved > 10


def test_heads_learn_at_rates_of_their_own():
    guides = (GUIDES[0], GUIDES[1].model_copy(update={"rate": 3.0}))
    objective, _ = guided_of(guides=guides)
    rates = {guide.key: guide.lr_factor for guide in guides}
    optimizer = make_optimizer(objective.student, OptimizerSettings(patch_embed_lr=1.0), rates)
    names = {id(p): name.partition(".")[0] for name, p in objective.student.named_parameters()}
    found = {names[id(p)]: group["lr_factor"] for group in optimizer.param_groups for p in group["params"]}
    assert found == {"backbone": 1.0, "dino_head": 1.0, "guide_scanner": 10.0, "guide_organ": 3.0}


def test_a_pass_without_any_label_leaves_the_loss_as_it_is():
    labels = {"organ": Labels("organ", ORGANS, np.full(6, -1, np.int16))}
    (plain, _), (objective, guided) = (guided_of(guides=GUIDES[1:], labels=labels) for _ in range(2))
    crops = views()._replace(images=IMAGES)
    output = guided(crops, context())
    assert torch.equal(output.loss, plain(crops, context()).loss)
    output.loss.backward()
    assert all(not p.grad.any() for p in objective.student["guide_organ"].parameters()), "DDP waits for every gradient"


def test_the_objectives_weights_are_those_of_a_run_without_guides():
    with_guides, _ = guided_of()
    without, _ = guided_of(guides=())
    state, plain = with_guides.state_dict(), without.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.items())
    heads = {name.split(".")[1] for name in state.keys() - plain.keys()}
    assert heads == {"guide_scanner", "guide_organ"}


class Silent(Objective):
    def forward(self, crops, context):
        (seen,) = self.student["backbone"].forward_crops([crops.global_crops])
        return ObjectiveOutput(seen.cls.sum(), {}, seen.cls.detach())


def test_an_objective_that_does_not_say_what_it_saw_and_images_of_unknown_number_are_refused():
    silent = Silent(nn.ModuleDict({"backbone": vit()}), world=World())
    with pytest.raises(ConfigError, match=r"guides: Silent does not say what its student sees; let it give .*\.seen"):
        Guided(silent, GUIDES, LABELS)(views()._replace(images=IMAGES), context())
    _, guided = guided_of()
    with pytest.raises(ValueError, match="the crops do not say which images they show"):
        guided(views(), seen_with(1))
    assert len(IMAGES) == BATCH


def picture(organ, scanner, rng):
    """Noise with stripes, whose direction tells the organ, in a tint that tells the scanner, not always rightly."""
    y, x = np.mgrid[:32, :32]
    wave = np.sin(((x + y if organ == "lung" else x) + rng.integers(8)) * np.pi / 4)
    tint = np.array([1, 0, -1]) * rng.normal(12 if scanner == SCANNERS[1] else -12, 8)
    pixels = 128 + rng.normal(0, 40, (32, 32, 1)) + 45 * wave[..., None] + tint
    return np.clip(pixels, 0, 255).astype(np.uint8)


def draw(number, *, seed):
    """Organs and scanners, independent of each other, and their pictures."""
    rng = np.random.default_rng(seed)
    labels = [(ORGANS[int(rng.integers(2))], SCANNERS[int(rng.integers(2))]) for _ in range(number)]
    return labels, [picture(*label, rng) for label in labels]


def write_pictures(folder, *, number=256, nulls=0, organs=None):
    """A shard with columns organ and scanner; the first `nulls` images have no scanner."""
    rows = []
    for i, (label, pixels) in enumerate(zip(*draw(number, seed=0), strict=True)):
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, format="PNG")
        own = {"organ": organs[i % len(organs)] if organs else label[0], "scanner": label[1] if i >= nulls else None}
        rows.append(row(i, encoded=encoded.getvalue()) | own)
    write_shard(folder / "a.parquet", rows, group=64, own={"organ": pa.string(), "scanner": pa.int64()})
    return folder


PLANTED = {
    "model": {
        "preset": "tiny",
        "patch_size": 8,
        "depth": 2,
        "dim": 48,
        "heads": 3,
        "drop_path": 0.0,
        "layer_scale": 1.0,
    },
    "crops": {
        "global_size": 32,
        "num_local": 0,
        "global_scale": [0.5, 1.0],
        "jitter_probability": 0.0,
        "gray_probability": 0.0,
        "solarize_probability": 0.0,
        "blur": "none",
    },
    "objective": {
        "kind": "lejepa",
        "projector_hidden": 64,
        "projector_out": 16,
        "directions": 32,
        "teacher_momentum": 0.5,
    },
    # momentum makes the two sides of a game circle around each other
    "optimizer": {"base_lr": 1e-3, "lr_batch": 32, "warmup_iterations": 5, "betas": [0.0, 0.99], "patch_embed_lr": 1.0},
    "ema": {"end": "constant"},
    "batch_size": 32,
    "iterations": 120,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
}


def read_linearly(export, number):
    """How often a linear probe of 40 images tells label `number` of others, 0..1, over ten draws of them."""
    labels, pixels = draw(400, seed=1)
    images = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255 - 0.45) / 0.225
    with torch.no_grad():
        features = load_source(str(export)).network.eval()(images).double().numpy()
    features = np.c_[features - features.mean(axis=0), np.ones(len(features))]
    wanted = np.array([1 if label[number] in {"lung", SCANNERS[1]} else -1 for label in labels])
    right = []
    for start in range(0, 400, 40):
        own, others = np.arange(400) // 40 == start // 40, np.arange(400) // 40 != start // 40
        x = features[own]
        probe = np.linalg.solve(x.T @ x + 3 * np.eye(x.shape[1]), x.T @ wanted[own])
        right.append(np.mean(np.sign(features[others] @ probe) == wanted[others]))
    return float(np.mean(right))


def test_guided_features_show_the_organ_and_hide_the_scanner(tmp_path):
    shards = str(write_pictures(tmp_path / "shards"))
    guides = [{"column": "organ"}, {"column": "scanner", "adversarial": True, "weight": 3.0}]
    found = {}
    for name, given in (("plain", []), ("guided", guides)):
        values = {**PLANTED, "shards": shards, "output": str(tmp_path / name)}
        values["objective"] = {**PLANTED["objective"], "guides": given}
        export = train(parse(TrainConfig, values, where="test")).export
        found[name] = read_linearly(export, 0), read_linearly(export, 1)
    assert found["guided"][0] > found["plain"][0] + 0.15
    assert found["guided"][1] < found["plain"][1] - 0.2


TINY = {
    "model": {"preset": "tiny", "patch_size": 8, "depth": 2, "drop_path": 0.3},
    "crops": {"global_size": 32, "local_size": 16, "num_local": 1},
    "objective": {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16},
    "optimizer": {"base_lr": 4e-3, "warmup_iterations": 1},
    "batch_size": 4,
    "iterations": 4,
    "checkpoint_every": 2,
    "log_every": 1,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
}
ASKED = [{"column": "scanner", "adversarial": True}, {"column": "organ"}]


def config(shards, output, *, guides=ASKED, **changes):
    values = {**TINY, "shards": str(shards), "output": str(output), **changes}
    return parse(TrainConfig, values | {"objective": {**TINY["objective"], "guides": guides}}, where="test")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of four iterations beside its shards, of which a third has no scanner."""
    root = tmp_path_factory.mktemp("guides")
    write_pictures(root / "shards", number=24, nulls=8)
    train(config(root / "shards", root / "run"))
    return root


def state_of(folder):
    _, path = list_checkpoints(folder / "checkpoints")[-1]
    (file,) = (path / "state").iterdir()
    return load_file(file)


def test_a_checkpoint_holds_the_heads_and_the_exports_do_not(run):
    names = {name.split(".")[2] for name in state_of(run / "run") if name.startswith("objective.student.")}
    assert names == {"backbone", "dino_head", "ibot_head", "guide_scanner", "guide_organ"}
    for export in ("backbone.safetensors", "heads.safetensors"):
        with safe_open(run / "run" / export, framework="pt") as file:
            assert not [name for name in file.keys() if "guide" in name]  # noqa: SIM118, no mapping


def test_the_log_tells_loss_and_accuracy_of_each_guide(run):
    rows = train(config(run / "shards", run / "run")).log
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for found in rows:
        assert 0 <= found["guide_organ_accuracy"] <= 1
        assert 0 <= found["guide_scanner_accuracy"] <= 1
        assert found["guide_organ_loss"] > 0 < found["guide_scanner_loss"]


def back_to_the_first_checkpoint(run, output):
    """A copy of a finished run, as if it had been killed before it wrote its second checkpoint."""
    shutil.copytree(run / "run", output)
    shutil.rmtree(list_checkpoints(output / "checkpoints")[-1][1])
    for export in ("backbone.safetensors", "heads.safetensors"):
        (output / export).unlink()
    return output


def test_a_killed_run_goes_on_to_equal_bytes(run, tmp_path):
    output = back_to_the_first_checkpoint(run, tmp_path / "killed")
    result = train(config(run / "shards", output))
    whole, resumed = state_of(run / "run"), state_of(output)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert result.export.read_bytes() == (run / "run" / "backbone.safetensors").read_bytes()


def test_a_run_does_not_go_on_with_other_classes(run, tmp_path):
    table = pq.read_table(run / "shards" / "a.parquet")
    values = [None if value is None else value + 1 for value in table["scanner"].to_pylist()]
    place = table.schema.get_field_index("scanner")
    (tmp_path / "shards").mkdir()
    pq.write_table(table.set_column(place, "scanner", pa.array(values, pa.int64())), tmp_path / "shards" / "a.parquet")
    with pytest.raises(WorkdirError, match=r"belongs to another run: classes.scanner was \[3, 7\], now \[4, 8\]"):
        train(config(tmp_path / "shards", back_to_the_first_checkpoint(run, tmp_path / "killed")))


def test_a_run_can_be_made_longer_where_the_ramp_has_a_length_of_its_own():
    told = {}
    for ramp in ("auto", 3):
        guides = [{"column": "scanner", "adversarial": True, "ramp": ramp}]
        runs = [config("a", "b", guides=guides, iterations=number) for number in (4, 8)]
        short, long = (Timeline(one, resolve_auto(one, num_images=24, num_samples=24)).past(4) for one in runs)
        told[ramp] = short["reversal.scanner"] == long["reversal.scanner"]
    assert told == {"auto": False, 3: True}


def test_the_reversal_rises_as_published():
    settings = config("a", "b", iterations=50)
    timeline = Timeline(settings, resolve_auto(settings, num_images=24, num_samples=24))
    for step in (0, 1, 10, 25, 49):
        wanted = 2 / (1 + math.exp(-10 * step / 50)) - 1
        assert timeline.reversals(step) == {"scanner": pytest.approx(wanted)}
    assert timeline.reversals(50) == {"scanner": 1.0}


def test_a_plan_names_the_guides(run):
    planned = config(run / "shards", "/nonexistent")
    told = "\n".join(plan_training(planned))
    assert (
        "guide scanner, hidden by the features: 2 classes (3, 7) of 16 of 24 images; weight 1, over 4 iterations"
        in told
    )
    assert "guide organ, told by the features: 2 classes (liver, lung) of 24 of 24 images; weight 1" in told
    assert "reversal.scanner: from 0: 0 to 1 (logistic) until 4" in told
    assert "guide organ, told by the features: classes unknown without the shards" in "\n".join(
        plan_training(planned, images=24)
    )


def test_a_column_that_shards_lack_is_an_error_that_lists_the_columns(run, tmp_path):
    with pytest.raises(
        SourceError, match=r"no column ward, which objective.guides names; .*: image_id, .*organ, scanner"
    ):
        train(config(run / "shards", tmp_path / "run", guides=[{"column": "ward"}]))
    assert not (tmp_path / "run").exists()


def test_guides_that_do_not_go_together_are_refused():
    with pytest.raises(
        ConfigError, match=r"columns 'a.b' and 'a/b' are one, or differ only in signs; a column has one"
    ):
        config("a", "b", guides=[{"column": "a.b"}, {"column": "a/b"}])
    students = {"more": {"model": {"preset": "tiny", "patch_size": 8}}}
    values = {**TINY, "shards": "a", "output": "b", "students": students}
    values["objective"] = {**TINY["objective"], "prototypes": "auto", "distill_from": "c", "guides": ASKED}
    with pytest.raises(ConfigError, match="guides guide one student; leave them out, or students"):
        parse(TrainConfig, values, where="test")
