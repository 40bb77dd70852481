"""The training loop: batches in, checkpoints, log and exports out.

All that is random is drawn from (seed, iteration) or (seed, sample number), so a run killed at any moment and
started again ends with the same weights, bit for bit on a CPU with the same number of threads.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curate.config import differences, identity
from curate.errors import WorkdirError
from curate.models.device import autocast, resolve_device, resolve_precision
from curate.models.export import ExportInfo, write_export
from curate.models.vit import VisionTransformer
from curate.progress import track
from curate.trainer.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    remove_checkpoints,
    remove_leftovers,
    save_checkpoint,
)
from curate.trainer.config import CropSettings, Effective, TrainConfig, resolve
from curate.trainer.data import CroppedSamples, Crops, check_workers, load_batches
from curate.trainer.diagnostics import Watchdog, check_finite, watch
from curate.trainer.journal import Journal, Row
from curate.trainer.lock import lock
from curate.trainer.masks import draw_masks
from curate.trainer.objective import DinoObjective, Outcome
from curate.trainer.optimizer import clip_gradients, make_optimizer, set_schedule
from curate.trainer.parallel import World
from curate.trainer.schedules import linear_then_constant, warmup_cosine
from curate.trainer.shards import ShardIndex, read_index

logger = logging.getLogger(__name__)

MASKS, DROP_PATH = 3, 4
"""First word of the seeds, after those of `curate.trainer.data`."""

EXPORT, INITIAL_EXPORT = "backbone.safetensors", "backbone-init.safetensors"

Evaluate = Callable[[VisionTransformer], Mapping[str, float]]
"""Measures the teacher's backbone, for example by k-NN on labelled images: figures by name."""


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves behind."""

    export: Path
    """The teacher's backbone, safetensors."""
    initial: Path
    """The same backbone before the first iteration, to compare with."""
    log: list[Row]
    """Rows of log.jsonl, oldest first."""
    effective: Effective


def train(config: TrainConfig, *, resume: bool = True, evaluate: Evaluate | None = None) -> TrainResult:
    """Pretrain, or go on where the last checkpoint in `config.output` stopped.

    Args:
        resume: False removes the checkpoints found there and starts anew.
        evaluate: called every `config.evaluate_every` iterations; its figures enter the log as `eval_NAME`.

    Raises:
        ConfigError: a setting does not fit the data, the machine or the process.
        SourceError: shards are missing or damaged, or hold an image that does not decode.
        WorkdirError: another training is at work in the folder, it cannot be written, or the checkpoint there is
            damaged or belongs to another configuration or other data.
        TrainingDiverged: a loss became NaN or infinite.
    """
    check_workers(config)
    folder = Path(config.output)
    index = read_index(config.shards)
    effective = resolve(config, num_images=index.num_images, num_samples=index.num_samples)
    _announce(config, effective)
    with lock(folder):
        remove_leftovers(folder)
        if not resume:
            remove_checkpoints(folder / "checkpoints")
        log = Trainer(config, index, effective).finish(folder, evaluate=evaluate)
    return TrainResult(folder / EXPORT, folder / INITIAL_EXPORT, log, effective)


def _announce(config: TrainConfig, effective: Effective) -> None:
    logger.info(
        "pretraining on %d images: %d iterations of %d = %.1f epochs, %d images seen",
        effective.num_images,
        config.iterations,
        config.batch_size,
        effective.epochs,
        effective.images_seen,
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
    """The objective and its optimiser on one device, advanced an iteration at a time."""

    def __init__(self, config: TrainConfig, index: ShardIndex, effective: Effective) -> None:
        self.config, self.index, self.effective = config, index, effective
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
        vit = config.model.vit(config.crops.global_size)
        self.grid = config.crops.global_size // vit.patch_size
        self.objective = DinoObjective(
            vit, config.objective, prototypes=effective.prototypes, world=World(), seed=config.seed
        ).to(self.device)
        self.optimizer = make_optimizer(self.objective.student, config.optimizer, depth=vit.depth)
        self.normalize = Normalize(config.crops).to(self.device)

    def finish(self, folder: Path, *, evaluate: Evaluate | None) -> list[Row]:
        """Go on from the newest checkpoint in `folder` to the last iteration; returns the whole log."""
        iterations = self.config.iterations
        start = self.restore(folder / "checkpoints")
        if start == 0:
            self.export(folder / INITIAL_EXPORT, step=0)
        with closing(Journal(folder, start=start)) as journal:
            if start < iterations:
                self.run(folder, start=start, journal=journal, evaluate=evaluate)
            if not (folder / EXPORT).exists() or start < iterations:
                self.export(folder / EXPORT, step=iterations)
        return journal.rows

    def run(self, folder: Path, *, start: int, journal: Journal, evaluate: Evaluate | None) -> None:
        """Iterations `start` to the last, with log rows, evaluations and checkpoints on the way."""
        config = self.config
        samples = CroppedSamples(self.index, config.crops, seed=config.seed, window=config.shuffle_window)
        patience = max(self.effective.warmup_iterations, config.iterations // 3)
        watchdog = Watchdog(prototypes=self.effective.prototypes, patience=patience)
        self.objective.train()
        clock = Clock(start)
        batches = load_batches(samples, config, start=start * config.batch_size)
        with closing(batches), track("pretrain", config.iterations, done=start, unit="iterations") as advance:
            for step in range(start, config.iterations):
                row = self.step(step, next(batches))
                done = step + 1
                if self._logged(done):
                    row["images_per_second"] = clock.rate(done) * config.batch_size
                    watchdog.look(row)
                    journal.write(row | self._evaluate(evaluate, done))
                advance(1, note=f"loss {row['loss']:.3f}")
                if _due(done, config.checkpoint_every, config.iterations):
                    self.save(folder / "checkpoints", done)

    def step(self, step: int, crops: Crops) -> Row:
        """One iteration, from the crops to the teacher's update; returns its row for the log."""
        config, effective = self.config, self.effective
        optimizer, objective = config.optimizer, config.objective
        lr = set_schedule(self.optimizer, step, optimizer, effective=effective, num_steps=config.iterations)
        first, last = objective.teacher_temperature
        temperature = linear_then_constant(
            step, start=first, end=last, num_steps=effective.teacher_temperature_iterations
        )
        momentum = warmup_cosine(step, start=effective.teacher_momentum, end=1.0, num_steps=config.iterations)
        outcome = self._forward(step, crops, temperature)
        losses = {f"loss_{name}": loss.item() for name, loss in outcome.parts.items()}
        check_finite(losses, step=step, learning_rate=lr)
        self.optimizer.zero_grad(set_to_none=True)
        outcome.total.backward()
        norms = clip_gradients(self.objective.student, optimizer.clip_norm)
        self.optimizer.step()
        self.objective.update_teacher(momentum)
        row = {"step": step + 1, "loss": outcome.total.item(), **losses, "learning_rate": lr}
        if not self._logged(step + 1):
            return row  # the figures below cost a wait for the device
        row |= {"teacher_momentum": momentum, "teacher_temperature": temperature, **watch(outcome)}
        row |= {f"gradient_norm_{name}": norm.item() for name, norm in norms.items()}
        return row | {"epoch": (step + 1) * config.batch_size / effective.num_samples}

    def _forward(self, step: int, crops: Crops, temperature: float) -> Outcome:
        objective = self.config.objective
        masks = draw_masks(
            len(crops.large),
            self.grid,
            rng=np.random.default_rng([MASKS, self.config.seed, step]),
            share=objective.masked_share,
            ratios=objective.mask_ratio,
        )
        with autocast(self.device, self.precision):
            return self.objective(
                self.normalize(crops.large.to(self.device, non_blocking=True)),
                self.normalize(crops.small.to(self.device, non_blocking=True)),
                torch.from_numpy(masks),
                temperature=temperature,
                generator=_generator(DROP_PATH, self.config.seed, step),
            )

    def _logged(self, done: int) -> bool:
        return _due(done, self.config.log_every, self.config.iterations) or self._evaluated(done)

    def _evaluated(self, done: int) -> bool:
        every = self.config.evaluate_every
        return every > 0 and _due(done, every, self.config.iterations)

    def _evaluate(self, evaluate: Evaluate | None, done: int) -> Row:
        if evaluate is None or not self._evaluated(done):
            return {}
        return {f"eval_{name}": value for name, value in evaluate(self.objective.backbone).items()}

    def save(self, folder: Path, step: int) -> None:
        """Write the checkpoint after `step` iterations and the export beside it; remove old ones."""
        path = save_checkpoint(
            folder,
            step,
            {
                "samples": step * self.config.batch_size,
                "identity": self._identity(),
                "objective": self.objective.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )
        self.export(path.with_suffix(".safetensors"), step=step)
        prune_checkpoints(folder, self.config.keep)

    def restore(self, folder: Path) -> int:
        """Load the newest checkpoint; returns the iterations done, 0 where there is none.

        Raises:
            WorkdirError: it is damaged, or made by another configuration or from other shards.
        """
        found = list_checkpoints(folder)
        if not found:
            return 0
        step, path = found[-1]
        state = load_checkpoint(path)
        _check_identity(path, json.loads(state["identity"]), json.loads(self._identity()))
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        logger.info("resuming after iteration %d from %s", step, path)
        return step

    def _identity(self) -> str:
        """What two runs must share to be one: settings that change results, and the data. Folders may move."""
        told = identity(self.config)
        told = {name: value for name, value in told.items() if name not in ("shards", "output")}
        return json.dumps(told | {"precision": self.precision, "shards": self.index.fingerprint})

    def export(self, path: Path, *, step: int) -> None:
        """Write the teacher's backbone."""
        crops = self.config.crops
        info = ExportInfo(
            image_size=crops.global_size,
            short_edge=crops.global_size,
            mean=crops.mean,
            std=crops.std,
            provenance=self._provenance(step),
        )
        write_export(path, self.objective.backbone, info)

    def _provenance(self, step: int) -> dict[str, Any]:
        return {
            "objective": "dinov2",
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


class Clock:
    """Iterations a second since the last look."""

    def __init__(self, step: int) -> None:
        self._step, self._time = step, time.perf_counter()

    def rate(self, step: int) -> float:
        now = time.perf_counter()
        rate = (step - self._step) / (now - self._time)
        self._step, self._time = step, now
        return rate


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
