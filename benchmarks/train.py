"""The training step: CPU seconds, share of the machine's products, memory; as a program beside another trainer's."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from PIL import Image

from benchmarks.figures import PEAK_UNIT, Figure, measured, show
from curate.cli.arguments import Json
from curate.config import parse
from curate.errors import ConfigError
from curate.feed.crops import Crops
from curate.models.device import Precision
from curate.models.nets.throughput import count_flops, matmul_rate
from curate.samples.bundled import PHOTOS
from curate.tables import shards_schema
from curate.trainer.config import TrainConfig
from curate.trainer.effective import resolve_auto
from curate.trainer.iteration import Trainer
from curate.trainer.parallel import World

WARMUP = 1
"""Steps before the first measured one."""
PEER = "lightly-train"
PEER_PRECISION: Mapping[Precision, str] = {"fp32": "32-true", "bf16": "bf16-mixed"}
PEER_MODELS = {"small": "vits14", "base": "vitb14", "large": "vitl14", "giant": "vitg14"}
IMAGENET_IMAGES = 1_281_167


LAUNCHER = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stderr=subprocess.STDOUT).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss]), file=sys.stderr)
sys.exit(code)
"""
"""A small process between, since the peak of a new process starts at that of the one that started it."""


@dataclass(frozen=True)
class Setting:
    """What is trained: two global crops of 224 px and eight local ones of 98 px an image."""

    preset: str = "small"
    batch: int = 8
    prototypes: int = 65_536
    tied: bool = True
    drop_path: float = 0.3
    centering: str = "softmax"
    steps: int = 3
    """Measured, after `WARMUP` others."""
    threads: int = 2

    def values(self, precision: Precision) -> dict[str, Any]:
        """The trainer's configuration of these steps; no figure of the log costs time but in the last."""
        iterations = WARMUP + self.steps
        return {
            "model": {"preset": self.preset, "drop_path": self.drop_path},
            "crops": {"global_size": 224, "local_size": 98, "num_local": 8},
            "objective": {"prototypes": self.prototypes, "tied_heads": self.tied, "centering": self.centering},
            "optimizer": {"warmup_iterations": 0, "freeze_last_layer_iterations": 0},
            "batch_size": self.batch,
            "iterations": iterations,
            "log_every": iterations,
            "checkpoint_every": iterations,
            "precision": precision,
            "workers": 1,
        }


@dataclass(frozen=True)
class Steps:
    """Medians of a setting's steps and of the products that ran between them."""

    flops: int
    cpu_seconds: float
    seconds: float
    flops_per_cpu_second: float
    """Of the product that runs fastest."""
    flops_per_second: float


@dataclass(frozen=True)
class Program:
    """A training run as a process of its own."""

    cpu_seconds: float
    peak_bytes: int


def bench_train(setting: Setting, precisions: Sequence[Precision], *, peer: Path | None = None) -> list[Figure]:
    """Measure each precision in a process of its own, then whole programs beside the peer's.

    Args:
        peer: interpreter of an environment that has lightly-train, which is run by its command line.

    Raises:
        ConfigError: that environment has no lightly-train, or its model of this size is unknown.
    """
    if peer is not None:
        peer_program(setting, peer)  # before the minutes that measuring takes
    found = []
    for precision in precisions:
        found += _step_figures(setting, precision)
    if peer is not None:
        for precision in precisions:
            found += _program_figures(setting, precision, peer)
    return found


def parse_precisions(choice: str) -> tuple[Precision, ...]:
    """`fp32`, `bf16` or `both`.

    Raises:
        ConfigError: it is none of them.
    """
    known: dict[str, tuple[Precision, ...]] = {"fp32": ("fp32",), "bf16": ("bf16",), "both": ("fp32", "bf16")}
    if choice not in known:
        raise ConfigError(f"--precision {choice}: needed is one of {', '.join(known)}")
    return known[choice]


def _step_figures(setting: Setting, precision: Precision) -> list[Figure]:
    measure = measured(time_steps, setting, precision)
    steps: Steps = measure.result
    products = "fastest large product between the steps"
    return [
        Figure(
            f"step, {precision}",
            steps.cpu_seconds,
            "CPU s",
            better="lower",
            peak_bytes=measure.peak_bytes,
            note=f"{steps.seconds:.2f} s, {steps.flops / 1e12:.3f} Tflop",
        ),
        Figure(
            f"products of a step, {precision}",
            steps.flops / steps.cpu_seconds,
            "flop/CPU s",
            products,
            steps.flops_per_cpu_second,
        ),
        Figure(
            f"products of a step, {precision}", steps.flops / steps.seconds, "flop/s", products, steps.flops_per_second
        ),
    ]


def time_steps(setting: Setting, precision: Precision) -> Steps:
    """Time steps on random pixels and, between them, plain products, so that a busy moment falls on both."""
    torch.set_num_threads(setting.threads)
    trainer = make_trainer(setting.values(precision))
    crops = random_crops(trainer)
    flops = count_flops(lambda: trainer.step(0, iter([crops])))
    cpu, wall, per_cpu_second, per_second = [], [], [], []
    for number in range(WARMUP, WARMUP + setting.steps):
        per_cpu_second.append(matmul_rate(trainer.device, precision, clock=time.process_time))
        per_second.append(matmul_rate(trainer.device, precision))
        cpu_start, start = time.process_time(), time.perf_counter()
        trainer.step(number, iter([crops]))
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    return Steps(flops, *(statistics.median(values) for values in (cpu, wall, per_cpu_second, per_second)))


def make_trainer(values: Mapping[str, Any]) -> Trainer:
    """A trainer of this configuration without data, in training mode."""
    config = parse(TrainConfig, {**values, "shards": "none", "output": "none"}, where="benchmarks train")
    effective = resolve_auto(config, num_images=IMAGENET_IMAGES, num_samples=IMAGENET_IMAGES)
    trainer = Trainer(config, effective, World())
    trainer.objective.train()
    return trainer


def random_crops(trainer: Trainer) -> Crops:
    """A batch of noise, of the sizes that the trainer's configuration asks for."""
    crops, batch = trainer.config.crops, trainer.config.batch_size
    generator = torch.Generator().manual_seed(0)

    def noise(images: int, side: int) -> torch.Tensor:
        return torch.randint(256, (images, 3, side, side), generator=generator, dtype=torch.uint8)

    return Crops(noise(2 * batch, crops.global_size), noise(crops.num_local * batch, crops.local_size))


def _program_figures(setting: Setting, precision: Precision, peer: Path) -> list[Figure]:
    """Differences of two run lengths, so that imports, set-up and the last checkpoint cancel out."""
    lengths = (WARMUP, WARMUP + setting.steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [
            (
                run_program(our_command(setting, precision, folder, steps), setting.threads),
                run_program(peer_command(setting, precision, folder, steps, peer), setting.threads),
            )
            for steps in lengths
        ]
    (short, peer_short), (long, peer_long) = runs
    return [
        Figure(
            f"program, {precision}",
            (long.cpu_seconds - short.cpu_seconds) / setting.steps,
            "CPU s/step",
            PEER,
            (peer_long.cpu_seconds - peer_short.cpu_seconds) / setting.steps,
            better="lower",
            peak_bytes=long.peak_bytes,
            note="with decoding and crops",
        ),
        Figure(
            f"peak memory of the program, {precision}",
            long.peak_bytes / 1e9,
            "GB",
            PEER,
            peer_long.peak_bytes / 1e9,
            better="lower",
        ),
    ]


def our_command(setting: Setting, precision: Precision, folder: Path, steps: int) -> list[str]:
    """`curate train` for some steps on the bundled photographs; writes shards and configuration into `folder`."""
    shards, config = folder / "shards.parquet", folder / "train.yaml"
    if not shards.exists():
        _write_shard(shards, setting.batch * (WARMUP + setting.steps))
    changes = {"iterations": steps, "shards": str(shards), "output": str(folder / f"ours-{precision}-{steps}")}
    values = setting.values(precision) | changes
    config.write_text("\n".join(f"{key}: {_plain(value)}" for key, value in values.items()))
    return [sys.executable, "-m", "curate", "train", str(config)]


def peer_program(setting: Setting, peer: Path) -> Path:
    """The peer's command beside the interpreter `peer`.

    Raises:
        ConfigError: there is none, or it knows no model of this size.
    """
    program = peer.parent / PEER
    if not program.exists():
        raise ConfigError(f"--peer {peer}: no {PEER} beside it; install it there: {peer} -m pip install {PEER}")
    if setting.preset not in PEER_MODELS:
        raise ConfigError(f"--preset {setting.preset}: {PEER} has {', '.join(PEER_MODELS)}")
    return program


def peer_command(setting: Setting, precision: Precision, folder: Path, steps: int, peer: Path) -> list[str]:
    """The peer's own command line on a folder of as many photographs as `steps` batches take."""
    program = peer_program(setting, peer)
    data = folder / f"photos-{steps}"
    if not data.exists():
        data.mkdir()
        for number, path in enumerate(_photos(setting.batch * steps)):
            (data / f"{number:05d}.jpg").symlink_to(path)
    options = {
        "out": folder / f"peer-{precision}-{steps}",
        "data": data,
        "model": f"dinov2/{PEER_MODELS[setting.preset]}-notpretrained",
        "method": "dinov2",
        "epochs": 1,
        "batch_size": setting.batch,
        "num_workers": 1,
        "accelerator": "cpu",
        "devices": 1,
        "precision": PEER_PRECISION[precision],
        "model_args.drop_path_rate": setting.drop_path,
        "method_args.output_dim": setting.prototypes,
        "method_args.ibot_separate_head": not setting.tied,
        "method_args.center_method": {"softmax": "softmax", "sinkhorn": "sinkhorn_knopp"}[setting.centering],
        "method_args.student_freeze_last_layer_steps": 0,
        "method_args.warmup_steps": 0,
    }
    return [str(program), "pretrain", *(f"{key}={_plain(value)}" for key, value in options.items())]


def run_program(command: Sequence[str], threads: int) -> Program:
    """Run to the end; CPU seconds and largest memory of the process and of the children that it waited for.

    Raises:
        ConfigError: it failed; the end of what it printed is told.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    launcher = [sys.executable, "-S", "-c", LAUNCHER, *command]
    done = subprocess.run(launcher, env=environment, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode:
        raise ConfigError(f"{command[0]} ended with {done.returncode}: {done.stdout[-2000:].strip()}")
    cpu_seconds, peak = json.loads(done.stderr.splitlines()[-1])
    return Program(cpu_seconds, peak * PEAK_UNIT)


def _plain(value: object) -> str:
    """As both YAML and the peer's command line read it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _photos(number: int) -> list[Path]:
    """Bundled photographs, over and over."""
    paths = sorted(PHOTOS.rglob("*.jpg"))
    return [paths[i % len(paths)] for i in range(number)]


def _write_shard(path: Path, num_images: int) -> None:
    rows = [_row(number, photo) for number, photo in enumerate(_photos(num_images))]
    pq.write_table(pa.Table.from_pylist(rows, schema=shards_schema({})), path)


def _row(number: int, path: Path) -> dict[str, object]:
    with Image.open(path) as picture:
        width, height = picture.size
    return {
        "image": {"bytes": path.read_bytes(), "path": path.name},
        "image_id": number,
        "key": path.name,
        "source": "photos",
        "role": "pool",
        "uri": path.name,
        "width": width,
        "height": height,
        "sha256": f"{number:064x}",
        "clusters": [],
        "origins": [],
        "repeats": 1,
    }


def command(
    preset: Annotated[str, typer.Option(help="tiny, small, base, large or giant")] = "small",
    batch: Annotated[int, typer.Option(help="images a step")] = 8,
    prototypes: Annotated[int, typer.Option(help="outputs of a head")] = 65_536,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or both")] = "both",
    steps: Annotated[int, typer.Option(help="measured steps of each way")] = 3,
    tied: Annotated[bool, typer.Option("--tied/--untied", help="one head for both losses, or two")] = True,
    drop_path: Annotated[float, typer.Option(help="rate of stochastic depth")] = 0.3,
    centering: Annotated[str, typer.Option(help="softmax or sinkhorn")] = "softmax",
    threads: Annotated[int | None, typer.Option(help="threads of every way; none: all cores")] = None,
    peer: Annotated[Path | None, typer.Option(help="interpreter of an environment that has lightly-train")] = None,
    json_: Json = False,
) -> None:
    """The training step: CPU seconds, share of the machine's products, memory, and lightly-train's beside it."""
    setting = Setting(
        preset=preset,
        batch=batch,
        prototypes=prototypes,
        tied=tied,
        drop_path=drop_path,
        centering=centering,
        steps=steps,
        threads=threads or os.cpu_count() or 1,
    )
    show(bench_train(setting, parse_precisions(precision), peer=peer), json_)
