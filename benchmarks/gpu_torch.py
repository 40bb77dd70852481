"""The part `torch` of `benchmarks.gpu`: network, training step, resumed run, FSDP and waits on a GPU, and rates there.

Everything that is compared runs in float32 without TF32, whose ten bits of mantissa would hide faults. The reference is
always another way through the code on the CPU: float64 for the network, activation checkpointing for the trainer. So
the checks say something without a GPU too.

Weights after a step of AdamW cannot be compared: where a gradient is nearly zero its sign is noise, and the first step
moves every weight by the whole learning rate in that direction. Losses and the moments of the gradients can.
"""

import copy
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.figures import Figure, peak_memory
from benchmarks.gpu import Check, Findings, median_seconds
from benchmarks.shards import write_shard
from benchmarks.train import make_trainer, random_crops
from benchmarks.waits import counted_calls, counted_warnings
from curate.config import apply_overrides, parse
from curate.models.backbones.load import load_backbone
from curate.models.device import Precision, autocast
from curate.models.files.export import write_export
from curate.models.files.header import ExportInfo
from curate.models.nets.config import vit_config
from curate.models.nets.throughput import count_flops, machine_rate
from curate.models.nets.vit import VisionTransformer
from curate.samples.bundled import PHOTOS
from curate.trainer.checkpoint import checkpoint_path
from curate.trainer.config import TrainConfig
from curate.trainer.sharding import full_tensor
from curate.trainer.train import Trainer, TrainResult, train

FLOAT32_TOLERANCE = 1e-4
"""Relative: sums in another order, through some blocks."""
BFLOAT16_TOLERANCE = 5e-2
"""Relative: eight bits of mantissa in every product."""
TRAINING_TOLERANCE = 1e-3
"""Relative: AdamW makes much of the rounding of gradients that are nearly zero."""
STEPS = 3
"""Steps whose losses are compared."""
Values = Mapping[str, Any]


class Sizes(NamedTuple):
    """How much is computed."""

    compared: Values
    """Configuration of the trainings that also run on the CPU."""
    measured: Values
    """Configuration of the training whose rate is measured."""
    network: str
    """ViT that embeds."""
    network_size: int
    """Side of the pictures that it embeds, pixels."""
    batch: int
    """Pictures embedded at once."""


OBJECTIVES = {
    "dinov2": [],
    "dinov2 with centers": ["objective.centering=softmax"],
    "dino": ["objective.kind=dino"],
    "esvit": ["objective.kind=esvit"],
    "sit": ["objective=sit", "crops.num_local=0"],
}
"""Changes of a configuration, one for each way through a step."""

SMALL_TRAINING: Values = {
    "model": {"dim": 48, "heads": 3, "depth": 2, "patch_size": 8, "num_registers": 1, "layer_scale": 0.1},
    "crops": {"global_size": 32, "local_size": 16, "num_local": 2},
    "objective": {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16},
    "optimizer": {"base_lr": 4e-3, "warmup_iterations": 0, "freeze_last_layer_iterations": 0},
    "batch_size": 4,
    "iterations": 4,
    "log_every": 4,
    "checkpoint_every": 2,
    "workers": 0,
    "precision": "fp32",
}
SMALL = Sizes(compared=SMALL_TRAINING, measured=SMALL_TRAINING, network="vit_tiny", network_size=56, batch=4)
LARGE = Sizes(
    compared={
        **SMALL_TRAINING,
        "model": {"preset": "small", "depth": 6, "num_registers": 4, "layer_scale": 0.1},
        "crops": {"global_size": 112, "local_size": 56, "num_local": 4},
        "objective": {"prototypes": 4096, "head_hidden": 512},
        "batch_size": 8,
    },
    measured={
        "model": {"preset": "large"},
        "objective": {"prototypes": 65_536},
        "optimizer": {"warmup_iterations": 0},
        "batch_size": 32,
        "iterations": 1000,
        "log_every": 1000,
        "precision": "bf16",
    },
    network="vit_large",
    network_size=224,
    batch=256,
)


def examine(findings: Findings, sizes: Sizes | None = None) -> None:
    """Check and measure everything; large on a GPU, small without one unless `sizes` says otherwise."""
    sizes = sizes or (LARGE if findings.on_gpu else SMALL)
    with exact_products():
        with findings.guarded("network"):
            _examine_network(findings, sizes)
        with findings.guarded("training steps"):
            _examine_steps(findings, sizes.compared)
        with findings.guarded("a resumed run"):
            _examine_resumed(findings, sizes.compared)
        _examine_waits(findings, sizes.compared)
    findings.measure("embedding", lambda: _embedding_figures(findings, sizes))
    findings.measure("training", lambda: _training_figures(findings, sizes.measured))
    if findings.on_gpu:
        findings.measure("compiled training", lambda: compiled_figures(findings, sizes.measured))
    else:
        findings.left_out.append("torch.compile: without a GPU")


@contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products with all their bits on a GPU: no TF32 in the block."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _examine_network(findings: Findings, sizes: Sizes) -> None:
    """All tokens of a ViT beside those of the same weights in float64 on the CPU."""
    config = vit_config(sizes.network, image_size=sizes.network_size, num_registers=4, layer_scale_init=0.1)
    network = VisionTransformer(config, generator=torch.Generator().manual_seed(0)).eval()
    side = sizes.network_size
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))

    def tokens(network: VisionTransformer, images: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([part.flatten() for part in network.forward_features(images)]).double().cpu()

    def difference(precision: Precision) -> float:
        placed = copy.deepcopy(network).to(findings.device)
        with autocast(findings.device, precision):
            found = tokens(placed, images.to(findings.device))
        return _relative(found, tokens(copy.deepcopy(network).double(), images.double()))

    findings.check("ViT in float32", partial(difference, "fp32"), tolerance=FLOAT32_TOLERANCE)
    findings.check("ViT in bfloat16", partial(difference, "bf16"), tolerance=BFLOAT16_TOLERANCE)


class Steps(NamedTuple):
    """What some training steps gave."""

    losses: Tensor
    """(steps,) float64"""
    moments: Tensor
    """(P,) float64, first moments of all gradients after the first step"""


def run_steps(values: Values) -> Steps:
    """Train on noise for some steps."""
    trainer = make_trainer({**values, "log_every": 1})
    batches = repeat(random_crops(trainer))
    losses = [trainer.step(0, batches)["loss"]]
    student = trainer.objective.student
    moments = [
        full_tensor(trainer.optimizer.state[p]["exp_avg"]).double().cpu().flatten() for p in student.parameters()
    ]
    losses += [trainer.step(number, batches)["loss"] for number in range(1, STEPS)]
    return Steps(torch.tensor(losses, dtype=torch.float64), torch.cat(moments))


def _examine_steps(findings: Findings, values: Values) -> None:
    """Training steps beside those of the CPU, in bfloat16, in shards, and compiled."""
    here = {**values, "device": findings.device.type}
    wanted = run_steps({**values, "device": "cpu", "activation_checkpointing": True})
    plain = run_steps(here)

    def beside_plain(changes: Values) -> float:
        return _relative(run_steps({**here, **changes}).losses, plain.losses)

    def in_shards(changes: Values) -> float:
        with one_rank():
            return beside_plain({**changes, "parallel": "fsdp"})

    low = {"precision": "bf16"}
    name, losses = f"losses of {STEPS} steps", partial(_relative, plain.losses, wanted.losses)
    findings.check(name, losses, tolerance=TRAINING_TOLERANCE)
    moments = partial(_relative, plain.moments, wanted.moments)
    findings.check("gradients of a step", moments, tolerance=TRAINING_TOLERANCE)
    findings.check("losses in bfloat16", partial(beside_plain, low), tolerance=BFLOAT16_TOLERANCE)
    findings.check("losses with FSDP, one rank", partial(in_shards, {}), tolerance=TRAINING_TOLERANCE)
    findings.check("losses with FSDP in bfloat16", partial(in_shards, low), tolerance=BFLOAT16_TOLERANCE)
    if findings.on_gpu:
        compiled = partial(beside_plain, {"compile": True})
        findings.check("losses of compiled blocks", compiled, tolerance=TRAINING_TOLERANCE)


@contextmanager
def one_rank() -> Iterator[None]:
    """A process group of this process alone: NCCL for tensors on a GPU, gloo for those on the CPU."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _examine_resumed(findings: Findings, values: Values) -> None:
    """A run that goes on from its first checkpoint, beside itself without a stop and beside the CPU's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = [path.read_bytes() for path in sorted(PHOTOS.rglob("*.jpg"))[:16]]
        write_shard(folder / "shards", photos, source="photos")
        changes = {"shards": str(folder / "shards"), "log_every": 1}

        def run(output: str, **more: Any) -> TrainResult:
            config = {**values, **changes, **more, "output": str(folder / output)}
            return train(parse(TrainConfig, config, where="benchmarks gpu"))

        on_cpu = run("cpu", device="cpu", activation_checkpointing=True)
        straight = run("straight", device=findings.device.type)
        _go_back(folder / "straight", folder / "resumed", values["checkpoint_every"], values["iterations"])
        resumed = run("resumed", device=findings.device.type)
        exports = [_tensors(one.export) for one in (resumed, straight)]
    losses = [torch.tensor([row["loss"] for row in one.log]) for one in (resumed, straight, on_cpu)]
    pairs = {"losses": losses[:2], "weights": exports, "losses of the CPU": losses[::2]}
    for name, pair in pairs.items():
        findings.check(f"resumed run, {name}", partial(_relative, *pair), tolerance=TRAINING_TOLERANCE)


def _go_back(finished: Path, copied: Path, checkpoint: int, last: int) -> None:
    """A copy of a finished run as it was when the iteration after the first checkpoint began."""
    shutil.copytree(finished, copied)
    for kept in (checkpoint_path(copied / "checkpoints", checkpoint), copied / "log.jsonl"):
        assert kept.exists(), kept
    shutil.rmtree(checkpoint_path(copied / "checkpoints", last))
    for export in copied.glob("*.safetensors"):
        export.unlink()


def _tensors(path: Path) -> Tensor:
    """(P,) float64, all tensors of a file in order of their names."""
    return torch.cat([value.double().flatten() for _, value in sorted(load_file(path).items())])


def _examine_waits(findings: Findings, values: Values) -> None:
    """A step reads its losses, to stop where one is not finite, and lets the host wait for nothing else.

    On a GPU torch tells of every wait. Without one, our own calls that would wait on a GPU are counted.
    """
    for objective, changes in OBJECTIVES.items():
        name = f"waits of a step beyond the losses, {objective}"
        with findings.guarded(name):
            trainer = make_trainer(apply_overrides({**values, "device": findings.device.type}, changes))
            batches = repeat(random_crops(trainer))
            for number in range(2):  # kernels are chosen and buffers made
                trainer.step(number, batches)
            with counted_warnings() if findings.on_gpu else counted_calls() as waits:
                trainer.step(2, batches)
            told = ", ".join(f"{place} ({count})" for place, count in sorted(waits.items()))
            findings.checks.append(Check(name, max(0, waits.total() - 1), 0.0, told))


def _embedding_figures(findings: Findings, sizes: Sizes) -> list[Figure]:
    """Pictures that a ViT with random weights embeds a second, and its products beside the fastest plain ones."""
    precision: Precision = "bf16" if findings.on_gpu else "fp32"
    network = VisionTransformer(
        vit_config(sizes.network, image_size=sizes.network_size), generator=torch.Generator().manual_seed(0)
    )
    with tempfile.TemporaryDirectory() as name:
        weights = Path(name) / "vit.safetensors"
        write_export(weights, network, ExportInfo(image_size=sizes.network_size, short_edge=sizes.network_size))
        backbone = load_backbone("curate", weights=str(weights), device=findings.device.type, precision=precision)
    pixels = torch.randint(256, (sizes.batch, 3, sizes.network_size, sizes.network_size), dtype=torch.uint8)
    flops = count_flops(lambda: backbone.embed(pixels))
    _start_peak(findings)
    seconds = median_seconds(lambda: backbone.embed(pixels), findings.device)
    name = f"{sizes.network}, {sizes.network_size} px, batch {sizes.batch}, {precision}"
    return _rates(findings, f"embedding, {name}", sizes.batch, seconds, flops, precision)


def _training_figures(findings: Findings, values: Values) -> list[Figure]:
    """Images that the trainer's steps take in a second, and their products beside the fastest plain ones."""
    trainer, seconds, flops = _time_training(findings, values, counted=True)
    name = f"training, {_describe(trainer)}"
    return _rates(findings, name, trainer.config.batch_size, seconds, flops, trainer.precision)


def compiled_figures(findings: Findings, values: Values) -> list[Figure]:
    """The same with compiled blocks, beside those that are not."""
    plain, seconds, _ = _time_training(findings, values)
    del plain
    trainer, compiled, _ = _time_training(findings, {**values, "compile": True})
    batch = trainer.config.batch_size
    name = f"training with torch.compile, {_describe(trainer)}"
    peak = _peak(findings)
    return [Figure(name, batch / compiled, "images/s", "without", batch / seconds, peak_bytes=peak)]


def _time_training(findings: Findings, values: Values, *, counted: bool = False) -> tuple[Trainer, float, int]:
    """A trainer, the median seconds of its steps on noise, and the flop of one if they are to be `counted`."""
    trainer = make_trainer({**values, "device": findings.device.type})
    batches, numbers = repeat(random_crops(trainer)), iter(range(1000))
    flops = count_flops(lambda: trainer.step(next(numbers), batches)) if counted else 0
    _start_peak(findings)
    return trainer, median_seconds(lambda: trainer.step(next(numbers), batches), findings.device, repeats=5), flops


def _describe(trainer: Trainer) -> str:
    config = trainer.config
    crops = f"2 x {config.crops.global_size} + {config.crops.num_local} x {config.crops.local_size} px"
    return f"ViT {config.model.preset}, {crops}, batch {config.batch_size}, {trainer.precision}"


def _rates(
    findings: Findings, name: str, images: int, seconds: float, flops: int, precision: Precision
) -> list[Figure]:
    """Images a second with the peak of memory, and flop/s beside those of the fastest plain product in this run."""
    product = f"fastest plain product, {precision}"
    return [
        Figure(name, images / seconds, "images/s", peak_bytes=_peak(findings)),
        Figure(f"{name}: products", flops / seconds, "flop/s", product, machine_rate(findings.device, precision)),
    ]


def _start_peak(findings: Findings) -> None:
    if findings.on_gpu:
        torch.cuda.reset_peak_memory_stats(findings.device)


def _peak(findings: Findings) -> int:
    """Bytes: the GPU's largest since `_start_peak`; without one, the process's largest so far."""
    return torch.cuda.max_memory_allocated(findings.device) if findings.on_gpu else peak_memory()


def _relative(found: Tensor, wanted: Tensor) -> float:
    """Length of the difference of two vectors, relative to that of the second."""
    return float((found - wanted).norm() / wanted.norm())
