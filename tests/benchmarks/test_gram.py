import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.figures import as_json
from benchmarks.gram import Branched, Look, Toy, as_figures, bench_gram, conclusions, format_table
from curate.evaluation.scores import of_items

FEW = {
    "model": {"depth": 1, "dim": 16, "heads": 2},
    "crops": {"num_local": 1},
    "batch_size": 4,
    "workers": 0,
    "log_every": 1,
    "optimizer": {"base_lr": 1e-2, "warmup_iterations": 0},
}
TOY = Toy(FEW, early=1, branch=2, end=4)


def read_log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_both_branches_share_the_run_until_they_part_and_differ_by_the_gram_loss(tmp_path: Path) -> None:
    (found,) = bench_gram(tmp_path, TOY, seeds=[3], weight=50.0, pairs=2)
    anchored, without = (read_log(tmp_path / "seed-3" / name) for name in ("anchored", "without"))
    assert [row["loss"] for row in anchored[:2]] == [row["loss"] for row in without[:2]]
    assert [row["step"] for row in without] == [1, 2, 3, 4]
    assert anchored[2]["loss_dino"] == without[2]["loss_dino"]  # equal weights, crops and masks
    assert anchored[3]["loss_dino"] != without[3]["loss_dino"]
    assert ["loss_gram" in row for row in anchored] == [False, False, True, True]
    assert not any("loss_gram" in row for row in without)
    assert found.anchored.cosine.value != found.without.cosine.value
    assert len({len(look.dense.parts) for look in (found.initial, found.early, found.branch)}) == 1
    table = format_table([found])
    assert "seed  run" in table
    assert f"{found.branch.dense.value - found.early.dense.value:+.3f} +- " in table
    again = next(bench_gram(tmp_path, TOY, seeds=[3], weight=50.0, pairs=2))
    assert again.anchored.dense.value == found.anchored.dense.value
    rows = json.loads(as_json(as_figures(found)))["figures"]
    assert [row["better"] for row in rows] == ["higher", "lower"] * 2


def made(*values: tuple[float, float], noise: float = 0.01) -> Branched:
    """A seed with given means of (cosine, dense) at every look."""
    rng = np.random.default_rng(0)
    looks = []
    for cosine, dense in values:
        first, second = (of_items("m", "f", "p", value + noise * rng.standard_normal(50)) for value in (cosine, dense))
        looks.append(Look(first, second, second))
    return Branched(0, *looks)


@pytest.mark.parametrize(
    ("branch", "without", "anchored", "degraded", "repaired"),
    [
        ((0.5, 0.1), (0.5, 0.1), (0.1, 0.3), True, True),
        ((0.1, 0.3), (0.5, 0.1), (0.1, 0.4), False, False),  # nothing to repair at the branch, whose cosine stays
        ((0.5, 0.1), (0.1, 0.3), (0.1, 0.3), True, False),  # it would have recovered by itself
        ((0.5, 0.1), (0.5, 0.1), (0.5, 0.3), True, False),  # only one of both figures
    ],
)
def test_the_conclusion_needs_both_figures_beyond_their_errors(
    branch: tuple[float, float],
    without: tuple[float, float],
    anchored: tuple[float, float],
    degraded: bool,
    repaired: bool,
) -> None:
    one = made((0.0, 0.2), (0.1, 0.3), branch, without, anchored)
    assert (one.degraded, one.repaired) == (degraded, repaired)
    first, second = conclusions([one, one])
    assert first.endswith(f"in {2 * degraded} of 2 seeds")
    assert second.endswith(f"in {2 * repaired} of 2 seeds")
