"""What is measured on an export, beside the initialization."""

from pathlib import Path

import pytest
from PIL import Image

from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.show import Heading, Numbers, Text
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.models.files.export import ExportInfo, write_export
from curate.stages.training.evaluate import Evaluate
from curate.stages.training.pretrain import PretrainFigures
from curate.tables import TRAINING_LOG
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
    assert [(row["metric"], row["k"]) for row in rows] == [("parts", None)] * 3 + [("knn", 1)] * 3
    assert [row["backbone"] for row in rows] == ["pretrained", "initial", "gain"] * 2
    assert {row["num_images"] for row in rows} == {8}
    for pretrained, initial, gain in (rows[:3], rows[3:]):
        assert gain["value"] == pretrained["value"] - initial["value"]
        assert all(0 <= row["value"] <= 1 for row in (pretrained, initial))
    assert table.complete_manifest().rows_in is None

    (section,) = stage.show(table, opened(tmp_path, {"evaluation": stage}))
    heading, numbers, text = section.blocks
    assert (section.title, heading) == ("Pretraining", Heading("Evaluation"))
    assert isinstance(numbers, Numbers)
    assert isinstance(text, Text)
    assert [row[1:4] for row in numbers.rows] == [tuple(row["value"] for row in part) for part in (rows[:3], rows[3:])]
    assert "30 to 60 %" in text.text


def test_a_folder_that_is_not_there_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labelled=.*absent: no such folder; it needs a subfolder"):
        Evaluate(labelled=str(tmp_path / "absent")).output_schema()
