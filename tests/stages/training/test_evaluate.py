"""What is measured on an export, beside the initialization."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.show import Heading, Numbers
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.models.files.export import ExportInfo, write_export
from curate.stages.training.evaluate import Evaluate
from curate.stages.training.pretrain import PretrainFigures
from curate.tables import EVALUATION, TRAINING_LOG
from tests.models.nets.test_vit import seeded
from tests.stages.planted import given_table, opened
from tests.stages.training.test_look import TINY


def labelled(root: Path) -> Path:
    """Two classes of plain pictures, light and dark."""
    for name, shade in (("dark", 60), ("light", 190)):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (32, 32), shade + number).convert("RGB").save(root / name / f"{number}.png")
    return root


def test_both_exports_are_measured_on_the_labelled_images(tmp_path: Path) -> None:
    for seed, name in enumerate(("initial", "export")):
        write_export(
            tmp_path / f"{name}.safetensors", seeded(TINY, seed=seed), ExportInfo(image_size=28, short_edge=28)
        )
    figures = PretrainFigures(export="export.safetensors", initial="initial.safetensors")
    given_table(tmp_path, "pretrain", TRAINING_LOG, [[]], figures=figures)
    stage = Evaluate(labelled=str(labelled(tmp_path / "labelled")), k=1)
    p = Pipeline(Store(tmp_path), seed=0)
    p.add("evaluation", stage, pretrain=Ref("pretrain", TRAINING_LOG))
    p.run(InProcess(1), Flags())

    table = p.store.table("evaluation")
    rows = table.read_all().to_pylist()
    pretrained, initial, gain = rows
    assert [row["backbone"] for row in rows] == ["pretrained", "initial", "gain"]
    assert {(row["metric"], row["k"], row["num_images"]) for row in rows} == {("knn", 1, 8)}
    assert gain["value"] == pretrained["value"] - initial["value"]
    assert all(0 <= row["value"] <= 1 for row in (pretrained, initial))
    assert table.complete_manifest().rows_in is None

    (section,) = stage.show(table, opened(tmp_path, {"evaluation": stage}))
    heading, numbers, _ = section.blocks
    assert (section.title, heading) == ("Pretraining", Heading("Evaluation"))
    assert isinstance(numbers, Numbers)
    assert numbers.head == tuple(name.replace("_", " ") for name in EVALUATION.names)
    assert np.array_equal([row[4] for row in numbers.rows], [row["value"] for row in rows])


def test_a_folder_that_is_not_there_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labelled=.*absent: no such folder; it needs a subfolder"):
        Evaluate(labelled=str(tmp_path / "absent")).output_schema()
