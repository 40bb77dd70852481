"""Finding pictures by a part of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from curate.errors import SourceError
from curate.evaluation.labeled import LabeledImages
from curate.evaluation.parts import cut_part, find_from_parts
from tests.evaluation.backbones import backbone_of, of_pictures

AREA = (0.3, 0.6)


class MeanColor(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3))


class Blind(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(pixels), 3)


def colors(number: int) -> LabeledImages:
    """Pictures of one color each, whose parts look as they do."""
    return of_pictures([Image.new("RGB", (96, 64), (shade * 30, 255 - shade * 30, 90)) for shade in range(number)])


def test_parts_are_of_the_asked_share_and_from_all_over_the_picture() -> None:
    ramp = np.add.outer(np.zeros(60, int), np.arange(120)).astype(np.uint8)
    picture = Image.merge("RGB", [Image.fromarray(ramp)] * 3)
    rng = np.random.default_rng(0)
    parts = [cut_part(picture, AREA, rng) for _ in range(300)]
    shares = np.array([part.width * part.height / (120 * 60) for part in parts])
    columns = [np.asarray(part)[0, :, 0].astype(int) for part in parts]
    mirrored = [steps[0] > steps[-1] for steps in columns]

    assert shares.min() >= 0.29
    assert shares.max() <= 0.61
    assert shares.std() > 0.05
    assert {int(abs(np.diff(steps)).max()) for steps in columns} == {1}  # a part, not a resized one
    assert 100 < sum(mirrored) < 200
    assert min(steps.min() for steps in columns) == 0
    assert max(steps.max() for steps in columns) == 119


def test_a_backbone_that_sees_color_finds_every_one_and_a_blind_one_by_chance() -> None:
    found = find_from_parts(backbone_of(MeanColor(), dim=3), colors(8), area=AREA, seed=0)

    assert (found.value, found.stderr, len(found.correct)) == (1, 0, 8)
    assert find_from_parts(backbone_of(Blind(), dim=3), colors(8), area=AREA, seed=0).value == 1 / 8


def test_one_picture_is_refused() -> None:
    with pytest.raises(SourceError, match="1 pictures, at least 2"):
        find_from_parts(backbone_of(Blind(), dim=3), colors(1), area=AREA, seed=0)
