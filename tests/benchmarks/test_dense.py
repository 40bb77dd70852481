import json
from pathlib import Path

from benchmarks.dense import as_figures, bench_dense, format_table
from benchmarks.figures import as_json

FEW = ["iterations=2", "batch_size=4", "model.depth=1", "log_every=1", "crops.num_local=0"]


def test_every_model_answers_the_same_composites(tmp_path: Path) -> None:
    found = bench_dense(tmp_path, tasks=("correspondence", "depth"), scenes=2, grid=2, training=FEW)
    assert list(found) == ["pixels", "random ViT", "trained ViT", "Lite0"]
    assert len({tuple(score.protocol for score in one.scores) for one in found.values()}) == 1
    table = format_table(found)
    assert "PCK@0.1" in table
    trained, random = (next(s for s in found[name].scores if s.unit) for name in ("trained ViT", "random ViT"))
    line = next(line for line in table.splitlines() if line.startswith("depth") and "RMSE" in line)
    assert f"{trained.value - random.value:+.3f} +- " in line
    assert "camera heights" not in table.splitlines()[1]
    rows = json.loads(as_json(as_figures(found)))["figures"]
    errors = [row for row in rows if row["unit"] == "camera heights"]
    assert [row["better"] for row in errors] == ["lower"] * 4
    assert [row["peer"] for row in errors] == ["", *["pixels"] * 3]
