import shutil
from pathlib import Path

from benchmarks.quickstart import CONFIG, as_figures, bench_quickstart
from benchmarks.shards import write_shard
from curate.config import read_yaml
from curate.samples.bundled import PHOTOS


def test_the_trainings_are_those_of_the_quickstart() -> None:
    assert read_yaml("quickstart")["pretrain"]["train"] == read_yaml(CONFIG)


def test_a_seed_has_both_measures_and_is_not_trained_twice(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for path in [p for folder in sorted(PHOTOS.iterdir())[:3] for p in sorted(folder.glob("*.jpg"))[:6]]:
        (photos / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, photos / path.parent.name)
    shards = tmp_path / "shards"
    write_shard(shards, [path.read_bytes() for path in sorted(photos.rglob("*.jpg"))], source="photos")

    def once() -> list[float]:
        taught = bench_quickstart(str(shards), tmp_path / "made", seed=3, labelled=str(photos), iterations=1)
        return [figure.value for figure in as_figures(3, taught)]

    first = once()
    weights = next((tmp_path / "made" / "seed-3").rglob("backbone.safetensors"))
    written = weights.stat().st_mtime_ns
    assert once() == first
    assert weights.stat().st_mtime_ns == written
    assert all(0 <= value <= 1 for value in first)
