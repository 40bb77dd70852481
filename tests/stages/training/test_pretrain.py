"""The training as a stage: seed, precision and devices as a run needs them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.engine.cost import Assumptions
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.show import Drawings, Text
from curate.engine.stage import Scan
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import ConfigError
from curate.models.files.header import read_header
from curate.recipe import load_config
from curate.stages.training.pretrain import Pretrain, PretrainFigures
from curate.tables import shards_schema
from curate.trainer.config import TrainSettings
from tests.feed.shards import row
from tests.stages.planted import opened
from tests.trainer.test_train import TINY

SETTINGS = TrainSettings.model_validate(TINY | {"precision": "auto", "iterations": 2, "workers": 0})


class PlantedShards(Scan):
    """One shard of ten pictures."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return shards_schema({})

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        yield 0, pa.Table.from_pylist([row(i) for i in range(10)], schema=shards_schema({}))


def run_pretrain(workdir: Path, *, run_seed: int, **fields: Any) -> Table:
    pipeline = Pipeline(Store(workdir), seed=run_seed)
    shards = pipeline.add("shards/data", PlantedShards())
    pipeline.add("pretrain", Pretrain(train=SETTINGS, **fields), shards=shards)
    pipeline.run(InProcess(1), Flags())
    return pipeline.store.table("pretrain")


def test_the_seed_of_the_run_reaches_the_trainer_unless_the_stage_has_its_own(tmp_path: Path) -> None:
    seeds, logs = [], []
    for name, run_seed, fields in (("a", 7, {}), ("b", 3, {"seed": 7}), ("c", 8, {})):
        table = run_pretrain(tmp_path / name, run_seed=run_seed, **fields)
        _, info = read_header(table.store.join(PretrainFigures.of(table).export))
        seeds.append(info.provenance["seed"])
        logs.append(table.read_all())
    assert seeds == [7, 7, 8]
    assert logs[0].equals(logs[1])
    assert not logs[0].equals(logs[2])


def test_the_fingerprint_holds_the_precision_that_auto_became(tmp_path: Path) -> None:
    manifest = run_pretrain(tmp_path, run_seed=0).manifest()
    assert manifest is not None
    assert manifest.config["train"]["precision"] == "auto"
    assert manifest.resolved["train"]["precision"] in ("fp32", "bf16")


@pytest.mark.parametrize("chosen", ["fp32", "bf16"])
def test_a_resumed_run_keeps_the_precision_it_began_with(chosen: str) -> None:
    stage = Pretrain(train=SETTINGS)
    assert stage.resolve({"train": {"precision": chosen}}).train.precision == chosen
    fixed = Pretrain(train=SETTINGS.model_copy(update={"precision": chosen}))
    assert fixed.resolve() == fixed


def test_a_seed_of_the_trainer_in_a_recipe_is_an_error_that_names_the_right_one(tmp_path: Path) -> None:
    places = [f"sources.{role}={tmp_path}" for role in ("pool", "curated", "heldout")]
    message = r"pretrain.train: .*set seed=N, or pretrain.seed=N for the training alone"
    with pytest.raises(ConfigError, match=message):
        load_config("configs/quickstart.yaml", [*places, f"workdir={tmp_path}/w", "pretrain.train.seed=3"])


def test_a_gpu_is_asked_for_where_the_training_may_use_one() -> None:
    for device, wanted in (("cpu", {}), ("auto", {"GPU": 1}), ("cuda", {"GPU": 1})):
        assert Pretrain(train=SETTINGS.model_copy(update={"device": device})).resources() == wanted


def test_report_shows_the_log_and_what_both_exports_look_at(tmp_path: Path) -> None:
    table = run_pretrain(tmp_path, run_seed=0)
    stage = Pretrain(train=SETTINGS)
    run = opened(tmp_path, {"shards/data": PlantedShards(), "pretrain": stage})
    log, look = stage.show(table, run)
    assert (log.title, log.blocks[0]) == (
        "Pretraining",
        Text("2 steps. A falling loss says that training works, not that the features are good."),
    )
    assert look.title == "What the backbone looks at"
    assert any(isinstance(block, Drawings) for block in look.blocks)
    assert stage.cost({}, Assumptions(images=1))[0].note == "not estimated"
