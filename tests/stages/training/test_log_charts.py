import pyarrow as pa
import pytest

from curate.engine.show import Beside, Curves, Heading
from curate.stages.training.log_charts import COLORS, log_charts
from curate.tables import TRAINING_LOG

Log = list[tuple[int, str, float]]


def charts(log: Log) -> list[tuple[str, list[str]]]:
    """(title, names of the lines) of each chart over the log."""
    rows = pa.Table.from_pylist([dict(zip(TRAINING_LOG.names, row, strict=True)) for row in log], TRAINING_LOG)
    found = []
    for block in log_charts(rows):
        assert isinstance(block, Beside)
        for heading, curves in block.columns:
            assert isinstance(heading, Heading)
            assert isinstance(curves, Curves)
            assert len({line.color for line in curves.lines}) == len(curves.lines)
            found.append((heading.text, [line.name for line in curves.lines]))
    return found


def steps(*names: str, value: float = 0.5) -> Log:
    return [(step, name, value * step) for step in (1, 2) for name in names]


def test_figures_of_one_kind_share_a_chart_under_short_names() -> None:
    log = steps("loss", "loss_dino", "loss_ibot", "gradient_norm_backbone", "gradient_norm_dino_head")
    assert charts(log) == [
        ("Losses", ["loss", "dino", "ibot"]),
        ("Norm of the gradients before clipping", ["backbone", "dino head"]),
    ]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("teacher_entropy", "Entropy of the teacher"),
        ("prototypes_used", "Prototypes in use"),
        ("feature_std", "Spread of the features"),
        ("images_per_second", "Speed"),
        ("learning_rate", "Learning rate"),
    ],
)
def test_each_figure_of_the_log_has_its_chart(name: str, title: str) -> None:
    found = charts(steps(name))
    assert [lines for _, lines in found] == [[name.replace("_", " ")]]
    assert found[0][0].startswith(title)


def test_shares_do_not_stand_beside_larger_figures() -> None:
    log = [*steps("eval_knn_top1", "eval_linear"), *steps("eval_rank", value=100.0)]
    title = "Measured while training"
    assert charts(log) == [(title, ["knn top1", "linear"]), (title, ["rank"])]


def test_more_names_than_colors_make_more_charts() -> None:
    names = [f"loss_{letter}" for letter in "abcdefgh"]
    assert [lines for _, lines in charts(steps(*names))] == [list("abcdefgh")[: len(COLORS)], ["g", "h"]]


def test_figures_that_are_no_numbers_break_their_line_and_nothing_else() -> None:
    log = [*steps("eval_a"), *((step, "eval_b", float("nan")) for step in (1, 2))]
    assert [lines for _, lines in charts(log)] == [["a", "b"]]


def test_a_log_of_unknown_names_alone_has_no_chart() -> None:
    assert charts(steps("momentum_of_something")) == []
