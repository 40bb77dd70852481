"""Does pretraining learn? MNIST-5k: k-NN on features of a trained tiny ViT beside its own initialization."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from benchmarks.figures import Figure, show
from benchmarks.improvement import Improvement
from benchmarks.shards import write_shard
from curate.cli.arguments import Json
from curate.config import apply_overrides, parse, read_yaml
from curate.evaluation.accuracy import Accuracy
from curate.evaluation.features import embed_images
from curate.evaluation.knn import knn_accuracy
from curate.evaluation.labeled import from_arrays
from curate.models.backbones.load import load_backbone
from curate.samples.mnist import load_mnist5k
from curate.trainer.config import TrainConfig
from curate.trainer.journal import Row
from curate.trainer.train import train

NUM_TEST = 1000
"""Digits held out of pretraining and asked for; the other 4,000 are trained on and vote."""
NEIGHBORS = 20


@dataclass(frozen=True)
class MnistResult(Improvement):
    """Test accuracy before and after pretraining, and of raw pixels."""

    pixels: Accuracy
    export: Path
    log: list[Row]
    """Of the training, oldest row first."""

    @property
    def images_per_second(self) -> float:
        """Of the training, median over the rows of its log."""
        return float(np.median([row["images_per_second"] for row in self.log]))


def bench_mnist(
    workdir: str | Path, *, config: str = "train/mnist5k", overrides: Iterable[str] = (), resume: bool = True
) -> MnistResult:
    """Write MNIST-5k as shards, pretrain on its training digits, classify the test digits by k-NN.

    Args:
        workdir: gets `shards/data/` and `pretrain/`.
        config: of the training; its `shards` and `output` are set here.
        overrides: `key=value` changes of the config.
    """
    folder = Path(workdir)
    images, labels = load_mnist5k()
    test = split_test(len(images))
    write_digits(folder / "shards" / "data", images[~test])
    values = apply_overrides(read_yaml(config), overrides)
    values |= {"shards": str(folder / "shards" / "data"), "output": str(folder / "pretrain")}
    result = train(parse(TrainConfig, values, where=config), resume=resume)
    initial, trained = (_accuracy(path, images, labels, test) for path in (result.initial, result.export))
    flat = images.reshape(len(images), -1)
    pixels = knn_accuracy(flat[~test], labels[~test], flat[test], labels[test], NEIGHBORS)
    return MnistResult(initial, trained, pixels, result.export, result.log)


def format_table(result: MnistResult) -> str:
    """The result as text."""
    rows = [("raw pixels", result.pixels), ("initialization", result.initial), ("pretrained", result.trained)]
    lines = [f"MNIST-5k, {NEIGHBORS}-NN accuracy on {NUM_TEST} held-out digits"]
    lines += [f"  {name:<15} {100 * a.value:5.1f} % +- {100 * a.stderr:.1f}" for name, a in rows]
    lines.append(
        f"  {'gain':<15} {100 * result.gain:+5.1f} % +- {100 * result.gain_stderr:.1f} (paired standard error)"
    )
    lines.append(f"  trained at {result.images_per_second:.0f} images/s; export: {result.export}")
    return "\n".join(lines)


def as_figures(result: MnistResult) -> list[Figure]:
    """The result for programs; notes hold standard errors."""
    name, errors = f"{NEIGHBORS}-NN accuracy", [f"+- {a.stderr:.4f}" for a in (result.trained, result.initial)]
    return [
        Figure(name, result.trained.value, "share", "its initialization", result.initial.value, note=errors[0]),
        Figure(f"{name} of the initialization", result.initial.value, "share", note=errors[1]),
        Figure(f"{name}: gain", result.gain, "share", note=f"+- {result.gain_stderr:.4f}, paired"),
        Figure(f"{name} of raw pixels", result.pixels.value, "share", note=f"+- {result.pixels.stderr:.4f}"),
        Figure("training", result.images_per_second, "images/s"),
    ]


def split_test(num_images: int) -> np.ndarray:
    """(N,) bool: the same `NUM_TEST` test digits in every run."""
    test = np.zeros(num_images, dtype=bool)
    test[np.random.default_rng(0).permutation(num_images)[:NUM_TEST]] = True
    return test


def write_digits(folder: Path, images: np.ndarray) -> None:
    """Gray images (N, H, W) uint8 as one shard of PNGs."""
    write_shard(folder, [encode_png(image) for image in images], source="mnist5k")


def encode_png(image: np.ndarray) -> bytes:
    """A gray image (H, W) uint8 as a file."""
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="PNG")
    return encoded.getvalue()


def _accuracy(export: Path, images: np.ndarray, labels: np.ndarray, test: np.ndarray) -> Accuracy:
    backbone = load_backbone("curate", weights=str(export), precision="fp32")
    features = embed_images(backbone, from_arrays(images, labels, name="mnist5k"))
    return knn_accuracy(features[~test], labels[~test], features[test], labels[test], NEIGHBORS)


def command(
    workdir: Annotated[Path, typer.Argument(help="folder for shards, checkpoints and exports")],
    json_: Json = False,
) -> None:
    """Pretrain a tiny ViT on MNIST-5k and compare it by k-NN with its own initialization."""
    found = bench_mnist(workdir)
    show(as_figures(found), json_, text=format_table(found))
