"""The training run: batches in, iterations, and the log, checkpoints and exports that they leave.

All that is random is drawn from (seed, iteration) or (seed, sample number), so a run killed at any moment and
started again ends with the same weights, bit for bit on a CPU with the same number of threads and ranks; with another
number of ranks it sees the same batches.
"""

import json
import logging
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from curate import interrupt
from curate.config import without_folder
from curate.feed.batches import check_workers, load_batches
from curate.feed.crops import Crops
from curate.feed.samples import CroppedSamples
from curate.feed.shards import ShardIndex, read_index
from curate.feed.split import BatchSplit
from curate.locking import hold
from curate.models.files.header import BACKBONE, HEADS
from curate.models.files.heads import pick_heads
from curate.models.nets.throughput import Meter
from curate.models.nets.trained import Trained
from curate.ops.images.preprocess import Preprocess
from curate.progress import track
from curate.trainer.announcing import announce
from curate.trainer.checkpoint import (
    CheckpointWriter,
    checkpoint_path,
    list_checkpoints,
    load_state,
    pass_over_damaged,
    remove_leftovers,
    set_aside,
    tell_checkpoint,
)
from curate.trainer.collapse import Watchdog
from curate.trainer.config import TrainConfig
from curate.trainer.effective import Effective
from curate.trainer.exporting import TeacherWeights, export_path, gather_teacher, gather_teachers, write_teacher
from curate.trainer.given_backbone import export_info
from curate.trainer.guides import read_guides
from curate.trainer.identity import check_identity, keep_begun, refuse_foreign_files, run_identity
from curate.trainer.iteration import Trainer
from curate.trainer.journal import LOG, Journal, Row, SilentJournal, write_log
from curate.trainer.objective import backbone_of, members_of
from curate.trainer.parallel import join_world
from curate.trainer.start import resolve_start
from curate.trainer.stopping import StopSignal, end_by
from curate.trainer.usage import Usage

logger = logging.getLogger(__name__)

EXPORT, INITIAL_EXPORT = BACKBONE, "backbone-init.safetensors"

Evaluate = Callable[[Trained], Mapping[str, float]]
"""Measures the teacher's backbone, for example by k-NN on labeled images: figures by name. Called on rank 0 alone."""


@runtime_checkable
class Prepares(Protocol):
    """What an evaluation may be beside a function: one that is told, before the first iteration, how exports of the run
    get their pictures. Called on rank 0 alone."""

    def prepare(self, how: Preprocess) -> None:
        """Make pictures for a backbone that gets them so."""


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
        evaluate: called every `config.evaluate_every` iterations; its figures enter the log as `eval_NAME`. Its
            `prepare`, where it has one, is called before.

    Raises:
        ConfigError: a setting does not fit the data, the machine or the process.
        SourceError: shards are missing or damaged, or hold an image that does not decode.
        WeightsError: weights to start from are missing, damaged or another model's.
        WorkdirError: another training is at work in the folder, it cannot be written, or the checkpoint there is
            damaged or belongs to another configuration or other data.
        TrainingDiverged: a loss became NaN or infinite.
        TrainingInterrupted: SIGTERM came; a checkpoint is written.
        KeyboardInterrupt: Ctrl-C came; a checkpoint is written.
    """
    folder = Path(config.output)
    with join_world() as world:
        check_workers(config.workers, config.worker_kind)
        split = BatchSplit(config.batch_size, config.accumulate, world.rank, world.size)
        index = world.broadcast(lambda: read_index(config.shards, config.feed))
        labels = world.broadcast(lambda: read_guides(index, config))
        effective = resolve_start(config, num_images=index.num_images, num_samples=index.num_samples)
        if world.is_first:
            refuse_foreign_files(folder)
        with (
            hold(folder, setting="output", work="training") if world.is_first else nullcontext(),
            interrupt.staying(None if world.is_first else ""),
        ):
            if world.is_first:
                remove_leftovers(folder)
                if resume:
                    pass_over_damaged(folder / "checkpoints")
                    effective = keep_begun(config, effective)
            aside = set_aside(folder / "checkpoints") if world.is_first and not resume else nullcontext()
            with aside:
                effective = world.broadcast(lambda: effective)
                if world.is_first:
                    announce(config, effective, labels, num_processes=world.size)
                trainer = Trainer(config, effective, world, labels)
                run = TrainingRun(trainer, index, split, folder, evaluate=evaluate)
            log = run.finish()
            world.barrier()
    return TrainResult(folder / EXPORT, folder / INITIAL_EXPORT, log, effective)


class TrainingRun:
    """The iterations of a trainer in a folder: resumed, logged, evaluated, saved and exported."""

    def __init__(
        self, trainer: Trainer, index: ShardIndex, split: BatchSplit, folder: Path, *, evaluate: Evaluate | None = None
    ) -> None:
        self.trainer, self.index, self.split, self.folder, self.evaluate = trainer, index, split, folder, evaluate
        self.config, self.world = trainer.config, trainer.world
        self.checkpoints = folder / "checkpoints"
        config = self.config
        self.samples = CroppedSamples(
            index,
            config.crops,
            seed=config.seed,
            window=config.shuffle_window,
            feed=config.feed,
            sizes=trainer.timeline.sizes,
        )

    def finish(self) -> list[Row]:
        """Go on from the newest checkpoint to the last iteration; returns the whole log."""
        iterations = self.config.iterations
        if self.world.is_first:
            interrupt.stays("no checkpoint is written yet, so the training begins anew")
        start = self.restore()
        if start == 0:
            self.export(self.folder / INITIAL_EXPORT, step=0)
        if isinstance(self.evaluate, Prepares) and self.world.is_first:
            self.evaluate.prepare(self._preprocess())
        with closing(self._open_journal(start)) as journal:
            self._evaluate_late(start, journal)
            stopped = self.iterate(start, journal) if start < iterations else 0
            if stopped:
                step = list_checkpoints(self.checkpoints)[-1][0]
                end_by(
                    stopped,
                    f"output={self.config.output}: stopped by {signal.Signals(stopped).name} after iteration {step} of "
                    f"{iterations}; the checkpoint is written, run the same command to go on",
                )
            if start < iterations or not self._exported():
                self.export(self.folder / EXPORT, step=iterations)
        return journal.rows

    def _preprocess(self) -> Preprocess:
        """How exports of the first student get their pictures."""
        objective = self.trainer.objective
        network = backbone_of(members_of(objective.teacher)[""]).config
        return export_info(self.config, objective.given.get(""), network).preprocess

    def _exported(self) -> bool:
        for student, networks in members_of(self.trainer.objective.teacher).items():
            export = export_path(self.folder / EXPORT, student)
            if not export.exists() or (pick_heads(networks.state_dict()) and not export.with_name(HEADS).exists()):
                return False
        return True

    def _open_journal(self, start: int) -> Journal | SilentJournal:
        if not self.world.is_first:
            return SilentJournal()
        kept = checkpoint_path(self.checkpoints, start) / LOG if start else None
        return Journal(self.folder, start=start, wandb=self.config.wandb, kept=kept)

    def iterate(self, start: int, journal: Journal | SilentJournal) -> int:
        """Iterations `start` to the last, with log rows, evaluations and checkpoints on the way.

        Returns:
            The signal that stopped it before the end, once the checkpoint is written; 0: none.
        """
        config, world, trainer = self.config, self.world, self.trainer
        trainer.objective.train()
        watchdog = Watchdog(config, lambda: trainer.objective.chance, rows=journal.rows)
        meter = Meter(start, batch_size=config.batch_size, device=trainer.device, precision=trainer.precision)
        batches = Usage(self._batches(start), trainer.model, done=start, device=trainer.device)
        writer = CheckpointWriter(self.checkpoints, world, keep=config.keep, beside=trainer.device.type == "cuda")
        trainer.before_update = writer.wait_for_copy
        bar = track("pretrain", config.iterations, done=start, unit="iterations", show=world.is_first)
        told = ""
        with StopSignal() as stop, closing(writer), closing(batches), bar as advance:
            for step in range(start, config.iterations):
                done = step + 1
                advanced = partial(trainer.step, step, batches)
                row = meter.count(advanced) if step == start and not config.compile else advanced()
                if config.is_logged(done):
                    row |= meter.look(done) | batches.look(done) | self._damage()
                    row |= self._evaluate(done, stop)
                    if world.is_first:
                        self._warn(watchdog, row, journal)
                    journal.write(row)
                    told = f"loss {row['loss']:.3f}"
                advance(1, note=told)
                stopped = stop.received(world)
                if stopped or config.is_due(done, config.checkpoint_every):
                    self.save(writer, done, journal.rows)
                if stopped and (done < config.iterations or self._is_unevaluated(done, journal.rows)):
                    writer.wait()
                    world.barrier()  # rank 0 publishes it last; who started the ranks may kill all as one ends
                    return stopped
        return 0

    def _batches(self, start: int) -> Generator[Crops, None, None]:
        """The micro-batches of this rank from iteration `start` on."""
        config = self.config
        return load_batches(
            self.samples,
            self.split,
            start=start * config.batch_size,
            workers=config.workers,
            kind=config.worker_kind,
            pin=self.trainer.device.type == "cuda",
        )

    @staticmethod
    def _warn(watchdog: Watchdog, row: Row, journal: Journal | SilentJournal) -> None:
        """Tell what a row shows, in the log, in its row and in TensorBoard."""
        for warning in watchdog.check(row):
            logger.warning("iteration %d: %s", row["step"], warning.text)
            journal.note(int(row["step"]), warning.text)
            row[warning.name] = 1.0

    def _damage(self) -> Row:
        """Shards and images left out since this start, on all ranks."""
        if self.config.feed.on_damaged == "error":
            return {}
        skipped = self.world.sum(torch.tensor(float(self.samples.skipped))).item()
        return {"damaged_shards": len(self.index.damaged), "skipped_images": skipped}

    def _evaluate(self, done: int, stop: StopSignal) -> Row:
        """Figures of an evaluation that is due after `done` iterations; none where a signal came before its end."""
        if self.evaluate is None or not self.config.is_due(done, self.config.evaluate_every):
            return {}
        teacher = gather_teacher(self.trainer.objective, self.config, self.world)
        evaluate = partial(self.evaluate, teacher.backbone)
        figures = stop.run(evaluate) if self.world.is_first else None
        return {f"eval_{name}": value for name, value in (figures or {}).items()}

    def _is_unevaluated(self, done: int, rows: list[Row]) -> bool:
        """Whether the evaluation after `done` iterations is due and its row lacks it, on any rank."""
        if self.evaluate is None or not self.config.is_due(done, self.config.evaluate_every):
            return False
        row = rows[-1] if rows else {}
        return self.world.broadcast(
            lambda: row.get("step") == done and not any(name.startswith("eval_") for name in row)
        )

    def _evaluate_late(self, done: int, journal: Journal | SilentJournal) -> None:
        """Make up for an evaluation that a signal had cut short."""
        if done and self._is_unevaluated(done, journal.rows):
            with StopSignal() as stop:
                figures = self._evaluate(done, stop)
            journal.amend(figures)

    def restore(self) -> int:
        """Load the newest checkpoint; returns the iterations done, 0 where there is none.

        Raises:
            WorkdirError: it is damaged, or made by another configuration or from other shards.
        """
        found = list_checkpoints(self.checkpoints)
        if not found:
            return 0
        step, path = found[-1]
        if self.world.is_first:
            tell_checkpoint(step, path)
        past = self.trainer.timeline.past(step)
        for change in check_identity(path, self._identity(), self.config, step=step, past=past):
            if self.world.is_first:
                logger.info("going on with other settings: %s", change)
        self.trainer.expect(step)
        load_state(path, self.trainer.state(), self.world)
        self.trainer.resume()
        if self.world.is_first:
            logger.info("resuming after iteration %d from %s", step, path)
        return step

    def save(self, writer: CheckpointWriter, step: int, rows: list[Row]) -> None:
        """Begin to write the checkpoint after `step` iterations, the exports in it and the log until then.

        Raises:
            TrainingDiverged: a loss is not finite: there is nothing to save.
        """
        self.trainer.check_finite()
        teachers = gather_teachers(self.trainer.objective, self.config, self.world)
        if self.world.is_first:  # copies, since training goes on while they are written
            teachers = {name: teacher.copied_to_cpu() for name, teacher in teachers.items()}
        metadata = {
            "samples": step * self.config.batch_size,
            "identity": json.dumps(self._identity()),
            "effective": self.trainer.effective.model_dump(mode="json"),
            "past": self.trainer.timeline.past(step),
        }
        provenance, logged = self._provenance(step), list(rows)

        def export(folder: Path) -> None:
            for name, teacher in teachers.items():
                self._write(export_path(folder / EXPORT, name), name, teacher, provenance)
            write_log(folder / LOG, logged)

        writer.save(step, self.trainer.state(), metadata, export, late=self.trainer.late())

    def export(self, path: Path, *, step: int) -> None:
        """Write the teacher's backbone, and its heads beside it; of every student."""
        for name, teacher in gather_teachers(self.trainer.objective, self.config, self.world).items():
            given = teacher._replace(heads={}) if step == 0 else teacher  # heads that never learned serve nobody
            if self.world.is_first:
                self._write(export_path(path, name), name, given, self._provenance(step))

    def _write(self, path: Path, name: str, teacher: TeacherWeights, provenance: dict[str, Any]) -> None:
        given = self.trainer.objective.given.get(name)
        write_teacher(path, teacher, self.config, given=given, provenance=provenance)

    def _identity(self) -> dict[str, Any]:
        classes = {column: found.classes for column, found in self.trainer.labels.items()}
        return run_identity(
            self.config, precision=self.trainer.precision, shards=self.index.fingerprint, classes=classes
        )

    def _provenance(self, step: int) -> dict[str, Any]:
        return {
            "objective": without_folder(self.config.objective.kind),
            "iterations": step,
            "images_seen": step * self.config.batch_size,
            "num_images": self.trainer.effective.num_images,
            "shards": self.index.fingerprint,
            "seed": self.config.seed,
        }
