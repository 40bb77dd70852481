import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from curate.cli import app
from curate.errors import ConfigError, SourceError
from curate.evaluation import evaluate as runner
from curate.evaluation import linear
from curate.evaluation.accuracy import Accuracy
from curate.evaluation.evaluate import evaluate, parse_measures
from curate.evaluation.features import BlockFeatures, embed_blocks, embed_folder
from curate.evaluation.knn import knn_leave_one_out
from curate.evaluation.labeled import from_arrays, open_labeled
from curate.evaluation.linear import linear_accuracy
from curate.evaluation.logistic import logistic_accuracy
from curate.evaluation.measures.registry import WHOLE
from curate.evaluation.retrieval import retrieve_by_class
from curate.evaluation.scores import Score
from curate.evaluation.splits import stratified_split
from curate.evaluation.summary import score_differences
from curate.models.files.export import write_export
from curate.models.files.header import ExportInfo
from tests.evaluation.backbones import seeded_vit, vit_backbone, write_classes


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MIN_ITERATIONS", 20)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("data") / "classes", each=12)


def by_name(found: runner.Evaluation) -> dict[tuple[str, str], Score]:
    return {score.name: score for score in found.scores}


def test_measures_are_those_of_the_features(classes: Path) -> None:
    backbone, images = vit_backbone(), open_labeled(str(classes))
    found = by_name(evaluate(backbone, images, measures=("knn", "retrieval", "logistic", "linear"), seed=3))
    unit = embed_folder(backbone, classes)
    near = knn_leave_one_out(unit.features, unit.labels, 10)
    assert (found["knn", "k=10"].value, found["knn", "k=10"].stderr) == (near.value, pytest.approx(near.stderr))
    ranked = retrieve_by_class(unit.features, unit.labels)
    assert found["retrieval", "mAP"].value == pytest.approx(ranked.average_precision.mean())
    assert found["retrieval", "recall@5"].value == ranked.recalled[5].mean()
    learned = stratified_split(unit.labels, train_share=0.7, seed=3)
    four = [part[rows] for rows in (learned, ~learned) for part in (unit.features, unit.labels)]
    fitted, strength = logistic_accuracy(*four, seed=3)
    assert found["logistic", "L-BFGS"].value == fitted.value
    assert found["logistic", "L-BFGS"].chosen == f"C={strength:.3g}"
    blocks = embed_blocks(backbone, images, last=4)
    sides = [BlockFeatures(blocks.tokens[rows], blocks.labels[rows]) for rows in (learned, ~learned)]
    assert found["linear", "SGD grid"].value == linear_accuracy(*sides, seed=3)[0].value


def test_a_test_set_is_asked_instead(classes: Path, tmp_path: Path) -> None:
    test = open_labeled(str(write_classes(tmp_path / "test", each=5, num_classes=2, seed=1)))
    found = evaluate(vit_backbone(), open_labeled(str(classes)), test=test, measures=("knn", "logistic", "retrieval"))
    assert {score.protocol for score in found.scores} == {"test set"}
    assert {score.num for score in found.scores} == {10}
    assert (found.num_test, found.test) == (10, str(tmp_path / "test"))
    assert found.num_classes == 3


def test_splits_are_of_as_many_seeds(classes: Path) -> None:
    found = by_name(evaluate(vit_backbone(), open_labeled(str(classes)), measures=("splits",), num_splits=3, seed=5))
    unit = embed_folder(vit_backbone(), classes)
    values = []
    for seed in (5, 6, 7):
        learned = stratified_split(unit.labels, train_share=0.7, seed=seed)
        four = [part[rows] for rows in (learned, ~learned) for part in (unit.features, unit.labels)]
        values.append(logistic_accuracy(*four, seed=seed)[0].value)
    assert found["splits", "logistic"].parts.tolist() == values
    assert found["splits", "knn, k=10"].num == 3


def test_two_evaluations_are_compared_on_the_same_questions(classes: Path) -> None:
    images = open_labeled(str(classes))
    first, second = (evaluate(vit_backbone(seed), images, num_splits=2) for seed in (0, 1))
    differences = score_differences(first, second)
    assert [d.first.name for d in differences] == [score.name for score in first.scores]
    assert {d.first.measure for d in differences} == set(WHOLE)
    for d in differences:
        assert d.first.protocol == d.second.protocol
        assert np.isfinite(d.stderr)
    near = next(d for d in differences if d.first.measure == "knn")
    parts = near.second.parts - near.first.parts
    assert near.stderr == pytest.approx(parts.std() / np.sqrt(36))
    again = evaluate(vit_backbone(0), images, measures=("knn", "copies"))
    assert all(d.value == d.stderr == 0 for d in score_differences(first, again))


def test_stripes_are_told_apart(classes: Path) -> None:
    found = by_name(evaluate(vit_backbone(), open_labeled(str(classes)), measures=("knn", "logistic")))
    for score in found.values():
        chance = Accuracy.of(np.arange(score.num) % 3 == 0)
        assert score.value > chance.value + 4 * chance.stderr, score


def test_measures_are_named_in_any_order() -> None:
    assert parse_measures("splits, knn") == ("knn", "splits")
    with pytest.raises(ConfigError, match="tasks=knn,lineer: 'lineer' is not known; known are knn, linear"):
        parse_measures("knn,lineer")


def test_sets_too_small_for_a_measure_are_errors() -> None:
    gray, backbone = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8), vit_backbone()
    one = from_arrays(gray, np.zeros(6, np.int64), name="here")
    with pytest.raises(SourceError, match="here: one class, '0'; knn needs two or more"):
        evaluate(backbone, one, measures=("knn",))
    single = from_arrays(gray, np.arange(6), name="here")
    with pytest.raises(SourceError, match="here: no class has more than 1 images; retrieval needs one of 2"):
        evaluate(backbone, single, measures=("retrieval",))
    pairs = from_arrays(gray, np.arange(6) // 2, name="here")
    for name in ("linear", "logistic", "splits"):
        with pytest.raises(SourceError, match=f"no class has more than 2 images; {name} needs one of 3"):
            evaluate(backbone, pairs, measures=(name,))  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="here: 2 pictures, at least 4 are needed"):
        evaluate(backbone, from_arrays(gray[:2], np.zeros(2, np.int64), name="here"), measures=("copies",))
    with pytest.raises(ConfigError, match="num_splits=1: at least 2 are needed"):
        evaluate(backbone, pairs, num_splits=1)


@pytest.mark.parametrize("with_test", [False, True])
def test_the_smallest_sets_that_are_allowed_are_measured(with_test: bool) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    labels = np.array([0, 0, 1, 1, 2, 2]) if with_test else np.array([0, 0, 0, 1, 1, 2])
    images = from_arrays(gray, labels, name="small")
    measures = [name for name in WHOLE if not (with_test and name == "splits")]
    found = evaluate(vit_backbone(), images, test=images if with_test else None, measures=measures, num_splits=2)
    assert {score.measure for score in found.scores} == set(measures)


def write_tiny(path: Path, seed: int) -> str:
    return str(write_export(path / f"{seed}.safetensors", seeded_vit(seed), ExportInfo(image_size=28, short_edge=28)))


def test_the_command_prints_a_table_or_json_and_compares(classes: Path, tmp_path: Path) -> None:
    first, second = (write_tiny(tmp_path, seed) for seed in (0, 1))
    asked = ["--data", str(classes), "--measures", "knn,retrieval", "--device", "cpu", "--precision", "fp32"]
    table = CliRunner().invoke(app, ["eval", first, *asked, "--compare", second])
    assert table.exit_code == 0, table.output
    assert "second - first, %" in table.output
    told = CliRunner().invoke(app, ["eval", "curate", "--weights", first, *asked, "--compare", second, "--json"])
    values = json.loads(told.stdout)
    backbones = [runner.load(path, weights=None, device="cpu", precision="fp32") for path in (first, second)]
    expected = [evaluate(b, open_labeled(str(classes)), measures=("knn", "retrieval")) for b in backbones]
    assert [s["value"] for s in values["scores"]] == [s.value for s in expected[0].scores]
    assert [s["stderr"] for s in values["compared"]["scores"]] == [s.stderr for s in expected[1].scores]
    assert [d["value"] for d in values["differences"]] == [d.value for d in score_differences(*expected)]
    assert values["weights"] == backbones[0].weights_hash
    alone = CliRunner().invoke(app, ["eval", first, *asked])
    score = expected[0].scores[0]
    assert f"{100 * score.value:.1f} +- {100 * score.stderr:.1f}" in alone.output


def test_precisions_are_known_by_name() -> None:
    with pytest.raises(ConfigError, match="precision=fp16: known are auto, fp32, bf16"):
        runner.load("lite0", weights=None, device="cpu", precision="fp16")
