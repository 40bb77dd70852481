"""Copies by an ONNX file: its declaration brings the thresholds, and reports name its license."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.models.thresholds import Thresholds
from curate.pipelines.copies import Copies
from curate.recipe import load_config
from curate.running import run_config
from curate.stages.copies.deduplicate import DeduplicateFigures
from curate.stages.images.embed import Embed
from tests.models.backbones.onnx_models import save_onnx, save_thumbnail, write_declaration

RULE = {"threshold": 0.9, "heldout_threshold": 0.85}
TRIED = {"floor": 0.8, "alike": 0.85, "sure": 0.95}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of large spots of color, each with one copy at half the size."""
    folder, rng = tmp_path_factory.mktemp("spots"), np.random.default_rng(0)
    for number in range(8):
        spots = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
        spots.save(folder / f"{number}.png")
        spots.resize((128, 128)).save(folder / f"{number}-copy.jpg", quality=60)
    return folder


def run(pool: Path, workdir: Path, *given: str) -> Store:
    fixed = (f"sources.pool={pool}", f"workdir={workdir}", "copies.embed.model=onnx", "copies.hashes=false")
    run_config(load_config("dedup", [*fixed, "write=null", "executor.threads=1", *given]), Flags())
    return Store(str(workdir))


def resolved(store: Store, table: str) -> tuple[float, float]:
    found: dict[str, Any] = store.table(table).complete_manifest().resolved
    return found["threshold"], found["heldout_threshold"]


def test_a_declared_rule_is_known(pool: Path, tmp_path: Path) -> None:
    file = save_thumbnail(tmp_path / "net.onnx", copies=RULE)
    store = run(pool, tmp_path / "run", f"copies.embed.weights={file}")
    assert resolved(store, "internal/neighbors/copy") == (0.9, 0.85)
    assert DeduplicateFigures.of(store.table("duplicates")).duplicate == 8
    assert "onnx, license CC0-1.0 (weights" in (tmp_path / "run/report/index.html").read_text()


def test_declared_values_verify_doubtful_pairs(pool: Path, tmp_path: Path) -> None:
    file = save_thumbnail(tmp_path / "net.onnx", copies={**RULE, "verification": TRIED})
    store = run(pool, tmp_path / "run", f"copies.embed.weights={file}", "copies.judge.threshold=0.52")
    assert resolved(store, "internal/candidates/near") == (0.8, 0.8)
    assert store.table("internal/crowds").complete_manifest().resolved["alike"] == 0.85
    for table in ("internal/neighbors/copy", "internal/candidates/pairs"):
        assert resolved(store, table) == (0.95, 0.95)
    assert resolved(store, "internal/neighbors/aligned") == (0.52, 0.45)
    assert DeduplicateFigures.of(store.table("duplicates")).duplicate == 8


def test_given_thresholds_come_first(tmp_path: Path) -> None:
    file = save_onnx(tmp_path / "net.onnx", copies={**RULE, "verification": TRIED})
    copies = Copies(embed=Embed(model="onnx", weights=str(file)))
    assert copies.verifies
    assert copies.rule().certain == Thresholds(0.95, 0.95)
    given = copies.model_copy(update={"threshold": 0.97})
    assert given.verifies
    assert (given.rule().certain, given.rule().least) == (Thresholds(0.97, 0.95), 0.97)
    alone = given.model_copy(update={"verify": False}).unverified_search()
    assert (alone.threshold, alone.heldout_threshold) == (0.97, 0.85)
    write_declaration(file)
    assert not copies.verifies
    assert copies.unverified_search() == copies.neighbors


def test_weights_that_are_not_here_yet_hinder_no_plan() -> None:
    assert Copies(embed=Embed(model="dinov2_vits14", weights="gone.pth")).declared is None
    assert Copies(embed=Embed(model="sscd-int8", weights="gone.onnx")).unverified_search().threshold == 0.6


def test_without_a_rule_thresholds_are_asked_for(pool: Path, tmp_path: Path) -> None:
    file = save_thumbnail(tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match="onnx: no calibrated threshold for copies; set copies.threshold to a"):
        run(pool, tmp_path / "run", f"copies.embed.weights={file}")
    with pytest.raises(
        ConfigError, match="onnx: it is not known which of its pairs to verify; set copies.verify=false"
    ):
        run(pool, tmp_path / "run", f"copies.embed.weights={file}", "copies.verify=true")
    with pytest.raises(ConfigError, match="onnx: computes in the precision of its file; set precision to auto"):
        run(pool, tmp_path / "run", f"copies.embed.weights={file}", "copies.embed.precision=bf16")
