import numpy as np
import pytest
import torch
from torch import nn

from curate.evaluation import linear
from curate.evaluation.features import BlockFeatures
from curate.evaluation.linear import Head, HeadGrid, Schedule, linear_accuracy, make_views
from curate.evaluation.splits import stratified_split

RATES = (0.01, 0.5)
SHORT = Schedule(iterations=25, batch_size=16)


def tokens(n: int, *, seed: int, num_tokens: int = 3, dim: int = 5, noise: float = 0.7) -> BlockFeatures:
    """Classes show in the last token (the patches) best, and not at all in the first."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    x = rng.normal(0, noise, (n, num_tokens, dim))
    for number in range(num_tokens):
        x[:, number] += np.eye(dim)[labels] * number
    return BlockFeatures(x.astype(np.float32), labels)


def train_alone(train: BlockFeatures, view: tuple[int, ...], rate: float, first: torch.Tensor) -> nn.Linear:
    """One head by torch's own optimizer and schedule, on the batches of seed 0."""
    x, y = torch.from_numpy(train.tokens[:, list(view)]).flatten(1), torch.from_numpy(train.labels)
    head = nn.Linear(x.shape[1], 3)
    with torch.no_grad():
        head.weight.copy_(first)
        head.bias.zero_()
    optimizer = torch.optim.SGD(head.parameters(), lr=rate * SHORT.batch_size / 256, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, SHORT.iterations)
    order = linear._Order(len(y), SHORT.batch_size, 0)
    for _ in range(SHORT.iterations):
        rows = order.next()
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
        optimizer.step()
        scheduler.step()
    return head


def test_heads_trained_together_equal_heads_trained_alone() -> None:
    train, views = tokens(50, seed=0), make_views(3)
    grid = HeadGrid(views, RATES, dim=5, num_classes=3, seed=0)
    first = {name: weight[0].clone() for name, weight in grid.weights.items()}
    grid.fit(train, SHORT)
    for name, view in views.items():
        for number, rate in enumerate(RATES):
            alone = train_alone(train, view, rate, first[name])
            torch.testing.assert_close(grid.weights[name][number], alone.weight.detach(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(grid.biases[name][number], alone.bias.detach(), rtol=1e-4, atol=1e-5)
            x = torch.from_numpy(train.tokens[:, list(view)]).flatten(1)
            right = (alone(x).argmax(dim=1).numpy() == train.labels).tolist()
            assert grid.correct(train)[Head(name, rate)].tolist() == right


def test_views_are_those_of_the_paper() -> None:
    assert make_views(5) == {
        "cls": (3,),
        "cls + patches": (3, 4),
        "cls of 4 blocks": (0, 1, 2, 3),
        "cls of 4 blocks + patches": (0, 1, 2, 3, 4),
    }
    assert make_views(2) == {"cls": (0,), "cls + patches": (0, 1)}
    assert make_views(1) == {"output": (0,)}


def test_each_epoch_shows_each_row_once() -> None:
    order = linear._Order(12, 4, 0)
    first, second = (torch.cat([order.next() for _ in range(3)]).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_large_sets_train_as_long_as_in_the_paper() -> None:
    assert Schedule.of(1_281_167) == Schedule(12511, 1024)
    assert Schedule.of(300) == Schedule(1000, 32)
    assert Schedule.of(20).batch_size == 20


def test_the_head_is_chosen_on_held_out_training_rows_and_judged_on_the_test() -> None:
    train, test = tokens(90, seed=1), tokens(60, seed=2)
    accuracy, head = linear_accuracy(train, test, seed=0, rates=RATES, schedule=SHORT)
    fitted = stratified_split(train.labels, train_share=0.8, seed=0)
    grid = HeadGrid(make_views(3), RATES, dim=5, num_classes=3, seed=0)
    grid.fit(BlockFeatures(train.tokens[fitted], train.labels[fitted]), SHORT)
    right = grid.correct(BlockFeatures(train.tokens[~fitted], train.labels[~fitted]))
    assert right[head].mean() == max(found.mean() for found in right.values())
    again = HeadGrid({head.view: make_views(3)[head.view]}, (head.rate,), dim=5, num_classes=3, seed=0)
    again.fit(train, SHORT)
    np.testing.assert_array_equal(accuracy.correct, again.correct(test)[head])
    assert accuracy.value > 0.6
    shuffled = BlockFeatures(test.tokens, np.roll(test.labels, 1))
    assert linear_accuracy(train, shuffled, seed=0, rates=RATES, schedule=SHORT)[1] == head


@pytest.mark.parametrize("size", [0.01, 100.0])
def test_the_size_of_a_models_outputs_does_not_matter(size: float) -> None:
    train, test = tokens(60, seed=3, num_tokens=2), tokens(60, seed=4, num_tokens=2)
    one = [BlockFeatures(part.tokens[:, 1:], part.labels) for part in (train, test)]
    sized = [BlockFeatures(part.tokens * np.float32(size), part.labels) for part in one]
    plain = linear_accuracy(*one, seed=0, rates=(0.1,), schedule=SHORT)[0]
    assert linear_accuracy(*sized, seed=0, rates=(0.1,), schedule=SHORT)[0].value == pytest.approx(
        plain.value, abs=0.02
    )
    assert plain.value > 0.6


def test_heads_are_named_by_what_they_read_and_their_rate() -> None:
    assert str(Head("cls + patches", 1e-3)) == "cls + patches, lr 0.001"
