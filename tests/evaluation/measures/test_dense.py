"""The dense measures on truths that are told perfectly, badly, and by the networks at hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from curate.cli import app
from curate.evaluation.dense.composites import compose
from curate.evaluation.dense.encoder import PatchEncoder
from curate.evaluation.dense.truth import (
    Clip,
    CorrespondenceTask,
    Deep,
    DepthTask,
    DiscoveryTask,
    Matched,
    PropagationTask,
    SegmentationTask,
    Segmented,
    Series,
    WithObjects,
)
from curate.evaluation.evaluate import evaluate
from curate.evaluation.labeled import from_arrays, open_labeled
from curate.evaluation.measures.correspondence import score_correspondence
from curate.evaluation.measures.depth import score_depth
from curate.evaluation.measures.discovery import score_discovery
from curate.evaluation.measures.propagation import score_propagation
from curate.evaluation.measures.registry import DENSE
from curate.evaluation.measures.segmentation import score_segmentation
from curate.evaluation.scores import Score
from curate.evaluation.summary import evaluation_rows, score_differences
from curate.models.backbones.load import load_backbone
from curate.models.nets.features import Features
from tests.evaluation.backbones import backbone_of, vit_backbone

SIDE, CELL = 64, 8
GRID = SIDE // CELL


class Colors(nn.Module):
    """Features of a square of 8 pixels: its mean color, and a 1."""

    reduction = CELL

    def forward_features(self, images: Tensor) -> Features:
        means = nn.functional.avg_pool2d(images, CELL).flatten(2).transpose(1, 2)
        patches = torch.cat([means, torch.ones_like(means[..., :1])], dim=2)
        return Features(patches.mean(dim=1), patches[:, :0], patches)


def colors() -> PatchEncoder:
    return PatchEncoder.of(backbone_of(Colors(), dim=4), grid=GRID)


def blocks(seed: int, values: list[int]) -> tuple[Image.Image, np.ndarray]:
    """A picture of 4 x 4 squares of 16 pixels, and (S, S) which of `values`, grays, each has."""
    which = np.random.default_rng(seed).integers(0, len(values), (4, 4)).repeat(16, axis=0).repeat(16, axis=1)
    gray = np.array(values, np.uint8)[which]
    return Image.fromarray(np.stack([gray, 255 - gray, gray // 2], axis=2)), which


def segmented(number: int) -> Segmented:
    return Segmented(*blocks(number, [20, 120, 230]))


def by_figure(found: list[Score]) -> dict[str, Score]:
    return {score.figure: score for score in found}


def test_classes_that_colors_tell_are_told() -> None:
    task = SegmentationTask(Series(8, segmented), Series(4, lambda i: segmented(100 + i)), ("a", "b", "c"), "blocks")
    found = by_figure(score_segmentation(colors(), task, seed=0))
    assert found["in context, mIoU"].value > 0.9  # the rest: pixels next to a border, which a patch is too coarse for
    assert found["linear, mIoU"].value > 0.8  # scores of three classes are linear between squares, and cross elsewhere
    assert 0 < found["linear, mIoU"].stderr < 0.1
    assert found["linear, mIoU"].chosen.startswith("shrinkage ")
    shuffled = SegmentationTask(
        task.train, Series(4, lambda i: Segmented(segmented(i).picture, segmented(50 + i).labels)), task.classes, ""
    )
    assert by_figure(score_segmentation(colors(), shuffled, seed=0))["in context, mIoU"].value < 0.4


def test_depths_that_colors_tell_are_told() -> None:
    def deep(number: int) -> Deep:
        picture, which = blocks(number, [20, 120, 220])
        return Deep(picture, (1 + which).astype(np.float32))

    task = DepthTask(Series(8, deep), Series(4, lambda i: deep(100 + i)), "m", 3.0, "blocks")
    found = by_figure(score_depth(colors(), task))
    # beside a border of squares the told depth is between the two, and nowhere else wrong
    assert found["RMSE"].value < 0.5
    assert found["RMSE"].unit == "m"
    assert found["within 1.25 x"].value > 0.6
    constant = float(found["RMSE"].chosen.split("RMSE ")[1])
    assert constant == pytest.approx(np.mean([deep(100 + i).depth.std() for i in range(4)]), abs=0.05)


def test_points_of_a_shifted_picture_are_found() -> None:
    def pair(number: int) -> Matched:
        pixels = np.random.default_rng(number).integers(0, 256, (GRID, GRID, 3), np.uint8)
        first, second = (Image.fromarray(p.repeat(CELL, 0).repeat(CELL, 1)) for p in (pixels, np.roll(pixels, 2, 1)))
        points = np.array([[12.0, 20.0], [28.0, 44.0]])
        return Matched(first, second, points, points + np.array([2.0 * CELL, 0.0]))

    found = by_figure(score_correspondence(colors(), CorrespondenceTask(Series(5, pair), "shifted")))
    assert found["PCK@0.05"].value == found["PCK@0.1"].value >= 0.9  # colors between two squares may occur elsewhere
    assert found["PCK@0.1"].num == 5


def moving(number: int) -> Clip:
    def mask(time: int) -> np.ndarray:
        drawn = np.zeros((SIDE, SIDE), np.int64)
        drawn[16:48, 8 + 8 * time : 24 + 8 * time] = 1
        return drawn

    def frame(time: int) -> Image.Image:
        return Image.fromarray(np.where(mask(time)[..., None] == 1, [250, 30, 20], [20, 40, 240]).astype(np.uint8))

    return Clip(str(number), Series(4, frame), Series(4, mask))


def test_an_object_of_its_own_color_is_followed() -> None:
    found = by_figure(score_propagation(colors(), PropagationTask(Series(2, moving), "moving"), seed=0))
    # all patches are told right; four corners are rounded where patches become pixels
    assert found["J"].value == pytest.approx(1 - 24 / 512)
    assert found["J&F"].value == pytest.approx((found["J"].value + found["F"].value) / 2)
    assert found["F"].value > 0.9
    assert found["J"].chosen == "first mask kept: J 16.7"  # 8 of 24 columns, then none: the last frame is left out


def test_an_object_of_its_own_color_is_found() -> None:
    def lone(number: int) -> WithObjects:
        clip = moving(number)
        mask = clip.masks[number % 4] == 1
        left = 8 + 8 * (number % 4)
        return WithObjects(clip.frames[number % 4], np.array([[left, 16, left + 16, 48]], np.float64), mask)

    found = by_figure(score_discovery(colors(), DiscoveryTask(Series(4, lone), "lone")))
    assert (found["CorLoc"].value, found["mask IoU"].value) == (1, pytest.approx(1 - 24 / 512))  # rounded corners
    without = Series(4, lambda i: lone(i)._replace(mask=None))
    assert set(by_figure(score_discovery(colors(), DiscoveryTask(without, "boxes")))) == {"CorLoc"}


def test_every_dense_measure_has_figures_with_errors_and_paired_differences() -> None:
    images = open_labeled("mnist5k")
    evaluations = [evaluate(vit_backbone(seed), images, measures=DENSE, scenes=4, grid=4) for seed in (0, 1)]
    assert list(dict.fromkeys(score.measure for score in evaluations[0].scores)) == list(DENSE)
    for score in evaluations[0].scores:
        assert np.isfinite([score.value, score.stderr]).all()
        assert score.num >= 2
    for difference in score_differences(*evaluations):
        assert difference.first.protocol == difference.second.protocol
        assert np.isfinite(difference.stderr)
    again = evaluate(vit_backbone(0), images, measures=("depth", "propagation"), scenes=4, grid=4)
    assert all(d.value == d.stderr == 0 for d in score_differences(evaluations[0], again))
    cells = {row[1]: row[2] for row in evaluation_rows(again)}
    assert cells["RMSE"].endswith(" camera heights")


def test_learned_features_beat_pixels_on_composites_of_photographs() -> None:
    truth = compose(open_labeled("bundled"), seed=0, scenes=8)
    assert truth.correspondence
    pairs = CorrespondenceTask(truth.correspondence.pairs, "")
    values = {}
    for name in ("pixels16", "lite0"):
        encoder = PatchEncoder.of(load_backbone(name, precision="fp32"), grid=8)
        values[name] = by_figure(score_correspondence(encoder, pairs))["PCK@0.1"]
    gain = values["lite0"].parts - values["pixels16"].parts
    assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain))


def test_the_command_takes_tasks_by_either_name_and_sets_by_their_layout(tmp_path: Path) -> None:
    from tests.evaluation.dense.folders import write_nyu

    run = CliRunner().invoke
    asked = ["--data", "mnist5k", "--grid", "3", "--scenes", "2", "--json"]
    first, second = (
        run(app, ["eval", "pixels16", option, "discovery", *asked]).output for option in ("--tasks", "--measures")
    )
    assert first == second
    assert [score["figure"] for score in json.loads(first)["scores"]] == ["CorLoc", "mask IoU"]
    found = json.loads(
        run(app, ["eval", "pixels16", "--data", str(write_nyu(tmp_path)), "--grid", "4", "--json"]).output
    )
    assert {score["measure"] for score in found["scores"]} == {"depth"}
    assert found["num_images"] == 0


def test_classes_of_a_folder_are_used_where_it_has_some(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = from_arrays(rng.integers(0, 256, (40, 32, 32, 3), np.uint8), np.arange(40) % 5, name="n")
    (score, _) = evaluate(load_backbone("pixels16"), images, measures=("segmentation",), scenes=2, grid=2).scores
    assert "new pictures" in score.protocol
