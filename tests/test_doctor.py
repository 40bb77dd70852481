"""What `curate doctor` finds: a machine that is fit, and what would stop a run."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner

from curate import doctor
from curate.cli import app
from curate.doctor import Finding, examine
from curate.recipe import RecipeConfig, load_config
from tests.models.screening.networks import save_face_finder


@pytest.fixture(autouse=True)
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_BYTES", 1 << 23)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    return folder


def config(tmp_path: Path, *overrides: str) -> RecipeConfig:
    return load_config("dedup", [f"sources.pool={tmp_path / 'pool'}", f"workdir={tmp_path / 'run'}", *overrides])


def found(config: RecipeConfig | None = None) -> dict[str, Finding]:
    return {one.topic: one for one in examine(config)}


def test_the_machine_that_runs_the_tests_is_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = found()
    assert not [one for one in there.values() if one.state == "fail"]
    assert {"curate", "Python", "libraries", "faiss", "processor", "GPU", "memory", "workdir", "extras"} <= there.keys()
    assert "JPEG" in there["pictures"].text or "HEIC" in there["pictures"].text
    assert list(tmp_path.iterdir()) == []


def test_sources_weights_and_workdir_of_a_config_are_looked_at(pool: Path, tmp_path: Path) -> None:
    there = found(config(tmp_path))
    assert there["sources.pool"].state == "ok"
    assert "3 images listed" in there["sources.pool"].text
    assert there["copies.embed"].state == "ok"
    assert "lite0-copy" in there["copies.embed"].text
    assert "(to be made in " in there["workdir"].text
    assert not (tmp_path / "run").exists()


def test_what_would_stop_a_run_fails_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    there = found(
        config(tmp_path, "sources.heldout=/nowhere/at/all", "copies.embed={model: sscd, weights: /no/file.pt}")
    )
    assert there["sources.pool"].state == "fail"
    assert (there["sources.heldout"].state, "/nowhere/at/all" in there["sources.heldout"].text) == ("fail", True)
    assert (there["copies.embed"].state, "/no/file.pt" in there["copies.embed"].text) == ("fail", True)


def test_weights_that_only_a_hub_has_are_a_warning(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    asked = config(tmp_path, "copies.embed.model=dinov2_vits14")
    there = found(asked)["copies.embed"]
    assert there.state == "warn"
    assert "https://huggingface.co/" in there.advice
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert found(asked)["copies.embed"].state == "fail"
    assert found(config(tmp_path, "copies.embed.model=sscd"))["copies.embed"].state == "fail"


def test_weights_of_networks_that_score_pictures_are_looked_for(pool: Path, tmp_path: Path) -> None:
    file = save_face_finder(tmp_path / "faces.onnx")
    there = found(config(tmp_path, f"screen.faces.find.weights={file}", "screen.text={weights: /no/text.onnx}"))
    assert (there["screen.faces.find"].state, str(file) in there["screen.faces.find"].text) == ("ok", True)
    assert (there["screen.text"].state, "/no/text.onnx" in there["screen.text"].text) == ("fail", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_that_may_not_be_read_are_named(pool: Path, tmp_path: Path) -> None:
    pool.chmod(0)
    try:
        there = found(config(tmp_path))["sources.pool"]
    finally:
        pool.chmod(0o755)
    assert (there.state, str(pool) in there.text) == ("fail", True)


def test_files_that_may_not_be_read_are_named(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = os.fsencode(pool / "1.png")
    real = os.access
    monkeypatch.setattr(doctor.os, "access", lambda place, mode: place != locked and real(place, mode))
    there = found(config(tmp_path))["sources.pool"]
    assert (there.state, f"1 file of the first 3 may not be read: {pool}/1.png" in there.text) == ("fail", True)


def test_a_workdir_that_may_not_be_written_fails(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda _place, _mode: False)
    there = found(config(tmp_path))["workdir"]
    assert (there.state, "--workdir" in there.advice) == ("fail", True)


def test_a_full_disk_and_little_memory_are_warnings(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _place: SimpleNamespace(free=1 << 20))
    monkeypatch.setattr(doctor, "machine_memory", lambda: 1 << 28)
    there = found(config(tmp_path))
    assert (there["workdir"].state, there["memory"].state) == ("warn", "warn")
    assert "executor.task_memory" in there["memory"].advice


def test_two_builds_of_faiss_or_none_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if "faiss" in name else None)
    both = found()
    assert (both["faiss"].state, both["libraries"].state) == ("fail", "fail")
    assert "pip install" in both["libraries"].advice
    monkeypatch.setattr(doctor, "_is_installed", lambda _module: False)
    assert (found()["faiss"].state, "curate-vision[cpu]" in found()["faiss"].advice) == ("fail", True)


def test_the_command_prints_lines_or_json_and_its_status_says_whether_a_run_would_work(
    pool: Path, tmp_path: Path
) -> None:
    words = ["doctor", "dedup", "--pool", str(pool), "--workdir", str(tmp_path / "run")]
    there = CliRunner().invoke(app, words)
    assert (there.exit_code, "sources.pool" in there.output) == (0, True)
    gone = CliRunner().invoke(app, [*words, "--heldout", "/nowhere", "--json"])
    states = {one["topic"]: one["state"] for one in json.loads(gone.output)}
    assert (gone.exit_code, states["sources.heldout"], states["sources.pool"]) == (1, "fail", "ok")
