import re

import pytest

from curate.report.run import Run
from curate.report.sections import training
from curate.report.sections.training import STYLES
from curate.tables import TRAINING_LOG
from tests.report.workdir import Workdir, put, rows


def charts(workdir: Workdir, *log: tuple[int, str, float]) -> list[tuple[str, list[str]]]:
    """(title, names of the lines) of each chart over the log."""
    put(workdir.store, "pretrain", [rows(TRAINING_LOG, *log)], stage="Pretrain")
    text = training.section(Run.open(workdir.store)) or ""
    found = re.findall(r"<h3>([^<]+)</h3><div class=\"chart\">(<div class=\"legend\">.*?</div>)", text)
    return [(title, re.findall(r"</i>([^<]+)</span>", legend)) for title, legend in found]


def steps(*names: str, value: float = 0.5) -> list[tuple[int, str, float]]:
    return [(step, name, value * step) for step in (1, 2) for name in names]


def test_figures_of_one_kind_share_a_chart_under_short_names(workdir: Workdir) -> None:
    log = steps("loss", "loss_dino", "loss_ibot", "gradient_norm_backbone", "gradient_norm_dino_head")
    assert charts(workdir, *log) == [
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
def test_each_figure_of_the_log_has_its_chart(workdir: Workdir, name: str, title: str) -> None:
    found = charts(workdir, *steps(name))
    assert [lines for _, lines in found] == [[name.replace("_", " ")]]
    assert found[0][0].startswith(title)


def test_shares_do_not_stand_beside_larger_figures(workdir: Workdir) -> None:
    log = [*steps("eval_knn_top1", "eval_linear"), *steps("eval_rank", value=100.0)]
    title = "Measured while training"
    assert charts(workdir, *log) == [(title, ["knn top1", "linear"]), (title, ["rank"])]


def test_more_names_than_colours_make_more_charts(workdir: Workdir) -> None:
    names = [f"loss_{letter}" for letter in "abcdefgh"]
    assert [lines for _, lines in charts(workdir, *steps(*names))] == [list("abcdefgh")[: len(STYLES)], ["g", "h"]]


def test_figures_that_are_no_numbers_break_their_line_and_nothing_else(workdir: Workdir) -> None:
    log = [*steps("eval_a"), *((step, "eval_b", float("nan")) for step in (1, 2))]
    assert [lines for _, lines in charts(workdir, *log)] == [["a", "b"]]


def test_a_log_of_unknown_names_alone_has_no_chart(workdir: Workdir) -> None:
    assert charts(workdir, *steps("momentum_of_something")) == []
