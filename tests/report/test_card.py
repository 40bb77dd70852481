from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from curate.errors import TableError
from curate.report.card import size_category, write_card
from curate.tables import SHARD_COLUMNS
from tests.report.workdir import Workdir


def card(workdir: Workdir) -> tuple[dict[str, Any], str]:
    text = Path(write_card(workdir.store)).read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_is_what_the_hub_reads(workdir: Workdir) -> None:
    front, _ = card(workdir)
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    assert front["license"] == "other"
    assert front["size_categories"] == ["n<1K"]
    assert "toy" in front["tags"]


def test_datasets_loads_the_folder_by_its_card(workdir: Workdir, tmp_path: Path) -> None:
    shards = Path(write_card(workdir.store)).parent
    rows = datasets.load_dataset(str(shards), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 4
    assert isinstance(rows.features["image"], datasets.Image)
    assert rows[0]["image"].size == (96, 72)


def test_every_column_is_explained(workdir: Workdir) -> None:
    _, body = card(workdir)
    for name in [*SHARD_COLUMNS.names, "caption"]:
        assert f"| `{name}` |" in body


def test_steps_thresholds_and_screenings_are_told(workdir: Workdir) -> None:
    _, body = card(workdir)
    assert "accepted: 7 and 2 curated (1 dropped: empty; 1 dropped: noise)" in body
    assert "copies from 0.9 on, of held-out images from 0.85 on" in body
    missing = body.split("## What was not checked")[1].split("## ")[0]
    for screening in ("NSFW", "faces", "watermarks", "licences", "illegal content"):
        assert screening in missing
    assert "no held-out source" not in missing
    assert "removal_list" in body


def test_a_card_names_no_place_on_the_machine(workdir: Workdir, tmp_path: Path) -> None:
    assert str(tmp_path) not in Path(write_card(workdir.store)).read_text(encoding="utf-8")


def test_names_from_outside_cannot_break_the_card(workdir: Workdir) -> None:
    _, body = card(workdir)
    assert "| `licence\\|&lt;b&gt;` |" in body
    assert "<b>" not in body
    for line in body.splitlines():
        if line.startswith("| `"):
            assert line.replace("\\|", "").count("|") == 4


def test_a_run_without_heldout_images_says_that_it_did_not_look_for_them(workdir: Workdir) -> None:
    table = workdir.store.table("catalog")
    manifest = table.manifest()
    assert manifest is not None
    parts = [{**p, "role": "curated" if p["role"] == "heldout" else p["role"]} for p in manifest.metrics["parts"]]
    table.write_manifest(replace(manifest, metrics={**manifest.metrics, "parts": parts}))
    assert "no held-out source was given" in card(workdir)[1]


@pytest.mark.parametrize(
    ("rows", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (142_109_386, "100M<n<1B"), (10**9, "1B<n<10B"), (10**13, "n>1T")],
)
def test_size_categories_are_those_of_the_hub(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_a_card_without_shards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="shards/data: not complete in .*; run a recipe that writes shards first"):
        write_card(Workdir(tmp_path).catalog().store)
