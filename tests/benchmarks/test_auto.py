import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.auto import running
from benchmarks.auto.plain import format_plain, plain_figures
from benchmarks.auto.running import Cell, Route, bench_auto, halves
from benchmarks.auto.sets import SmallSet, open_small_set
from benchmarks.auto.table import as_figures, format_table, gains, paired_stderr
from benchmarks.figures import as_json
from curate.errors import ConfigError

LIGHT: dict[str, Any] = {
    "model": {"preset": "tiny", "depth": 1, "dim": 48, "heads": 3},
    "objective": {"kind": "lejepa", "projector_hidden": 16, "projector_out": 8, "directions": 16},
    "batch_size": 4,
    "device": "cpu",
    "workers": 0,
}


@pytest.fixture(scope="module")
def few() -> SmallSet:
    """Twenty digits of two classes."""
    whole = open_small_set("digits")
    rows = np.concatenate([np.flatnonzero(whole.labels == label)[:10] for label in range(2)])
    return SmallSet("few", whole.images[rows], whole.labels[rows], whole.given)


def test_halves_are_apart_and_swapped_by_the_next_seed() -> None:
    for num in (20, 21):
        trained, asked = halves(num, 4, most_asked=num)
        assert sorted([*trained, *asked]) == list(range(num))
        assert [rows.tolist() for rows in halves(num, 5, most_asked=num)] == [asked.tolist(), trained.tolist()]
        assert halves(num, 6, most_asked=num)[0].tolist() not in (trained.tolist(), asked.tolist())
        fewer = halves(num, 4, most_asked=7)
        assert fewer[0].tolist() == trained.tolist()
        assert len(fewer[1]) == 7
        assert set(fewer[1]) <= set(asked)


def test_a_killed_benchmark_goes_on_and_trains_nothing_twice(
    few: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[dict[str, Any]] = []
    real = running.train_auto

    def counting(values: dict[str, Any]) -> Any:
        if trained and not resumed:
            raise KeyboardInterrupt
        trained.append(values)
        return real(values)

    monkeypatch.setattr(running, "train_auto", counting)
    resumed, routes = False, [Route("scratch", 2, LIGHT)]
    with pytest.raises(KeyboardInterrupt):
        bench_auto(tmp_path, few, routes=routes, seeds=range(2))
    results = tmp_path / "results.jsonl"
    results.write_text(results.read_text() + '{"digest": "cut')
    resumed = True
    cells = bench_auto(tmp_path, few, routes=routes, seeds=range(2))
    assert [values["seed"] for values in trained] == [0, 1]
    assert [(cell.seed, cell.arm, len(cell.right)) for cell in cells] == [
        *((0, "initial", 10), (0, "scratch", 10)),
        *((1, "initial", 10), (1, "scratch", 10)),
    ]
    assert (cells[1].iterations, cells[1].picked) == (2, 1000)
    assert [json.loads(line)["arm"] for line in results.read_text().splitlines()] == [cell.arm for cell in cells]
    assert bench_auto(tmp_path, few, routes=routes, seeds=range(2)) == cells
    assert len(trained) == 2
    export = next(tmp_path.glob("few/seed-0/*/backbone.safetensors"))
    (onward,) = gains(bench_auto(tmp_path, few, routes=[Route("continued", 2, LIGHT | _from(export))], seeds=[0]))
    assert onward.before == cells[1].answers().mean(), "the frozen backbone is the one to go on from"


def _from(export: Path) -> dict[str, Any]:
    return {"init_from": str(export), "model": {}, "objective": {**LIGHT["objective"]}}


def _cell(seed: int, arm: str, right: str) -> Cell:
    return Cell(f"of {seed}", "few", seed, arm, 5, 50, 12, right)


def test_gains_are_paired_by_picture() -> None:
    cells = [_cell(0, "initial", "000111"), _cell(0, "scratch", "011111")]
    cells += [_cell(1, "initial", "010101"), _cell(1, "scratch", "010111")]
    (gain,) = gains(cells)
    assert (gain.before, gain.after, gain.by_seed) == (0.5, 0.75, (pytest.approx(1 / 3), pytest.approx(1 / 6)))
    changes = np.array([0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    assert gain.stderr == pytest.approx(changes.std() / np.sqrt(12)), "two swapped halves ask for each picture once"
    table = format_table(cells)
    assert "few          scratch    5 of 50       50.0 %  75.0 %  +25.0 % +- 12.5" in table
    assert "+33.3 +16.7" in table
    (figure,) = json.loads(as_json(as_figures(cells)))["figures"]
    assert (figure["value"], figure["peer"], figure["peer_value"]) == (0.75, "initial", 0.5)


def test_a_picture_that_is_asked_for_twice_counts_once() -> None:
    rng = np.random.default_rng(0)
    change = rng.integers(-1, 2, 300).astype(float)
    rows = np.arange(300)
    once = paired_stderr(change, rows)
    assert once == pytest.approx(change.std() / np.sqrt(300))
    assert paired_stderr(np.tile(change, 2), np.tile(rows, 2)) == pytest.approx(once)


def test_colors_and_pixels_tell_what_they_can() -> None:
    """Classes by color wherever it is, and by place whatever the color."""
    rng = np.random.default_rng(0)
    images, labels = np.zeros((40, 32, 32, 3), np.uint8), np.arange(40) % 2
    for image, label in zip(images, labels.tolist(), strict=True):
        image[..., label] = rng.permutation(np.arange(1024) // 8).reshape(32, 32)
    found = plain_figures(SmallSet("color", images, labels, {}), range(2))
    assert {figure.name: figure.value for figure in found}["color: 10-NN, colors"] == 1
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:] = 0
        image[16 * label : 16 * label + 16] = rng.integers(1, 255, 3)
    by_place = {figure.name: figure.value for figure in plain_figures(SmallSet("place", images, labels, {}), range(2))}
    assert by_place["place: 10-NN, pixels"] > max(0.9, by_place["place: 10-NN, colors"] + 0.1)
    assert "place: 10-NN, pixels" in format_plain(plain_figures(SmallSet("place", images, labels, {}), [0]))


def test_emoji_are_read_on_white_with_their_categories(tmp_path: Path) -> None:
    folder = tmp_path / "img" / "twitter" / "64"
    folder.mkdir(parents=True)
    rows = []
    for i, category in enumerate(("Flags", "Food", "Component", "Flags")):
        Image.new("RGBA", (64, 64), (255, 0, 0, 255 * (i % 2))).save(folder / f"{i}.png")
        rows.append({"category": category, "has_img_twitter": True, "image": f"{i}.png"})
    (tmp_path / "emoji.json").write_text(json.dumps([*rows, {"category": "Food", "has_img_twitter": False}]))
    found = open_small_set("emoji", emoji=tmp_path)
    assert found.labels.tolist() == [0, 1, 0]
    assert found.images[:, 0, 0].tolist() == [[255, 255, 255], [255, 0, 0], [255, 0, 0]]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"emoji.json: no emoji; `npm pack emoji-datasource-twitter@16.0.0`"):
        open_small_set("emoji", emoji=tmp_path)
    with pytest.raises(ConfigError, match="set=cats: known are photos, mnist, digits, openclipart, emoji"):
        open_small_set("cats")
