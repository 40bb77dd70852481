"""The checks for a GPU, on the CPU: that they run where little is installed, and that faults are found and told."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_faiss, gpu_torch
from benchmarks.cli import main
from benchmarks.figures import Figure
from benchmarks.gpu import Findings
from curate.config import parse
from curate.models.nets import throughput
from curate.models.nets.vit import VisionTransformer
from curate.trainer.config import TrainConfig

ROOT = Path(__file__).parents[2]
ABSENT = {"faiss": ("pdqhash", "dask", "open_clip"), "torch": ("pdqhash", "faiss")}
"""Libraries that need not be there, by part."""
WITHOUT = """
import sys
absent = {absent}
for name in absent:
    sys.modules[name] = None
from benchmarks.cli import main
main(["gpu", "--part", "{part}", "--json"])
"""


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "SHAPES", {"cpu": ((64, 64, 64),)})


@pytest.mark.parametrize("part", ["faiss", "torch"])
def test_a_part_passes_without_a_gpu_and_without_libraries_that_it_does_not_need(part: str) -> None:
    code = WITHOUT.format(absent=ABSENT[part], part=part)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["device"], found["part"]) == ("cpu", part)
    assert len(found["checks"]) >= 8
    assert all(check["ok"] and check["largest_difference"] <= check["tolerance"] for check in found["checks"])
    assert all(figure["value"] > 0 for figure in found["figures"])
    assert len({check["name"] for check in found["checks"]}) == len(found["checks"])


def run(part: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """What a part with a fault prints as JSON, and its standard error."""
    with pytest.raises(SystemExit, match="^1$"):
        main(["gpu", "--part", part, "--json", "--seconds", "0"])
    told = capsys.readouterr()
    return json.loads(told.out), told.err


def faults(found: dict[str, Any]) -> list[str]:
    return [check["name"] for check in found["checks"] if not check["ok"]]


def test_wrong_results_of_a_search_are_told_and_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nearest, join = gpu_faiss.find_nearest, gpu_faiss.join_within

    def next_one(x: Any, centroids: Any, **how: Any) -> Any:
        chosen, score = nearest(x, centroids, **how)
        return (chosen + 1) % len(centroids), score

    monkeypatch.setattr(gpu_faiss, "find_nearest", next_one)
    monkeypatch.setattr(gpu_faiss, "join_within", lambda *given, **how: join(*given, **{**how, "threshold": 0.71}))
    found, told = run("faiss", capsys)
    names = ["nearest centroid by inner product", "nearest centroid by L2", "join within lists"]
    assert faults(found) == names
    assert [line.split(":")[1].strip() for line in told.splitlines() if line.startswith("fault:")] == names


def test_a_wrong_network_and_a_training_that_fails_are_told_and_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    features = VisionTransformer.forward_features

    def brighter(self: VisionTransformer, images: torch.Tensor) -> Any:
        return features(self, images if images.dtype == torch.float64 else 1.01 * images)

    def failing(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(VisionTransformer, "forward_features", brighter)
    monkeypatch.setattr(gpu_torch, "train", failing)
    found, told = run("torch", capsys)
    assert faults(found) == ["ViT in float32", "a resumed run"]
    assert "fault: a resumed run: largest difference none, it could not be measured" in told
    assert "RuntimeError: out of memory" in told


def test_compiled_steps_are_timed_beside_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_blocks = VisionTransformer.compile_blocks
    monkeypatch.setattr(
        VisionTransformer, "compile_blocks", lambda self: compile_blocks(self, backend="aot_eager", fullgraph=True)
    )
    (figure,) = gpu_torch.compiled_figures(Findings(torch.device("cpu"), "torch"), gpu_torch.SMALL_TRAINING)
    assert figure.peer == "without"
    assert figure.value > 0 < (figure.peer_value or 0)


def test_what_there_is_no_time_for_is_left_out_and_told() -> None:
    findings = Findings(torch.device("cpu"), "torch", seconds=-1.0)
    findings.measure("speed", lambda: [Figure("speed", 1.0, "m/s")])
    assert findings.figures == []
    assert "left out: speed: no time left" in findings.as_text()


def test_a_difference_that_is_no_number_is_a_fault() -> None:
    findings = Findings(torch.device("cpu"), "torch")
    findings.check("sum", lambda: float("nan"), tolerance=1.0)
    assert findings.faults == ["sum: largest difference nan, tolerance 1"]


def test_a_part_of_another_name_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^1$"):
        main(["gpu", "--part", "tpu"])
    assert "--part tpu: needed is one of faiss, torch" in capsys.readouterr().err


def test_the_trainings_for_a_card_are_valid_configurations() -> None:
    for values in (gpu_torch.LARGE.compared, gpu_torch.LARGE.measured):
        given = {**values, "shards": "none", "output": "none"}
        assert parse(TrainConfig, given, where="test").batch_size == values["batch_size"]
