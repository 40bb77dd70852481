import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from benchmarks.curation import intervals, running, sets
from benchmarks.curation.arms import _meant_for, draw_ideal
from benchmarks.curation.cells import INITIAL, Cell, append_cell, read_cells
from benchmarks.curation.crawl import JUNK, NO_CLASS, POOL, make_crawl
from benchmarks.curation.intervals import paired_gain
from benchmarks.curation.running import Setting, bench_curation
from benchmarks.curation.sets import LabeledSet, open_set
from benchmarks.curation.table import as_figures, format_table, gains
from benchmarks.figures import as_json
from curate.config import apply_overrides, parse, read_yaml
from curate.errors import ConfigError
from curate.feed.shards import read_index
from curate.ops.images.bounds import Bounds
from curate.trainer.config import TrainConfig

FEW = ("batch_size=4", "model.depth=1", "model.patch_size=14", "crops.local_size=14", "workers=0", "model.dim=48")
TREE = ("hierarchical:clusters.levels=[8]", "hierarchical:clusters.num_resamplings=2")
QUICK = (*TREE, "junk=null", "executor.threads=1")


@pytest.fixture(scope="module")
def digits() -> LabeledSet:
    return open_set("mnist")


def small(digits: LabeledSet) -> LabeledSet:
    """12 digits of each of three classes."""
    rows = np.concatenate([np.flatnonzero(digits.labels == label)[:12] for label in range(3)])
    values = vars(digits) | {"images": digits.images[rows], "labels": digits.labels[rows], "classes": ("0", "1", "2")}
    return LabeledSet(**values)


def test_pools_labels_and_tests_are_apart_and_the_last_two_balanced(digits: LabeledSet) -> None:
    rows = digits.split()
    assert len(np.unique(np.concatenate(rows))) == sum(map(len, rows)) == len(digits.labels)
    for part in (rows.labeled, rows.asked):
        assert len(set(np.bincount(digits.labels[part]))) == 1


def test_a_crawl_has_a_long_tail_copies_and_junk(digits: LabeledSet) -> None:
    rows = digits.split().pool[::6]
    pool = make_crawl(digits, rows, seed=1)
    originals = (pool.copy_of == np.arange(len(pool.files))) & (pool.labels != NO_CLASS)
    sizes = np.sort(np.bincount(pool.labels[originals], minlength=10))
    assert sizes[-1] >= 40 * sizes[0]
    assert len(pool.files) == POOL * sizes[-1]
    assert (pool.labels == NO_CLASS).mean() == pytest.approx(JUNK, abs=0.01)
    copies = pool.copy_of != np.arange(len(pool.files))
    assert (pool.labels[copies] == pool.labels[pool.copy_of[copies]]).all()
    assert originals[pool.copy_of[copies]].all()
    assert pool.files[int(np.flatnonzero(copies)[0])][:2] == b"\xff\xd8"
    assert make_crawl(digits, rows, seed=1).files == pool.files


def test_the_ideal_set_is_as_even_as_the_pool_allows(digits: LabeledSet) -> None:
    pool = make_crawl(digits, digits.split().pool[::6], seed=1)
    originals = (pool.copy_of == np.arange(len(pool.files))) & (pool.labels != NO_CLASS)
    there = np.bincount(pool.labels[originals], minlength=10)
    rows = draw_ideal(pool, 60, np.random.default_rng(0))
    counts = np.bincount(pool.labels[rows], minlength=10)
    assert originals[rows].all()
    assert len(np.unique(rows)) == counts.sum() == 60
    assert (counts >= np.minimum(there, counts.max() - 1)).all()


def test_a_killed_benchmark_goes_on_and_all_arms_have_equal_sizes(
    digits: LabeledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, setting = small(digits), Setting(10, 2, QUICK, FEW)
    trained = []
    real = running.train_on

    def counting(folder: Path, *args: object, **options: object) -> tuple[Path, Path]:
        if len(trained) == 2 and not resumed:
            raise KeyboardInterrupt
        trained.append(folder.name)
        return real(folder, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(running, "train_on", counting)
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        bench_curation(tmp_path, chosen, seeds=[3], lengths=(1,), setting=setting)
    assert len(read_cells(tmp_path / "results.jsonl")) == 2
    resumed = True
    cells = bench_curation(tmp_path, chosen, seeds=[3], lengths=(1,), setting=setting)
    assert sorted(trained) == ["deduplicated-2", "hierarchical-2", "ideal-2", "initial-0", "random-2", "retrieval-2"]
    assert bench_curation(tmp_path, chosen, seeds=[3], lengths=(1,), setting=setting) == cells
    assert len(trained) == 6
    folder = tmp_path / f"{setting.digest(chosen)}-seed-3"
    sizes = {read_index(str(folder / name / "shards")).num_images for name in trained}
    assert sizes == {cell.num_images for cell in cells}
    assert len(sizes) == 1
    by_arm = {cell.arm: cell for cell in cells}
    assert by_arm["deduplicated"].originals >= by_arm["random"].originals


def _cell(arm: str, seed: int, right: str, *, iterations: int = 7) -> Cell:
    return Cell("d", seed, arm, iterations, 10, right, right, 0.5, 0.6, 0.1)


def test_changes_of_one_recipe_are_for_it_alone() -> None:
    changes = ("hierarchical:clusters.levels=[8]", "copies.embed={model: lite0-copy}", "lvd142m:junk=null")
    assert list(_meant_for("lvd142m", changes)) == ["copies.embed={model: lite0-copy}", "junk=null"]


def test_gains_are_paired_by_seed_and_picture() -> None:
    random = [_cell("random", seed, "1000") for seed in range(4)]
    curated = [_cell("hierarchical", seed, "1110") for seed in range(4)]
    gain = paired_gain(random, curated, "knn")
    assert (gain.value, gain.num_seeds, gain.better) == (0.5, 4, 4)
    assert gain.low < 0.5 < gain.high
    same = paired_gain(random, random, "knn")
    assert (same.low, same.value, same.high) == (0, 0, 0)
    assert not same.is_significant
    assert np.isnan(paired_gain(random[:1], curated[:1], "linear").low)


def test_intervals_hold_the_truth_about_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "BOOTSTRAPS", 400)
    held = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        pairs = []
        for seed in range(6):
            shift = rng.normal(0.1, 0.05)  # of a seed; the true gain is 0.1
            right = [rng.random(200) < 0.5, rng.random(200) < 0.5 + shift]
            pairs.append(
                [_cell(arm, seed, "".join(map(str, r.astype(int)))) for arm, r in zip("ab", right, strict=True)]
            )
        gain = paired_gain([a for a, _ in pairs], [b for _, b in pairs], "knn")
        held += gain.low <= 0.1 <= gain.high
    assert held >= 53


def test_the_table_and_the_figures_tell_gains_over_random() -> None:
    cells = [_cell(INITIAL, s, "0000", iterations=0) for s in range(3)]
    cells += [_cell(arm, s, right) for s in range(3) for arm, right in (("random", "1000"), ("retrieval", "1100"))]
    assert list(gains(cells, "knn")) == [("retrieval", 7)]
    table = format_table("toy", cells)
    assert "toy: 4 held-out pictures" in table
    assert "+25.0 [" in table
    rows = json.loads(as_json(as_figures(cells)))["figures"]
    assert [(row["name"], row["value"]) for row in rows] == [
        ("knn: retrieval minus random, 7 iterations", 0.25),
        ("linear: retrieval minus random, 7 iterations", 0.25),
    ]
    assert "better in 3 of 3 seeds" in rows[0]["note"]
    one = [cell for cell in cells if cell.seed == 0]
    assert "nan" not in format_table("toy", one) + as_json(as_figures(one)), "one seed has no interval"
    assert "of one seed" in format_table("toy", one)


def test_a_line_that_a_kill_cut_off_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_cell(path, _cell("random", 0, "10"))
    with path.open("a") as file:
        file.write('{"digest": "d", "se')
    assert len(read_cells(path)) == 1
    append_cell(path, _cell("random", 1, "01"))
    assert [cell.seed for cell in read_cells(path).values()] == [0, 1]


def test_folders_keep_their_large_classes_alone(tmp_path: Path) -> None:
    for name, num in {"a": 14, "b": 12, "c": 3}.items():
        (tmp_path / name).mkdir()
        for number in range(num):
            Image.new("RGB", (60, 30), (number, 0, 0)).save(tmp_path / name / f"{number:02d}.png")
    found = open_set(str(tmp_path))
    assert found.classes == ("a", "b")
    assert np.bincount(found.labels).tolist() == [14, 12]
    assert found.images.shape == (26, 96, 96, 3)
    assert (found.images[0, 0] == 255).all()  # a wide picture lies on white, whole


def test_letters_are_drawn_with_all_fonts_of_a_folder(tmp_path: Path) -> None:
    packaged = ImageFont.load_default(20)
    assert isinstance(packaged, ImageFont.FreeTypeFont)
    for name in ("one", "two"):
        (tmp_path / f"{name}.ttf").write_bytes(packaged.font_bytes)
    found = open_set("letters", fonts=tmp_path)
    assert "".join(found.classes[label] for label in found.labels) == 2 * "ABCDEFGHIJ"
    assert found.images.shape == (20, 28, 28, 3)
    rim = np.ones((28, 28), bool)
    rim[2:-2, 2:-2] = False
    assert not found.images[:, rim].any()
    assert (found.images.max(axis=(1, 2, 3)) > 200).all()
    assert len({image.tobytes() for image in found.images}) == 10
    with pytest.raises(ConfigError, match="no fonts; `apt-get download fonts-aenigma`"):
        open_set("letters", fonts=tmp_path / "none")


def test_trainings_have_the_objective_that_was_asked_for() -> None:
    for set_ in ("digits", "mnist"):
        for objective in ("diet", "dinov2"):
            chosen = open_set(set_, objective=objective)
            values = apply_overrides(read_yaml(chosen.config), list(chosen.training)) | {"shards": "s", "output": "o"}
            assert parse(TrainConfig, values, where="test").objective.kind == objective
    with pytest.raises(ConfigError, match="objective=ibot: known are diet, dinov2"):
        open_set("digits", objective="ibot")


def test_what_is_no_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set=nothing: known are mnist, digits, letters, photos, openclipart, and"):
        open_set("nothing")
    with pytest.raises(ConfigError, match="no clip art; `apt-get download openclipart-png`"):
        open_set("openclipart", clip_art=tmp_path / "none")


def test_clip_art_is_decoded_once_and_what_is_too_large_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "MIN_CLIP_ART", 3)
    monkeypatch.setattr(sets, "CLIP_ART_BOUNDS", Bounds(max_pixels=10_000))
    for name, num in {"animals": 4, "food": 3, "unsorted": 9}.items():
        (tmp_path / name / "sub").mkdir(parents=True)
        for number in range(num):
            size = (200, 200) if (name, number) == ("animals", 1) else (80, 50)
            Image.new("RGB", size, (number, 9, 9)).save(tmp_path / name / "sub" / f"{number}.png")
    kept = tmp_path / "work" / "clip.npz"
    first = open_set("openclipart", clip_art=tmp_path, kept=kept)
    assert first.classes == ("animals", "food")
    assert first.labels.tolist() == [0, 0, 0, 1, 1, 1]
    monkeypatch.setattr(sets, "open_labeled", None)
    again = open_set("openclipart", clip_art=tmp_path, kept=kept)
    assert (again.digest, again.classes) == (first.digest, first.classes)
