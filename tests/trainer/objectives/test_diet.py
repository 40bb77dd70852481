import math

import pytest
import torch

from curate.errors import ConfigError
from curate.trainer.objectives.feature_settings import DietSettings
from curate.trainer.train import train
from tests.trainer.objectives.tiny import BATCH, LOCAL, PROTOTYPES, build, config, context, swin, views, vit

SETTINGS = DietSettings()


def numbered():
    return views()._replace(images=torch.tensor([4, 0, 17]))


@pytest.mark.parametrize("backbone", [vit, swin])
def test_a_step_equals_the_plain_formula(backbone):
    objective = build(SETTINGS, backbone()).eval()
    output = objective(numbered(), context())
    total = 0.0
    with torch.no_grad():
        features = torch.cat([objective.student["backbone"](group) for group in numbered().groups]).double()
        scores = features @ objective.student["classifier"].weight.double().T
    for i, row in enumerate(scores.log_softmax(dim=1)):
        own = row[numbered().images[i % BATCH]]
        total -= float(0.2 * own + 0.8 * row.mean())
    assert output.loss.item() == pytest.approx(total / (BATCH * (2 + LOCAL)), rel=1e-6)


def test_a_classifier_of_zeros_is_at_chance():
    objective = build(SETTINGS, vit())
    with torch.no_grad():
        objective.student["classifier"].weight.zero_()
    output = objective(numbered(), context())
    assert output.loss.item() == pytest.approx(objective.chance["diet"]) == math.log(PROTOTYPES)


def test_crops_of_unknown_images_and_too_many_images_are_refused():
    with pytest.raises(ValueError, match="the crops do not say which images they show"):
        build(SETTINGS, vit())(views(), context())
    with pytest.raises(ConfigError, match=r"class for each of 60000 images, and objective.max_images is 50000; raise"):
        DietSettings().outputs(60_000)


def test_a_run_tells_its_images_apart(tmp_path):
    small = {"preset": "tiny", "patch_size": 8, "depth": 1, "drop_path": 0.0, "layer_scale": 1.0}
    crops = {
        "global_size": 16,
        "num_local": 0,
        "global_scale": [0.6, 1.0],
        "jitter_probability": 0.0,
        "gray_probability": 0.0,
    }
    optimizer = {"base_lr": 6e-2, "warmup_iterations": 5, "patch_embed_lr": 1.0}
    result = train(
        config(
            tmp_path,
            objective="diet",
            model=small,
            crops=crops,
            optimizer=optimizer,
            batch_size=20,
            iterations=40,
            log_every=10,
            checkpoint_every=40,
        )
    )
    first, *_, last = result.log
    assert result.effective.prototypes == result.effective.num_images == 20
    assert last["diet_accuracy"] > 0.6 > first["diet_accuracy"]
    assert not result.export.with_name("heads.safetensors").exists()
