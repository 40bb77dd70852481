import pytest
import torch

from curate.trainer.blocks import blocks_to_mask, draw_blocks, rotate

SIZE = 40


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def painted(share, *, number=400, side=(0.1, 0.3)):
    start, length = draw_blocks(number, SIZE, share=share, side=side, generator=generator())
    return blocks_to_mask(start, length, SIZE)


@pytest.mark.parametrize("share", [(0.0, 0.0), (0.3, 0.3), (0.5, 0.7), (0.9, 0.9)])
def test_blocks_hide_the_wanted_share_on_average(share):
    assert painted(share).float().mean() == pytest.approx(sum(share) / 2, abs=0.03)


def test_every_pixel_is_hidden_equally_often():
    often = painted((0.5, 0.5), number=4000).float().mean(dim=0)
    assert often.std() < 3 * (0.25 / 4000) ** 0.5
    assert often[..., 0].mean() == pytest.approx(often.mean().item(), abs=0.02)  # the edge too


def test_sides_stay_in_their_range():
    _, length = draw_blocks(50, SIZE, share=(0.9, 0.9), side=(0.1, 0.3), generator=generator())
    assert set(length.unique().tolist()) == {0.0, *map(float, range(4, 13))}


def test_painting_equals_a_plain_loop():
    start, length = draw_blocks(5, SIZE, share=(0.2, 0.6), side=(0.05, 0.4), generator=generator())
    wanted = torch.zeros(5, 1, SIZE, SIZE, dtype=torch.bool)
    for picture in range(5):
        for (top, left), (height, width) in zip(start[:, picture].T.int(), length[:, picture].T.int(), strict=True):
            rows, columns = (slice(max(a, 0), max(a + b, 0)) for a, b in ((top, height), (left, width)))
            wanted[picture, 0, rows, columns] = True
    assert torch.equal(blocks_to_mask(start, length, SIZE), wanted)


def test_each_picture_is_turned_by_its_own_quarters():
    pictures = torch.randn(5, 3, 4, 4, generator=generator())
    quarters = torch.tensor([3, 0, 1, 2, 1])
    for turned, picture, number in zip(rotate(pictures, quarters), pictures, quarters, strict=True):
        assert torch.equal(turned, picture.rot90(int(number), dims=(1, 2)))
