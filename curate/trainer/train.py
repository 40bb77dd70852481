"""The training loop: batches in, checkpoints, log and exports out.

All that is random is drawn from (seed, iteration) or (seed, sample number), so a run killed at any moment and
started again ends with the same weights, bit for bit on a CPU with the same number of threads and ranks; with another
number of ranks it sees the same batches.
"""

import copy
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curate.config import differences, identity
from curate.errors import TrainingInterrupted, WorkdirError
from curate.feed.batches import CroppedSamples, Crops, Split, check_workers, load_batches
from curate.feed.settings import CropSettings
from curate.feed.shards import ShardIndex, read_index
from curate.locking import LOCK, hold
from curate.models.device import Precision, autocast, resolve_precision
from curate.models.files.export import write_export
from curate.models.files.header import BACKBONE, HEADS, ExportInfo
from curate.models.files.heads import describe_heads, pick_heads, write_heads
from curate.models.nets.throughput import Meter
from curate.models.nets.trained import Trained
from curate.models.nets.vit import VisionTransformer
from curate.progress import track
from curate.trainer.checkpoint import (
    CheckpointWriter,
    list_checkpoints,
    load_state,
    prune_checkpoints,
    read_told,
    remove_leftovers,
)
from curate.trainer.config import Effective, TrainConfig, resolve
from curate.trainer.diagnostics import Watchdog, check_finite, watch
from curate.trainer.initial import given_heads, origins, start_objective
from curate.trainer.journal import Journal, Row, SilentJournal
from curate.trainer.objective import Moment, Outcome, PrototypeSettings, Views, tower
from curate.trainer.optimizer import clip_gradients, make_optimizer, optimizer_state, set_schedule
from curate.trainer.parallel import World, join_world, local_device
from curate.trainer.schedules import linear_then_constant, warmup_cosine
from curate.trainer.sharding import local, replicate, shard, synchronised, whole
from curate.trainer.stopping import StopSignal

logger = logging.getLogger(__name__)

MASKS, DROP_PATH = 3, 4
"""First word of the seeds, after those of `curate.feed`."""

EXPORT, INITIAL_EXPORT = BACKBONE, "backbone-init.safetensors"

Evaluate = Callable[[Trained], Mapping[str, float]]
"""Measures the teacher's backbone, for example by k-NN on labelled images: figures by name. Called on rank 0 alone."""


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves behind."""

    export: Path
    """The teacher's backbone, safetensors; its heads lie beside it."""
    initial: Path
    """The same backbone before the first iteration, to compare with."""
    log: list[Row]
    """Rows of log.jsonl, oldest first; on rank 0 alone."""
    effective: Effective


def train(config: TrainConfig, *, resume: bool = True, evaluate: Evaluate | None = None) -> TrainResult:
    """Pretrain, or go on where the last checkpoint in `config.output` stopped; every process of torchrun calls it.

    Args:
        resume: False removes the checkpoints found there and starts anew.
        evaluate: called every `config.evaluate_every` iterations; its figures enter the log as `eval_NAME`.

    Raises:
        ConfigError: a setting does not fit the data, the machine or the process.
        SourceError: shards are missing or damaged, or hold an image that does not decode.
        WeightsError: weights to start from are missing, damaged or another model's.
        WorkdirError: another training is at work in the folder, it cannot be written, or the checkpoint there is
            damaged or belongs to another configuration or other data.
        TrainingDiverged: a loss became NaN or infinite.
        TrainingInterrupted: SIGTERM came; a checkpoint is written.
    """
    folder = Path(config.output)
    with join_world() as world:
        check_workers(config.workers, config.worker_kind)
        split = Split(config.batch_size, config.accumulate, world.rank, world.size)
        index = world.share(lambda: read_index(config.shards, config.feed))
        heads = given_heads(config)
        effective = resolve(
            config,
            num_images=index.num_images,
            num_samples=index.num_samples,
            prototypes=None if heads is None else heads.prototypes,
        )
        if world.is_first:
            _announce(config, effective, world)
        if world.is_first:
            _refuse_foreign_files(folder)
        with hold(folder, setting="output", work="training") if world.is_first else nullcontext():
            if world.is_first:
                remove_leftovers(folder)
                if not resume:
                    prune_checkpoints(folder / "checkpoints", keep=0)
            world.wait()
            log = Trainer(config, index, effective, world, split).finish(folder, evaluate=evaluate)
            world.wait()
    return TrainResult(folder / EXPORT, folder / INITIAL_EXPORT, log, effective)


def _refuse_foreign_files(folder: Path) -> None:
    """A folder that holds something and was never locked by a training is the user's, and stays as it is."""
    if folder.is_dir() and not (folder / LOCK).exists() and any(folder.iterdir()):
        raise WorkdirError(f"output={folder}: not empty, and no training of curate; give an empty or new folder")


def _announce(config: TrainConfig, effective: Effective, world: World) -> None:
    logger.info(
        "pretraining on %d images: %d iterations of %d = %.1f epochs, %d images seen, %d processes",
        effective.num_images,
        config.iterations,
        config.batch_size,
        effective.epochs,
        effective.images_seen,
        world.size,
    )
    if config.batch_size > effective.num_images:
        logger.warning(
            "batch_size %d is more than the %d images: a batch shows some of them twice",
            config.batch_size,
            effective.num_images,
        )
    logger.info(
        "peak learning rate %.3g, warm-up %d iterations, %d prototypes, teacher momentum %.4g, "
        "teacher temperature rises for %d iterations, prototypes frozen for %d",
        effective.learning_rate,
        effective.warmup_iterations,
        effective.prototypes,
        effective.teacher_momentum,
        effective.teacher_temperature_iterations,
        effective.freeze_last_layer_iterations,
    )


class Trainer:
    """The objective and its optimiser on this rank's device, advanced an iteration at a time."""

    def __init__(
        self, config: TrainConfig, index: ShardIndex, effective: Effective, world: World, split: Split
    ) -> None:
        self.config, self.index, self.effective, self.world, self.split = config, index, effective, world, split
        self.device = local_device(config.device)
        self.precision = world.share(lambda: _settle_precision(config, self.device))
        self.objective = start_objective(config, effective, world).to(self.device)
        self._prepare_blocks()
        self.model: nn.Module = self.objective
        if config.parallel == "fsdp":
            shard(self.objective, world, device=self.device, precision=self.precision)
        else:
            self.model = replicate(self.objective, world)
        self.optimizer = make_optimizer(self.objective.student, config.optimizer)
        self.normalize = Normalize(config.crops).to(self.device)

    def _prepare_blocks(self) -> None:
        """Compile blocks, or keep less of them, as the configuration asks; a timm model has neither."""
        for networks in filter(None, (self.objective.student, self.objective.teacher, self.objective.guide)):
            backbone = tower(networks)
            if isinstance(backbone, VisionTransformer):
                backbone.checkpoints_blocks = self.config.activation_checkpointing
                if self.config.compile:
                    backbone.compile_blocks()

    def finish(self, folder: Path, *, evaluate: Evaluate | None) -> list[Row]:
        """Go on from the newest checkpoint in `folder` to the last iteration; returns the whole log."""
        iterations = self.config.iterations
        start = self.restore(folder / "checkpoints")
        if start == 0:
            self.export(folder / INITIAL_EXPORT, step=0)
        with closing(self._open_journal(folder, start)) as journal:
            if start < iterations:
                self.run(folder, start=start, journal=journal, evaluate=evaluate)
            headed = bool(pick_heads(self.objective.teacher.state_dict()))
            wanted = [folder / EXPORT, folder / HEADS] if headed else [folder / EXPORT]
            if start < iterations or not all(path.exists() for path in wanted):
                self.export(folder / EXPORT, step=iterations)
        return journal.rows

    def _open_journal(self, folder: Path, start: int) -> Journal | SilentJournal:
        return Journal(folder, start=start, wandb=self.config.wandb) if self.world.is_first else SilentJournal()

    def run(self, folder: Path, *, start: int, journal: Journal | SilentJournal, evaluate: Evaluate | None) -> None:
        """Iterations `start` to the last, with log rows, evaluations and checkpoints on the way."""
        config, world = self.config, self.world
        samples = CroppedSamples(
            self.index, config.crops, seed=config.seed, window=config.shuffle_window, feed=config.feed
        )
        patience = max(self.effective.warmup_iterations, config.iterations // 3)
        watchdog = Watchdog(patience=patience)
        self.objective.train()
        meter = Meter(start, batch_size=config.batch_size, device=self.device, precision=self.precision)
        batches = load_batches(
            samples,
            self.split,
            start=start * config.batch_size,
            workers=config.workers,
            kind=config.worker_kind,
        )
        writer = CheckpointWriter(folder / "checkpoints", world, keep=config.keep)
        bar = track("pretrain", config.iterations, done=start, unit="iterations", show=world.is_first)
        with StopSignal() as stop, closing(writer), closing(batches), bar as advance:
            for step in range(start, config.iterations):
                advanced = partial(self.step, step, batches)
                row = meter.count(advanced) if step == start and not config.compile else advanced()
                done = step + 1
                if self._logged(done):
                    row |= meter.look(done) | self._damage(samples) | self._evaluate(evaluate, done)
                    if world.is_first:
                        watchdog.look(row, self.objective.chance)
                    journal.write(row)
                advance(1, note=f"loss {row['loss']:.3f}")
                stopped = stop.came(world)
                if stopped or _due(done, config.checkpoint_every, config.iterations):
                    self.save(writer, done)
                if stopped and done < config.iterations:
                    writer.wait()
                    raise TrainingInterrupted(
                        f"output={config.output}: stopped by SIGTERM after iteration {done} of {config.iterations}; "
                        "the checkpoint is written, run the same command to go on"
                    )

    def _damage(self, samples: CroppedSamples) -> Row:
        """What was left out so far, of this start of the run, on all ranks."""
        if self.config.feed.on_damaged == "error":
            return {}
        skipped = self.world.sum(torch.tensor(float(samples.skipped))).item()
        return {"damaged_shards": len(self.index.damaged), "skipped_images": skipped}

    def step(self, step: int, batches: Iterator[Crops]) -> Row:
        """One iteration, from the crops to the teacher's update; returns its row for the log."""
        config, optimizer = self.config, self.config.optimizer
        lr = set_schedule(self.optimizer, step, optimizer, effective=self.effective, num_steps=config.iterations)
        temperature = self._temperature(step)
        start, end = self.effective.teacher_momentum, 1.0
        momentum = warmup_cosine(step, start=start, end=end, num_steps=config.iterations)
        self.optimizer.zero_grad(set_to_none=True)
        outcome, losses = self._accumulate(step, batches, temperature)
        check_finite(losses, step=step, learning_rate=lr)
        if step < optimizer.freeze_backbone_iterations:
            self.objective.student["backbone"].zero_grad(set_to_none=True)  # AdamW passes over what has no gradient
        norms = clip_gradients(self.objective.student, optimizer)
        self.optimizer.step()
        self._update_teacher(momentum)
        row = {"step": step + 1, **losses, "learning_rate": lr}
        if not self._logged(step + 1):
            return row  # the figures below cost a wait for the device
        row |= {"teacher_momentum": momentum, "teacher_temperature": temperature, **watch(outcome)}
        row |= {f"gradient_norm_{name}": norm.item() for name, norm in norms.items()}
        return row | {"epoch": (step + 1) * config.batch_size / self.effective.num_samples}

    def _accumulate(self, step: int, batches: Iterator[Crops], temperature: float) -> tuple[Outcome, Row]:
        """Forward and backward of the passes of an iteration: the last one's outcome, and the mean losses of all passes
        and ranks."""
        passes = self.config.accumulate
        seen = []
        for number in range(passes):
            with synchronised(self.model, self.objective, number == passes - 1):
                outcome = self._forward(step * passes + number, next(batches), temperature)
                (outcome.total / passes).backward()
            seen.append(torch.stack([outcome.total.detach(), *(part.detach() for part in outcome.parts.values())]))
        means = self.world.sum(torch.stack(seen).mean(dim=0)) / self.world.size
        names = ["loss", *(f"loss_{name}" for name in outcome.parts)]
        return outcome, dict(zip(names, means.tolist(), strict=True))

    def _forward(self, number: int, crops: Crops, temperature: float) -> Outcome:
        """Pass `number` of the run, counted over all iterations."""
        seed = self.config.seed
        moment = Moment(
            temperature,
            np.random.default_rng([MASKS, seed, number]),
            _generator(DROP_PATH, seed, number, *([self.world.rank] if self.world.size > 1 else [])),
        )
        large, small = (self.normalize(part.to(self.device, non_blocking=True)) for part in crops)
        with autocast(self.device, self.precision):
            return self.model(Views(large, small), moment)

    def _temperature(self, step: int) -> float:
        """The teacher's."""
        if not isinstance(self.config.objective, PrototypeSettings):
            return 0.0
        first, last = self.config.objective.teacher_temperature
        rise = self.effective.teacher_temperature_iterations
        return linear_then_constant(step, start=first, end=last, num_steps=rise)

    @torch.no_grad()
    def _update_teacher(self, momentum: float) -> None:
        """Move every weight of the teacher towards the student: t = momentum * t + (1 - momentum) * s."""
        teacher, student = (
            [local(p) for p in n.parameters()] for n in (self.objective.teacher, self.objective.student)
        )
        torch._foreach_lerp_(teacher, student, 1 - momentum)

    def _logged(self, done: int) -> bool:
        return _due(done, self.config.log_every, self.config.iterations) or self._evaluated(done)

    def _evaluated(self, done: int) -> bool:
        every = self.config.evaluate_every
        return every > 0 and _due(done, every, self.config.iterations)

    def _evaluate(self, evaluate: Evaluate | None, done: int) -> Row:
        if evaluate is None or not self._evaluated(done):
            return {}
        backbone, _ = self._product()
        return {f"eval_{name}": value for name, value in evaluate(backbone).items()} if self.world.is_first else {}

    def _product(self) -> tuple[Trained, dict[str, Tensor]]:
        """The teacher's backbone, and the tensors of its heads, whole; all ranks must ask together."""
        state = {name: whole(value) for name, value in self.objective.teacher.state_dict().items()}
        backbone = self.objective.backbone
        if self.config.parallel == "fsdp" and self.world.size > 1:
            backbone = self.config.model.build(self.config.crops.global_size, generator=torch.Generator())
            inner = {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}
            backbone.load_state_dict(inner)
            backbone.to(self.device).eval()
        return backbone, pick_heads(state)

    def save(self, writer: CheckpointWriter, step: int) -> None:
        """Begin to write the checkpoint after `step` iterations and the exports in it."""
        backbone, heads = self._product()
        if self.world.is_first:  # a copy, since training goes on while it is written
            backbone = copy.deepcopy(backbone).cpu()
            heads = {name: value.detach().to("cpu", copy=True) for name, value in heads.items()}
        told = {"samples": step * self.config.batch_size, "identity": self._identity()}
        writer.save(
            step, self._state(), told, lambda folder: self._write_export(folder / EXPORT, backbone, heads, step)
        )

    def _state(self) -> dict[str, Tensor]:
        """Every tensor of a checkpoint, by name."""
        moments = optimizer_state(self.optimizer, self.objective.student)
        return {
            **{f"objective.{name}": value for name, value in self.objective.lasting().items()},
            **{f"optimizer.{name}": value for name, value in moments.items()},
        }

    def restore(self, folder: Path) -> int:
        """Load the newest checkpoint; returns the iterations done, 0 where there is none.

        Raises:
            WorkdirError: it is damaged, or made by another configuration or from other shards.
        """
        found = list_checkpoints(folder)
        if not found:
            return 0
        step, path = found[-1]
        _check_identity(path, json.loads(read_told(path)["identity"]), json.loads(self._identity()))
        load_state(path, self._state(), self.world)
        if self.world.is_first:
            logger.info("resuming after iteration %d from %s", step, path)
        return step

    def _identity(self) -> str:
        """What two runs must share to be one: settings that change results, and the data. Folders may move."""
        told = identity(self.config)
        moving = ("shards", "output")
        told = {name: value for name, value in told.items() if name not in moving}
        facts = {"precision": self.precision, "shards": self.index.fingerprint, "origins": origins(self.config)}
        return json.dumps(told | facts)

    def export(self, path: Path, *, step: int) -> None:
        """Write the teacher's backbone, and its heads beside it."""
        backbone, heads = self._product()
        if self.world.is_first:
            self._write_export(path, backbone, heads, step)

    def _write_export(self, path: Path, backbone: Trained, heads: Mapping[str, Tensor], step: int) -> None:
        crops, provenance = self.config.crops, self._provenance(step)
        info = ExportInfo(
            image_size=crops.global_size,
            short_edge=crops.global_size,
            mean=crops.mean,
            std=crops.std,
            provenance=provenance,
        )
        write_export(path, backbone, info)
        if heads and step > 0:  # those of the first weights serve nobody
            beside = path.with_name(HEADS)
            write_heads(beside, heads, describe_heads(heads, provenance=provenance, where=str(beside)))

    def _provenance(self, step: int) -> dict[str, Any]:
        return {
            "objective": self.config.objective.kind,
            "iterations": step,
            "images_seen": step * self.config.batch_size,
            "num_images": self.effective.num_images,
            "shards": self.index.fingerprint,
            "seed": self.config.seed,
        }


class Normalize(nn.Module):
    """uint8 to float32 with the channels' mean and deviation, on the device."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: CropSettings) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(settings.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(settings.std).view(3, 1, 1))

    def forward(self, crops: Tensor) -> Tensor:
        return (crops.float() - self.mean) / self.std


def _settle_precision(config: TrainConfig, device: torch.device) -> Precision:
    """`auto` is measured when a run begins, and from then on it is what the run began with."""
    found = list_checkpoints(Path(config.output) / "checkpoints")
    if config.precision == "auto" and found:
        begun: Precision = json.loads(read_told(found[-1][1])["identity"])["precision"]
        return begun
    return resolve_precision(config.precision, device)


def _check_identity(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    changed = [f"{name} was {old}, now {new}" for name, old, new in differences(stored, wanted)]
    if changed:
        raise WorkdirError(
            f"checkpoint {path} belongs to another run: {'; '.join(changed)}; set them back, remove "
            f"{path.parents[1]} to start anew, or set another output=FOLDER"
        )


def _generator(*words: int) -> torch.Generator:
    seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)


def _due(done: int, every: int, last: int) -> bool:
    return done % every == 0 or done == last
