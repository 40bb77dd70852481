import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import curation
from benchmarks.curation import (
    CurationResult,
    Trial,
    as_figures,
    bench_curation,
    format_table,
    split_digits,
)
from benchmarks.figures import as_json
from benchmarks.longtail import Tail
from benchmarks.mnist import split_test
from curate.evaluation.accuracy import Accuracy
from curate.feed.shards import read_index
from curate.samples.mnist import load_mnist5k

FEW = ["iterations=2", "batch_size=4", "model.depth=1", "model.patch_size=14", "crops.local_size=14", "workers=0"]


def test_pools_labelled_digits_and_tests_are_apart_and_the_last_two_balanced() -> None:
    _, labels = load_mnist5k()
    pools, labeled, asked = split_digits(labels)
    assert not (set(pools) | set(labeled)) & set(asked)
    assert not set(pools) & set(labeled)
    assert split_test(len(labels))[asked].all()
    for rows in (labeled, asked):
        assert len(set(np.bincount(labels[rows]))) == 1


def test_both_arms_train_on_equally_many_pictures_of_one_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curation, "LABELED", 8)
    few = ["clusters.levels=[8]", "clusters.num_resamplings=2", "junk=null", "executor.threads=1"]
    (trial,) = bench_curation(
        tmp_path, seeds=[5], num_images=25, tail=Tail(14, 7.0, 1.0), curation=few, training=FEW
    ).trials
    index = [read_index(str(tmp_path / "seed-5" / name)) for name in ("run/shards/data", "random/shards")]
    assert trial.num_images == index[0].num_images == index[1].num_images
    assert trial.originals["curated"] > trial.originals["pool"]
    assert set(trial.accuracy["k-NN"]) == set(trial.accuracy["logistic"]) == {"initial", "curated", "random"}
    assert 0 < trial.entropy["pool"] < 1


def _trial(seed: int, curated: list[bool], random: list[bool]) -> Trial:
    right = {"initial": [True, False, False, False], "random": random, "curated": curated}
    found = {name: Accuracy.of(np.array(answers)) for name, answers in right.items()}
    shares = {"pool": 0.5, "curated": 0.9, "random": 0.6}
    return Trial(seed, 7, {"k-NN": found, "logistic": found}, shares, shares)


def test_gain_and_its_errors_are_over_digits_and_over_seeds() -> None:
    first = _trial(0, [True, True, True, False], [True, False, False, False])  # gain 0.5
    second = _trial(1, [True, True, False, False], [True, False, False, True])  # gain 0
    result = CurationResult([first, second])
    assert result.gain("k-NN") == pytest.approx(0.25)
    assert result.stderr_seeds("k-NN") == pytest.approx(0.25)  # half of the range of two
    assert result.stderr_digits("k-NN") == pytest.approx(np.std([0, 1, 0.5, -0.5]) / 2)
    assert np.isnan(CurationResult([first]).stderr_seeds("logistic"))
    table = format_table(result)
    assert "k-NN      mean gain +25.0 %" in table
    assert "0.500, 0.600, 0.900" in table
    *_, mean = json.loads(as_json(as_figures(result)))["figures"]
    assert (mean["name"], mean["value"]) == ("logistic: mean gain", pytest.approx(0.25))
    assert f"{result.stderr_digits('logistic'):.4f} over digits, 0.2500 over seeds" in mean["note"]
