"""Does curating pay? Pretraining on a curated subset of a long-tailed pool beside a random subset of the same size.

The pool is made of MNIST-5k's training digits (`longtail.py`); the recipe `hierarchical` curates it as it would any
folder and never sees a label. Both subsets are trained on by one config, from the same initial weights, for the same
number of steps. The frozen features then classify a balanced test set by k-NN; the voters are balanced too, the same
for both, and in no pool.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from curate.bench.figures import Figure
from curate.bench.longtail import LongTail, Tail, class_entropy, make_long_tail, write_files
from curate.bench.mnist import NEIGHBORS, split_test
from curate.bench.shards import write_shard
from curate.config import apply_overrides, parse, read_yaml
from curate.evaluation.accuracy import Accuracy, paired_stderr
from curate.evaluation.features import embed_arrays
from curate.evaluation.knn import knn_accuracy
from curate.freshness import Flags
from curate.models.load import load_backbone
from curate.run import load_run_config, run
from curate.samples.mnist import load_mnist5k
from curate.store import Store
from curate.trainer.config import TrainConfig
from curate.trainer.train import train

NUM_CLASSES = 10
VOTERS = 100
"""Labelled digits of each class, kept out of every pool."""
NUM_CHOSEN = 400
TAIL = Tail()
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
    initial: Accuracy
    """Of the weights that both start from."""
    accuracy: dict[str, Accuracy]
    """After pretraining, by arm."""
    entropy: dict[str, float]
    """Of the classes, 1 if equal, of `pool` and of either subset."""
    originals: dict[str, float]
    """Different pictures over all pictures, copies counting as the picture that they are of; of the same three."""

    @property
    def gain(self) -> float:
        """Curated minus random."""
        return self.accuracy["curated"].value - self.accuracy["random"].value


@dataclass(frozen=True)
class CurationResult:
    """Trials of several seeds, which all ask for the same test digits."""

    trials: list[Trial]

    @property
    def gain(self) -> float:
        """Curated minus random, mean over seeds."""
        return float(np.mean([trial.gain for trial in self.trials]))

    @property
    def stderr_digits(self) -> float:
        """Of `gain`, over test digits: how it would vary with other digits and these trainings."""
        difference = np.mean([_difference(trial) for trial in self.trials], axis=0)
        return float(difference.std() / math.sqrt(len(difference)))

    @property
    def stderr_seeds(self) -> float:
        """Of `gain`, over seeds: how it would vary with other pools and trainings; NaN of one seed."""
        gains = [trial.gain for trial in self.trials]
        return float(np.std(gains, ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else math.nan


def bench_curation(
    workdir: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    num_images: int = NUM_CHOSEN,
    tail: Tail = TAIL,
    config: str = "train/mnist5k",
    curation: Iterable[str] = (),
    training: Iterable[str] = (),
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
    """Rows of MNIST-5k for pools, for voters and for tests; voters and tests hold equally many of each digit."""
    test = split_test(len(labels))
    rng = np.random.default_rng(0)
    by_class = [rng.permutation(np.flatnonzero(~test & (labels == digit))) for digit in range(NUM_CLASSES)]
    asked = [np.flatnonzero(test & (labels == digit)) for digit in range(NUM_CLASSES)]
    fewest = min(map(len, asked))
    voters = np.concatenate([rows[:VOTERS] for rows in by_class])
    return np.concatenate([rows[VOTERS:] for rows in by_class]), voters, np.concatenate([r[:fewest] for r in asked])


def _try(folder: Path, seed: int, setting: Setting) -> Trial:
    images, labels = load_mnist5k()
    for_pools, voters, asked = split_digits(labels)
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
    found = {name: _accuracy(path, images, labels, voters, asked) for name, path in exports.items()}
    sets = {"pool": np.arange(len(pool.files)), "curated": curated, "random": random}
    return Trial(
        seed,
        num_images=len(curated),
        initial=found.pop("initial"),
        accuracy=found,
        entropy={name: class_entropy(pool.labels[rows], NUM_CLASSES) for name, rows in sets.items()},
        originals={name: len(np.unique(pool.copy_of[rows])) / len(rows) for name, rows in sets.items()},
    )


def _curate(folder: Path, pool: LongTail, setting: Setting, *, seed: int) -> np.ndarray:
    """Rows of the pool that the recipe `hierarchical` selects, in order."""
    write_files(folder / "pool", pool)
    given = [f"sources.pool={folder / 'pool'}", f"workdir={folder / 'run'}", f"seed={seed}"]
    given.append(f"select.balance.target={setting.num_images}")
    run(load_run_config("hierarchical", [*given, *FOR_DIGITS, *setting.curation]), Flags())
    store = Store(str(folder / "run"))
    rows = {
        row["image_id"]: int(Path(row["key"]).stem)
        for row in store.table("catalog").read_all(["image_id", "key"]).to_pylist()
    }
    return np.sort([rows[i] for i in store.table("selection").read_all(["image_id"])["image_id"].to_pylist()])


def _accuracy(export: Path, images: np.ndarray, labels: np.ndarray, voters: np.ndarray, asked: np.ndarray) -> Accuracy:
    backbone = load_backbone("curate", weights=str(export), precision="fp32")
    features = embed_arrays(backbone, images[np.concatenate([voters, asked])])
    seen, new = np.split(features, [len(voters)])
    return knn_accuracy(seen, labels[voters], new, labels[asked], NEIGHBORS)


def _difference(trial: Trial) -> np.ndarray:
    """(N,) float64: 1 where the curated arm alone is right, -1 where the random one is."""
    curated, random = (trial.accuracy[arm].correct.astype(np.float64) for arm in ARMS)
    return curated - random


def format_table(result: CurationResult) -> str:
    """The result as text."""
    num_asked = len(result.trials[0].initial.correct)
    asked = f"{num_asked} held-out digits, equally many of each; {NUM_CLASSES * VOTERS} voters"
    return "\n".join(
        [
            f"{NEIGHBORS}-NN accuracy on {asked}",
            "  seed  images  initial  random   curated  gain, paired error",
            *map(_accuracies, result.trials),
            f"  mean gain {100 * result.gain:+.1f} %, standard error {100 * result.stderr_digits:.1f} over digits, "
            f"{100 * result.stderr_seeds:.1f} over seeds",
            "Of pool, random and curated subset: entropy of the classes (1 if equal); share of different pictures",
            *map(_contents, result.trials),
        ]
    )


def _accuracies(trial: Trial) -> str:
    shown = [trial.initial, trial.accuracy["random"], trial.accuracy["curated"]]
    accuracies = "  ".join(f"{100 * accuracy.value:5.1f} %" for accuracy in shown)
    error = paired_stderr(trial.accuracy["random"], trial.accuracy["curated"])
    return f"  {trial.seed:>4}  {trial.num_images:>6}  {accuracies}  {100 * trial.gain:+5.1f} % +- {100 * error:.1f}"


def _contents(trial: Trial) -> str:
    told = (", ".join(f"{of[name]:.3f}" for name in SETS) for of in (trial.entropy, trial.originals))
    return f"  {trial.seed:>4}  " + "; ".join(told)


def as_figures(result: CurationResult) -> list[Figure]:
    """The result for programs."""
    name = f"{NEIGHBORS}-NN accuracy"
    found = []
    for trial in result.trials:
        error = paired_stderr(trial.accuracy["random"], trial.accuracy["curated"])
        note = f"gain {trial.gain:+.4f} +- {error:.4f}, paired; initialisation {trial.initial.value:.4f}"
        values = [trial.accuracy[arm].value for arm in ARMS]
        found.append(Figure(f"{name}, seed {trial.seed}", values[0], "share", "random subset", values[1], note=note))
        entropy = [trial.entropy[arm] for arm in ARMS]
        note = f"pool {trial.entropy['pool']:.4f}"
        found.append(
            Figure(f"class entropy, seed {trial.seed}", entropy[0], "of 1", "random subset", entropy[1], note=note)
        )
    errors = f"standard error {result.stderr_digits:.4f} over digits, {result.stderr_seeds:.4f} over seeds"
    return [*found, Figure(f"{name}: mean gain", result.gain, "share", note=errors)]
