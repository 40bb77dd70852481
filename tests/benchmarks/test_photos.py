import json
import math
import shutil
from pathlib import Path

import pytest

from benchmarks.figures import as_json
from benchmarks.photos import as_figures, bench_photos, last_rows
from curate.samples.bundled import PHOTOS

FEW = ["iterations=3", "batch_size=4", "model.depth=1", "log_every=1", "crops.num_local=0"]


def test_figures_stand_beside_those_of_a_collapse(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for path in [p for folder in sorted(PHOTOS.iterdir())[:3] for p in sorted(folder.glob("*.jpg"))[:6]]:
        (photos / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, photos / path.parent.name)
    result = bench_photos(tmp_path / "run", photos=photos, overrides=FEW)
    assert len(result.initial.correct) == 18
    named = {row["name"]: row for row in json.loads(as_json(as_figures(result)))["figures"]}
    assert named["10-NN accuracy"]["peer_value"] == result.initial.value
    assert named["loss_dino"]["peer_value"] == pytest.approx(math.log(64))
    assert 1 < named["prototypes_used"]["value"] <= 64
    assert named["feature_std"]["value"] > 0


def test_the_end_is_the_mean_of_the_last_tenth() -> None:
    log = [{"step": float(step), "loss": 2.0 * step} for step in range(20)]
    assert last_rows(log) == {"step": 18.5, "loss": 37.0}
    assert last_rows(log[:3]) == log[2]
