"""Does every objective learn? Each bundled config for MNIST-5k: loss at the start and the end, k-NN beside its own
initialization."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.figures import Figure, show
from benchmarks.mnist import NEIGHBORS, NUM_TEST, MnistResult, bench_mnist
from curate.cli.arguments import Json
from curate.config import find_config

TENTH = 0.1
"""Share of the log that is the start, and that is the end."""


@dataclass(frozen=True)
class Learned:
    """What one config did."""

    name: str
    """Of the config, without folder."""
    first_loss: float
    """Mean over the first tenth of the log."""
    last_loss: float
    """Mean over the last tenth."""
    result: MnistResult


def bundled_configs() -> list[str]:
    """Names of the bundled configs for MNIST-5k, one an objective and backbone."""
    folder = find_config("train/mnist5k").parent
    return [f"train/{path.stem}" for path in sorted(folder.glob("mnist5k*.yaml"))]


def bench_objectives(
    workdir: str | Path, *, configs: Sequence[str] | None = None, overrides: Iterable[str] = ()
) -> list[Learned]:
    """Pretrain by each config on MNIST-5k, in a folder of its name under `workdir`.

    Args:
        configs: paths or names of bundled ones; None: all bundled for MNIST-5k.
        overrides: `key=value` changes of every config.
    """
    given = list(overrides)
    found = []
    for config in bundled_configs() if configs is None else configs:
        name = Path(config).stem
        result = bench_mnist(Path(workdir) / name, config=config, overrides=given)
        found.append(Learned(name, *loss_ends([row["loss"] for row in result.log]), result))
    return found


def loss_ends(losses: Sequence[float]) -> tuple[float, float]:
    """Means of the first and of the last tenth, of at least one value each."""
    num = max(1, round(TENTH * len(losses)))
    return float(np.mean(losses[:num])), float(np.mean(losses[-num:]))


def format_table(learned: Sequence[Learned]) -> str:
    """One line a config."""
    width = max(len("config"), *(len(one.name) for one in learned))
    head = f"  {'config':<{width}}  {'loss, first and last tenth':<26}  initial  trained  gain, paired error"
    return "\n".join(
        [
            f"MNIST-5k, {NEIGHBORS}-NN accuracy on {NUM_TEST} held-out digits",
            head,
            *(_line(one, width) for one in learned),
        ]
    )


def _line(one: Learned, width: int) -> str:
    result = one.result
    losses = f"{one.first_loss:.3f} -> {one.last_loss:.3f}"
    accuracies = f"{100 * result.initial.value:5.1f} %  {100 * result.trained.value:5.1f} %"
    gain = f"{100 * result.gain:+.1f} % +- {100 * result.gain_stderr:.1f}"
    return f"  {one.name:<{width}}  {losses:<26}  {accuracies}  {gain}"


def as_figures(learned: Sequence[Learned]) -> list[Figure]:
    """Accuracy and loss of each config, for programs."""
    found = []
    for one in learned:
        trained, initial = one.result.trained.value, one.result.initial.value
        gain = f"gain {one.result.gain:+.4f} +- {one.result.gain_stderr:.4f}, paired"
        name = f"{one.name}: {NEIGHBORS}-NN accuracy"
        found += [
            Figure(name, trained, "share", "its initialization", initial, note=gain),
            Figure(
                f"{one.name}: loss, last tenth", one.last_loss, "nats", "first tenth", one.first_loss, better="lower"
            ),
        ]
    return found


def command(
    workdir: Annotated[Path, typer.Argument(help="folder for shards, checkpoints and exports, one inside for each")],
    configs: Annotated[list[str] | None, typer.Option("--config", help="several; none: all that are bundled")] = None,
    iterations: Annotated[int | None, typer.Option(help="of every training; none: each config's own")] = None,
    json_: Json = False,
) -> None:
    """Pretrain by every objective on MNIST-5k: its loss, and its k-NN beside its own initialization."""
    overrides = [] if iterations is None else [f"iterations={iterations}"]
    found = bench_objectives(workdir, configs=configs, overrides=overrides)
    show(as_figures(found), json_, text=format_table(found))
