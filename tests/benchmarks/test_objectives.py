import json
from pathlib import Path

from benchmarks.figures import as_json
from benchmarks.objectives import as_figures, bench_objectives, bundled_configs, format_table, loss_ends
from curate.config import find_config, parse, read_yaml
from curate.trainer.config import TrainConfig

FEW = ["iterations=2", "batch_size=4", "model.patch_size=14", "crops.local_size=14", "log_every=1", "workers=0"]


def test_every_bundled_config_is_one_for_the_trainer() -> None:
    names = bundled_configs()
    assert "train/mnist5k" in names
    for name in names:
        parse(TrainConfig, read_yaml(name) | {"shards": "a", "output": "b"}, where=name)


def test_ends_are_means_of_tenths() -> None:
    assert loss_ends([*([5.0] * 10), *([4.0] * 80), *([1.0] * 10)]) == (5.0, 1.0)
    assert loss_ends([3.0, 2.0, 1.0]) == (3.0, 1.0)


def test_a_config_is_judged_by_its_own_training(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(find_config("train/mnist5k").read_text().replace("depth: 2", "depth: 1"))
    (one,) = bench_objectives(tmp_path, configs=[str(other)], overrides=FEW)
    assert one.name == "other"
    losses = [row["loss"] for row in one.result.log]
    assert (one.first_loss, one.last_loss) == (losses[0], losses[-1])
    assert one.result.export.parent.parent == tmp_path / "other"
    assert f"other   {losses[0]:.3f} -> {losses[-1]:.3f}" in format_table([one])
    named = {row["name"]: row for row in json.loads(as_json(as_figures([one])))["figures"]}
    accuracy = named["other: 20-NN accuracy"]
    assert (accuracy["value"], accuracy["peer_value"]) == (one.result.trained.value, one.result.initial.value)
    assert f"{one.result.gain_stderr:.4f}" in accuracy["note"]
