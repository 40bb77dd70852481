"""Does curating pay? Pretraining on a curated subset of a long-tailed pool beside a random subset of the same size.

The pool is made of MNIST-5k's training digits (`longtail.py`); the recipe `hierarchical` curates it as it would any
folder and never sees a label. Both subsets are trained on by one config, from the same initial weights, for the same
number of steps. The frozen features then classify a balanced test set, by k-NN and by logistic regression; the labeled
digits that these read are balanced too, the same for both subsets, and in no pool.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from benchmarks.figures import Figure, show
from benchmarks.longtail import LongTail, Tail, class_entropy, make_long_tail, write_files
from benchmarks.mnist import NEIGHBORS, split_test
from benchmarks.shards import write_shard
from curate.cli.arguments import Json
from curate.config import apply_overrides, parse, read_yaml
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.evaluation.accuracy import Accuracy, paired_stderr
from curate.evaluation.features import embed_images
from curate.evaluation.knn import knn_accuracy
from curate.evaluation.labeled import from_arrays
from curate.evaluation.logistic import logistic_accuracy
from curate.models.backbones.load import load_backbone
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.mnist import load_mnist5k
from curate.trainer.config import TrainConfig
from curate.trainer.train import train

NUM_CLASSES = 10
LABELED = 100
"""Digits of each class whose labels the read-outs see; kept out of every pool."""
READOUTS = ("k-NN", "logistic")
NUM_CHOSEN = 300
TAIL = Tail()
TRAINING = ("iterations=600", "model.dim=192", "objective.ibot_weight=0", "crops.jitter_probability=0.8")
"""Of either training: 96 epochs of the subset; ViT-Ti's width, which learns more in so few iterations; no iBOT, which
costs a fifth of the time; jitter of brightness, so that digits are not told apart by their amount of ink."""
FOR_DIGITS = ("inspect.limits.min_side=28", "copies.verify=false")
"""Of the recipe: pictures this small count, and since strokes of different digits can be laid over each other, the
embedding alone judges copies."""
ARMS = ("curated", "random")
SETS = ("pool", "random", "curated")


class Setting(NamedTuple):
    """What is the same for all seeds."""

    num_images: int
    tail: Tail
    config: str
    curation: tuple[str, ...]
    training: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One seed: one pool, two subsets, two trainings."""

    seed: int
    num_images: int
    """Of either subset."""
    accuracy: dict[str, dict[str, Accuracy]]
    """By read-out, then by what was read: `initial` weights, from which both start, `random`, `curated`."""
    entropy: dict[str, float]
    """Of the classes, 1 if equal, of `pool` and of either subset."""
    originals: dict[str, float]
    """Different pictures over all pictures, copies counting as the picture that they are of; of the same three."""

    def gain(self, readout: str) -> float:
        """Curated minus random."""
        found = self.accuracy[readout]
        return found["curated"].value - found["random"].value

    def gain_stderr(self, readout: str) -> float:
        """Paired: both classify the same digits."""
        found = self.accuracy[readout]
        return paired_stderr(found["random"], found["curated"])


@dataclass(frozen=True)
class CurationResult:
    """Trials of several seeds, which all ask for the same test digits."""

    trials: list[Trial]

    def gain(self, readout: str) -> float:
        """Curated minus random, mean over seeds."""
        return float(np.mean([trial.gain(readout) for trial in self.trials]))

    def stderr_digits(self, readout: str) -> float:
        """Of the mean gain, over test digits: how it would vary with other digits and these trainings."""
        difference = np.mean([_difference(trial.accuracy[readout]) for trial in self.trials], axis=0)
        return float(difference.std() / math.sqrt(len(difference)))

    def stderr_seeds(self, readout: str) -> float:
        """Of the mean gain, over seeds: how it would vary with other pools and trainings; NaN of one seed."""
        gains = [trial.gain(readout) for trial in self.trials]
        return float(np.std(gains, ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else math.nan


def bench_curation(
    workdir: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    num_images: int = NUM_CHOSEN,
    tail: Tail = TAIL,
    config: str = "train/mnist5k",
    curation: Iterable[str] = (),
    training: Iterable[str] = TRAINING,
) -> CurationResult:
    """Make a pool, curate it, pretrain on either subset and compare, once for each seed.

    Args:
        workdir: gets a folder for each seed; what is finished there is not done again.
        num_images: to choose; the random subset has as many as the recipe chose.
        tail: of the pools.
        config: of both trainings; `shards`, `output` and `seed` are set here.
        curation: `key=value` changes of the recipe's config.
        training: `key=value` changes of `config`.
    """
    setting = Setting(num_images, tail, config, tuple(curation), tuple(training))
    return CurationResult([_try(Path(workdir) / f"seed-{seed}", seed, setting) for seed in seeds])


def split_digits(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of MNIST-5k for pools, for labeled and for tests; labeled and tests hold equally many of each digit."""
    test = split_test(len(labels))
    rng = np.random.default_rng(0)
    by_class = [rng.permutation(np.flatnonzero(~test & (labels == digit))) for digit in range(NUM_CLASSES)]
    asked = [np.flatnonzero(test & (labels == digit)) for digit in range(NUM_CLASSES)]
    fewest = min(map(len, asked))
    labeled = np.concatenate([rows[:LABELED] for rows in by_class])
    return np.concatenate([rows[LABELED:] for rows in by_class]), labeled, np.concatenate([r[:fewest] for r in asked])


def _try(folder: Path, seed: int, setting: Setting) -> Trial:
    images, labels = load_mnist5k()
    for_pools, labeled, asked = split_digits(labels)
    pool = make_long_tail(images[for_pools], labels[for_pools], setting.tail, seed=seed)
    curated = _curate(folder, pool, setting, seed=seed)
    random = np.sort(np.random.default_rng([1, seed]).choice(len(pool.files), len(curated), replace=False))
    write_shard(folder / "random" / "shards", [pool.files[row] for row in random], source="random")
    shards = {"curated": folder / "run" / "shards" / "data", "random": folder / "random" / "shards"}
    made = {}
    for arm in ARMS:
        values = apply_overrides(read_yaml(setting.config), setting.training)
        values |= {"shards": str(shards[arm]), "output": str(folder / arm / "pretrain"), "seed": seed}
        made[arm] = train(parse(TrainConfig, values, where=setting.config))
    exports = {"initial": made["random"].initial, **{arm: result.export for arm, result in made.items()}}
    read = {name: _read_out(path, images, labels, labeled, asked) for name, path in exports.items()}
    sets = {"pool": np.arange(len(pool.files)), "curated": curated, "random": random}
    return Trial(
        seed,
        num_images=len(curated),
        accuracy={readout: {name: found[readout] for name, found in read.items()} for readout in READOUTS},
        entropy={name: class_entropy(pool.labels[rows], NUM_CLASSES) for name, rows in sets.items()},
        originals={name: len(np.unique(pool.copy_of[rows])) / len(rows) for name, rows in sets.items()},
    )


def _curate(folder: Path, pool: LongTail, setting: Setting, *, seed: int) -> np.ndarray:
    """Rows of the pool that the recipe `hierarchical` selects, in order."""
    write_files(folder / "pool", pool)
    given = [f"sources.pool={folder / 'pool'}", f"workdir={folder / 'run'}", f"seed={seed}"]
    given.append(f"select.balance.target={setting.num_images}")
    run_config(load_config("hierarchical", [*given, *FOR_DIGITS, *setting.curation]), Flags())
    store = Store(str(folder / "run"))
    rows = {
        row["image_id"]: int(Path(row["key"]).stem)
        for row in store.table("catalog").read_all(["image_id", "key"]).to_pylist()
    }
    return np.sort([rows[i] for i in store.table("selection").read_all(["image_id"])["image_id"].to_pylist()])


def _read_out(
    export: Path, images: np.ndarray, labels: np.ndarray, labeled: np.ndarray, asked: np.ndarray
) -> dict[str, Accuracy]:
    """Accuracy on the digits asked for, by read-out."""
    backbone = load_backbone("curate", weights=str(export), precision="fp32")
    rows = np.concatenate([labeled, asked])
    features = embed_images(backbone, from_arrays(images[rows], labels[rows], name="mnist5k"))
    known, new = np.split(features, [len(labeled)])
    logistic, _ = logistic_accuracy(known, labels[labeled], new, labels[asked], seed=0)
    return {"k-NN": knn_accuracy(known, labels[labeled], new, labels[asked], NEIGHBORS), "logistic": logistic}


def _difference(found: dict[str, Accuracy]) -> np.ndarray:
    """(N,) float64: 1 where the curated arm alone is right, -1 where the random one is."""
    curated, random = (found[arm].correct.astype(np.float64) for arm in ARMS)
    return curated - random


def format_table(result: CurationResult) -> str:
    """The result as text."""
    num_asked = len(result.trials[0].accuracy["k-NN"]["initial"].correct)
    lines = [
        f"{num_asked} held-out digits, equally many of each, classified by {NUM_CLASSES * LABELED} labeled ones",
        f"  {'read-out':<9} {'seed':>4}  images  initial  random   curated  gain, paired error",
    ]
    for readout in READOUTS:
        lines += [_accuracies(trial, readout) for trial in result.trials]
        gain, *errors = (100 * of(readout) for of in (result.gain, result.stderr_digits, result.stderr_seeds))
        told = "standard error {:.1f} over digits, {:.1f} over seeds".format(*errors)
        lines.append(f"  {readout:<9} mean gain {gain:+.1f} %, {told}")
    lines.append("Of pool, random and curated subset: entropy of the classes (1 if equal); share of different pictures")
    return "\n".join([*lines, *map(_contents, result.trials)])


def _accuracies(trial: Trial, readout: str) -> str:
    accuracies = "  ".join(
        f"{100 * trial.accuracy[readout][name].value:5.1f} %" for name in ("initial", *reversed(ARMS))
    )
    gain = f"{100 * trial.gain(readout):+5.1f} % +- {100 * trial.gain_stderr(readout):.1f}"
    return f"  {readout:<9} {trial.seed:>4}  {trial.num_images:>6}  {accuracies}  {gain}"


def _contents(trial: Trial) -> str:
    told = (", ".join(f"{of[name]:.3f}" for name in SETS) for of in (trial.entropy, trial.originals))
    return f"  {trial.seed:>14}  " + "; ".join(told)


def as_figures(result: CurationResult) -> list[Figure]:
    """The result for programs."""
    found = []
    for trial in result.trials:
        for readout in READOUTS:
            initial, random, curated = (trial.accuracy[readout][name].value for name in ("initial", *reversed(ARMS)))
            gain = f"gain {trial.gain(readout):+.4f} +- {trial.gain_stderr(readout):.4f}, paired"
            note = f"{gain}; initialization {initial:.4f}"
            found.append(Figure(f"{readout}, seed {trial.seed}", curated, "share", "random subset", random, note=note))
        pool, random, curated = (trial.entropy[name] for name in SETS)
        name = f"class entropy, seed {trial.seed}"
        found.append(Figure(name, curated, "of 1", "random subset", random, note=f"pool {pool:.4f}"))
    for readout in READOUTS:
        digits, seeds = result.stderr_digits(readout), result.stderr_seeds(readout)
        note = f"standard error {digits:.4f} over digits, {seeds:.4f} over seeds"
        found.append(Figure(f"{readout}: mean gain", result.gain(readout), "share", note=note))
    return found


def command(
    workdir: Annotated[Path, typer.Argument(help="folder for pools, runs, checkpoints and exports")],
    num_seeds: Annotated[int, typer.Option("--seeds", help="pools, each with its own trainings")] = 3,
    first_seed: Annotated[int, typer.Option(help="the others follow")] = 0,
    num_images: Annotated[int, typer.Option("--images", help="images of either subset")] = NUM_CHOSEN,
    json_: Json = False,
) -> None:
    """Pretrain on a curated and on a random subset of a long-tailed pool, and compare them on a balanced test set."""
    found = bench_curation(workdir, seeds=range(first_seed, first_seed + num_seeds), num_images=num_images)
    show(as_figures(found), json_, text=format_table(found))
