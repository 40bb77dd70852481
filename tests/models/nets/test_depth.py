import torch

from curate.models.nets.depth import Group, draw_kept


def test_stochastic_depth_draws_the_stated_share_of_each_group() -> None:
    groups = [Group(10, 5), Group(3, 2), Group(1, 4)]
    rows, scale, kept = draw_kept(groups, 0.3, device=torch.device("cpu"), generator=None)
    assert list(kept) == [Group(7, 5), Group(2, 2), Group(1, 4)]
    assert len(set(rows.tolist())) == 7 * 5 + 2 * 2 + 4
    first = rows[:35].reshape(7, 5)
    assert (first // 5 == first[:, :1] // 5).all()  # whole images
    torch.testing.assert_close(scale[:35, 0], torch.full((35,), 10 / 7))
    assert int(rows[-4:].min()) == 56
