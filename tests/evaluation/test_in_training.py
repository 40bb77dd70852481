import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner

from curate.cli import app
from curate.config import parse
from curate.errors import ConfigError, SourceError
from curate.evaluation.dense.composites import compose
from curate.evaluation.dense.encoder import PatchEncoder
from curate.evaluation.features import embed_folder
from curate.evaluation.in_training import (
    QUICK_STRENGTHS,
    TeacherEvaluation,
    evaluation_for,
)
from curate.evaluation.knn import knn_accuracy, knn_leave_one_out
from curate.evaluation.labeled import open_labeled
from curate.evaluation.logistic import logistic_accuracy
from curate.evaluation.measures.depth import score_depth
from curate.evaluation.settings import EvaluationSettings
from curate.evaluation.splits import stratified_split
from curate.models.backbones.load import load_backbone
from curate.trainer.config import TrainConfig
from curate.trainer.train import train
from tests.evaluation.backbones import VIT, backbone_of, seeded_vit, write_classes
from tests.evaluation.dense.folders import write_ade
from tests.feed.shards import write_shards


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("data") / "classes", each=12)


HOW = backbone_of(nn.Identity(), dim=1).preprocess


def prepared(settings: EvaluationSettings) -> TeacherEvaluation:
    evaluation = TeacherEvaluation(settings)
    evaluation.prepare(HOW)
    return evaluation


def test_figures_are_those_of_the_exported_backbone(classes: Path) -> None:
    found = prepared(EvaluationSettings(labelled=str(classes), k=7, seed=2))(seeded_vit())
    unit = embed_folder(backbone_of(seeded_vit(), dim=VIT.dim), classes)
    near = knn_leave_one_out(unit.features, unit.labels, 7)
    assert (found["knn"], found["knn_stderr"]) == (near.value, near.stderr)
    learned = stratified_split(unit.labels, train_share=0.7, seed=2)
    four = [part[rows] for rows in (learned, ~learned) for part in (unit.features, unit.labels)]
    linear, _ = logistic_accuracy(*four, seed=2, strengths=QUICK_STRENGTHS)
    assert (found["linear"], found["linear_stderr"]) == (linear.value, linear.stderr)


def test_a_test_set_is_asked_instead(classes: Path, tmp_path: Path) -> None:
    test = write_classes(tmp_path / "test", each=4, seed=1)
    settings = EvaluationSettings(labelled=str(classes), test=str(test), k=5, measures=("knn",))
    found = prepared(settings)(seeded_vit())
    train_x, test_x = (embed_folder(backbone_of(seeded_vit(), dim=VIT.dim), folder) for folder in (classes, test))
    near = knn_accuracy(train_x.features, train_x.labels, test_x.features, test_x.labels, 5)
    assert found == {"knn": near.value, "knn_stderr": near.stderr}
    settings = settings.model_copy(update={"measures": ("linear",)})
    four = train_x.features, train_x.labels, test_x.features, test_x.labels
    expected = logistic_accuracy(*four, seed=0, strengths=QUICK_STRENGTHS)[0].value
    assert prepared(settings)(seeded_vit())["linear"] == expected


def test_the_module_and_random_numbers_are_left_as_found(classes: Path) -> None:
    evaluation = prepared(EvaluationSettings(labelled=str(classes)))
    model = seeded_vit().train()
    model.blocks[1].eval()
    modes = [part.training for part in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    state, own = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # the global one, to see it kept
    evaluation(model)
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], own)  # noqa: NPY002
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    model(torch.zeros(1, 3, 28, 28)).sum().backward()  # and it can still be trained


def test_modes_come_back_after_an_error(classes: Path) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward_features(self, images: torch.Tensor) -> None:
            raise RuntimeError("broken")

    model = Broken().train()
    with pytest.raises(RuntimeError, match="broken"):
        prepared(EvaluationSettings(labelled=str(classes)))(model)
    assert all(part.training for part in model.modules())


def test_many_pictures_are_sampled_in_the_shares_of_their_classes(classes: Path) -> None:
    evaluation = prepared(EvaluationSettings(labelled=str(classes), max_images=15))
    assert np.bincount(evaluation.train.labels).tolist() == [5, 5, 5]
    assert evaluation.train.pixels.shape == (15, 3, 28, 28)
    x = evaluation._embed(seeded_vit(), evaluation.train.pixels)
    all_vote = knn_leave_one_out(x, evaluation.train.labels, 14)  # k=20 is more than there are
    assert evaluation(seeded_vit())["knn"] == all_vote.value


def test_damaged_pictures_are_told_of_before_training(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "set", each=3)
    (folder / "class1" / "001.png").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"001.png: the picture does not decode"):
        prepared(EvaluationSettings(labelled=str(folder)))


def test_too_few_pictures_are_an_error(classes: Path) -> None:
    with pytest.raises(SourceError, match="6 images in 3 classes, 2 in the largest; an evaluation needs two classes"):
        prepared(EvaluationSettings(labelled=str(classes), max_images=6))


VALUES = {
    "shards": "none",
    "output": "none",
    "batch_size": 4,
    "iterations": 4,
    "evaluate_every": 2,
    "device": "cpu",
    "precision": "fp32",
    "workers": 0,
    "model": {"preset": "tiny", "depth": 1, "layer_scale": 1.0},
    "crops": {"global_size": 28, "local_size": 14, "num_local": 1},
    "objective": {"prototypes": 16, "head_hidden": 16, "head_bottleneck": 8},
}


def test_block_and_interval_go_together(classes: Path) -> None:
    settings, config = EvaluationSettings(labelled=str(classes)), parse(TrainConfig, VALUES, where="test")
    never = config.model_copy(update={"evaluate_every": 0})
    assert evaluation_for(None, never) is None
    with pytest.raises(ConfigError, match="evaluate_every=2, but nothing says on what; set evaluation.labelled=FOLDER"):
        evaluation_for(None, config)
    with pytest.raises(ConfigError, match="evaluation is given but evaluate_every is 0"):
        evaluation_for(settings, never)
    found = evaluation_for(settings, config)
    assert isinstance(found, TeacherEvaluation)


def test_a_training_logs_the_evaluation_and_does_not_change_by_it(classes: Path, tmp_path: Path) -> None:
    values = VALUES | {"shards": str(write_shards(tmp_path / "shards"))}
    with_, without = (
        parse(TrainConfig, values | {"output": str(tmp_path / name)}, where="test") for name in ("with", "without")
    )
    evaluation = evaluation_for(EvaluationSettings(labelled=str(classes)), with_)
    watched, plain = train(with_, evaluate=evaluation), train(without)
    assert [row["step"] for row in watched.log if "eval_knn" in row] == [2, 4]
    assert {"eval_knn", "eval_knn_stderr", "eval_linear", "eval_linear_stderr"} <= watched.log[-1].keys()
    assert watched.export.read_bytes() == plain.export.read_bytes()


def test_damaged_pictures_end_a_training_before_its_first_iteration(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "set", each=3)
    (folder / "class1" / "001.png").write_bytes(b"x")
    places = {"shards": str(write_shards(tmp_path / "shards")), "output": str(tmp_path / "run")}
    config = parse(TrainConfig, VALUES | places, where="test")
    with pytest.raises(SourceError, match=r"001.png: the picture does not decode"):
        train(config, evaluate=evaluation_for(EvaluationSettings(labelled=str(folder)), config))
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("asked", [None, 56])
def test_a_backbone_that_goes_on_is_evaluated_and_exported_at_its_own_size(
    classes: Path, tmp_path: Path, asked: int | None
) -> None:
    """Crops of half its side save time in training; `export_size` may ask for another one."""
    places = {"shards": str(write_shards(tmp_path / "shards"))}
    large = VALUES | places | {"output": str(tmp_path / "given"), "crops": {"global_size": 42, "local_size": 14}}
    given = train(parse(TrainConfig, large | {"iterations": 1, "evaluate_every": 0}, where="test")).export
    model = VALUES["model"] | {"position_size": 42}
    going_on = {"model": model, "init_from": str(given), "output": str(tmp_path / "on"), "export_size": asked}
    config = parse(TrainConfig, VALUES | places | going_on, where="test")
    settings = EvaluationSettings(labelled=str(classes), k=5, measures=("knn",))
    result = train(config, evaluate=evaluation_for(settings, config))
    backbone = load_backbone("curate", weights=str(result.export), precision="fp32")
    assert backbone.preprocess.size == (asked or 42)
    unit = embed_folder(backbone, classes)
    assert result.log[-1]["eval_knn"] == knn_leave_one_out(unit.features, unit.labels, 5).value


def test_the_command_takes_both_from_one_yaml(classes: Path, tmp_path: Path) -> None:
    places = {"shards": str(write_shards(tmp_path / "shards")), "output": str(tmp_path / "out")}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(VALUES | places | {"evaluation": {"labelled": str(classes), "measures": ["knn"]}}))
    told = CliRunner().invoke(app, ["train", str(path), "evaluation.k=3"])
    assert told.exit_code == 0, told.output
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    backbone = load_backbone("curate", weights=str(tmp_path / "out" / "backbone.safetensors"), precision="fp32")
    unit = embed_folder(backbone, classes)
    assert rows[-1]["eval_knn"] == knn_leave_one_out(unit.features, unit.labels, 3).value


def test_dense_figures_are_those_of_the_measure() -> None:
    settings = parse(
        EvaluationSettings, {"segmentation": {"data": "mnist5k", "num": 2, "grid": 2}, "depth": {"num": 2, "grid": 2}},
        where="test",
    )  # fmt: skip
    found = prepared(settings)(seeded_vit())
    assert set(found) == {
        f"{name}{error}"
        for name in ("segmentation_in_context_miou", "segmentation_linear_miou", "depth_rmse", "depth_within_1_25_x")
        for error in ("", "_stderr")
    }
    truth = compose(open_labeled("bundled"), seed=0, scenes=2)
    assert truth.depth
    encoder = PatchEncoder.of(backbone_of(seeded_vit(), dim=VIT.dim), grid=2)
    encoder.interpolation = HOW.interpolation
    assert found["depth_rmse"] == pytest.approx(score_depth(encoder, truth.depth)[0].value, rel=1e-5)
    again = prepared(settings)(seeded_vit())
    assert again == found


def test_an_evaluation_of_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to measure: give labelled, or a dense measure"):
        parse(EvaluationSettings, {}, where="test")


def test_a_folder_without_the_truth_is_told_of_before_training(tmp_path: Path) -> None:
    settings = parse(EvaluationSettings, {"depth": {"data": str(write_ade(tmp_path))}}, where="test")
    with pytest.raises(ConfigError, match="holds no truth for depth, but for segmentation"):
        prepared(settings)


def test_damaged_pictures_of_dense_measures_are_told_of_before_training(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "set", each=12, num_classes=2)
    damaged = sorted(folder.rglob("*.png"))
    for path in damaged[1:11]:  # the first alone is looked at before
        path.write_bytes(b"x")
    settings = parse(EvaluationSettings, {"discovery": {"data": str(folder)}}, where="test")
    with pytest.raises(SourceError, match="the picture does not decode"):
        prepared(settings)
