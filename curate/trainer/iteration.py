"""One iteration: from crops to gradients, the student's step, and the teacher's average after it.

All that is random is drawn from (seed, number of the pass), so that an iteration is the same whatever ran before it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from curate.feed.crops import Crops
from curate.feed.labels import Labels
from curate.feed.settings import CropSettings
from curate.models.device import autocast
from curate.models.nets.tower import TimmTower
from curate.models.nets.trained import Trained
from curate.models.nets.vit import VisionTransformer
from curate.trainer.config import TrainConfig
from curate.trainer.diagnostics import FiniteGuard, batch_figures
from curate.trainer.effective import Effective
from curate.trainer.gram_teacher import GramTeacher
from curate.trainer.guides import add_guide_heads, guided
from curate.trainer.identity import settle_precision
from curate.trainer.journal import Row
from curate.trainer.objective import ForwardContext, ObjectiveOutput, members_of
from curate.trainer.optimizer import clip_gradients, is_backbone, make_optimizer, optimizer_state, set_rates
from curate.trainer.parallel import World, local_device
from curate.trainer.phases import Timeline, phase_at
from curate.trainer.sharding import gradient_sync, local_tensor, networks_of, replicate, shard
from curate.trainer.start import start_objective
from curate.trainer.warming import HeadsWarmUp


class Trainer:
    """The objective and its optimizer on this rank's device, advanced an iteration at a time.

    An iteration that is not logged never waits for the device: losses are looked at there, and one that is not finite
    is told when somebody asks for figures. Until then nothing is changed by it, nor by what follows.
    """

    def __init__(
        self, config: TrainConfig, effective: Effective, world: World, labels: Mapping[str, Labels] | None = None
    ) -> None:
        """The trainer before the first iteration; `labels` are those of the guides' columns, by name."""
        self.config, self.effective, self.world = config, effective, world
        self.device = local_device(config.device)
        self.precision = world.broadcast(lambda: settle_precision(config, self.device))
        self.timeline = Timeline(config, effective, seed=config.seed)
        self.labels = labels or {}
        self.objective = start_objective(config, effective, world)
        add_guide_heads(self.objective, config.objective.guides, self.labels, seed=config.seed)
        self.objective.to(self.device)
        self._place(networks_of(self.objective))
        model = guided(self.objective, config, self.labels)
        self.model = model if config.parallel == "fsdp" else replicate(model, world)
        self.gram = GramTeacher(self.objective, self.timeline, config, place=self._place_backbone)
        rates = {guide.key: guide.lr_factor for guide in config.objective.guides}
        self.optimizer = make_optimizer(self.objective.student, config.optimizer, rates)
        self.normalize = Normalize(config.crops).to(self.device)
        self.finite = FiniteGuard(self.device)
        self.warm_up = HeadsWarmUp(config, self.device) if config.heads == "warm-up" else None
        self.before_update: Callable[[], object] = lambda: None
        """Called in each iteration before the tensors that `late` names change."""

    def _place(self, networks: Sequence[nn.Module]) -> None:
        """Compile blocks, or keep less of them, and spread weights, as the configuration asks; the blocks of a timm
        model are neither compiled nor computed again."""
        for network in networks:
            if isinstance(network, VisionTransformer):
                network.checkpoints_blocks = self.config.activation_checkpointing
                if self.config.compile:
                    network.compile_blocks()
        if self.config.parallel == "fsdp":
            shard(networks, self.world, device=self.device, precision=self.precision)

    def _place_backbone(self, backbone: Trained) -> None:
        self._place([backbone.to(self.device)])

    def state(self) -> dict[str, Tensor]:
        """Every tensor of a checkpoint, by name; loading into them restores the trainer."""
        moments = optimizer_state(self.optimizer, self.objective.student)
        return {
            **{f"objective.{name}": value for name, value in self.objective.checkpoint_state().items()},
            **{f"optimizer.{name}": value for name, value in moments.items()},
            **self.gram.state(),
            **({} if self.warm_up is None else self.warm_up.state()),
        }

    def late(self) -> set[str]:
        """Names in `state` of what nothing but the update at the end of an iteration changes: weights of student and
        teacher, and moments. Forward passes change other tensors as well, such as centers."""
        weights = {name for name, _ in self.objective.named_parameters() if name.startswith(("student.", "teacher."))}
        moments = optimizer_state(self.optimizer, self.objective.student)
        return {f"objective.{name}" for name in weights} | {f"optimizer.{name}" for name in moments}

    def expect(self, step: int) -> None:
        """Have the tensors that a checkpoint after `step` iterations is about to fill."""
        self.gram.expect(step)

    def resume(self) -> None:
        """Go on from the tensors that a checkpoint has filled."""
        if self.warm_up is not None:
            self.warm_up.resume()

    def _backbone_factor(self, step: int) -> float:
        """Factor on the backbone's learning rate; 0: it stands still."""
        warmed = 1.0 if self.warm_up is None else self.warm_up.factor(step)
        return self.timeline.at("backbone", step) * warmed

    def step(self, step: int, batches: Iterator[Crops]) -> Row:
        """Iteration `step`, counted from 0: forward, backward, optimizer, teacher.

        Args:
            batches: the next `config.accumulate` micro-batches are taken from it.

        Returns:
            Its row for the log, where it is logged; otherwise its number alone, since figures cost a wait for the
            device.

        Raises:
            TrainingDiverged: a loss of this or an earlier iteration is NaN or infinite, and this one is logged; the
                weights are those from before.
        """
        self.gram.prepare(step)
        rate = self._set_rates(step)
        self._follow_batches(step)
        self.optimizer.zero_grad(set_to_none=True)
        output, losses, figures = self._accumulate(step, batches)
        self.optimizer.found_inf = self.finite.look(losses, step)  # type: ignore[attr-defined]
        if self._backbone_factor(step) == 0:
            for member in members_of(self.objective.student).values():
                member["backbone"].zero_grad(set_to_none=True)  # AdamW passes over what has no gradient
        norms = clip_gradients(self.objective.student, self.config.optimizer)
        self.before_update()
        self.optimizer.step()
        self._update_teacher(self.timeline.at("teacher_momentum", step))
        if self.warm_up is not None:
            self.warm_up.look(losses["loss"], step)
        if not self.config.is_logged(step + 1):
            return {"step": step + 1}
        self.check_finite()
        return self._row(step, output, losses | figures) | {
            "learning_rate": rate,
            **{f"gradient_norm_{name}": norm.item() for name, norm in norms.items()},
        }

    def check_finite(self) -> None:
        """Wait for the device, and see whether all losses so far are finite; before a checkpoint is written, too.

        Raises:
            TrainingDiverged: one is not; the weights are those from before.
        """
        self.finite.check(rate=lambda step: self.timeline.at("base_lr", step))

    def _follow_batches(self, step: int) -> None:
        """Keep the statistics of batch norms as they are while the backbone stands still: they are a part of it."""
        still = self._backbone_factor(step) == 0
        for name, network in self.objective.student.items():
            if is_backbone(name) and isinstance(network, TimmTower):
                network.follow_batches(not still)

    def _set_rates(self, step: int) -> float:
        """Learning rates and weight decay of iteration `step`; returns the learning rate."""
        at, frozen = self.timeline.at, self.effective.freeze_last_layer_iterations
        rate = at("base_lr", step)
        set_rates(
            self.optimizer,
            lr=rate,
            weight_decay=at("weight_decay", step),
            backbone=self._backbone_factor(step),
            last_layer=float(step >= frozen),
        )
        return rate

    def _row(self, step: int, output: ObjectiveOutput, means: dict[str, Tensor]) -> Row:
        """What the log says of an iteration beside its gradients."""
        at, done = self.timeline.at, step + 1
        row = {"step": done, **dict(zip(means, torch.stack([*means.values()]).tolist(), strict=True))}
        row |= {name: at(name, step) for name in ("teacher_momentum", "teacher_temperature")}
        row |= batch_figures(output)
        if self.timeline.phases:
            row |= {"phase": phase_at(self.timeline.phases, step)}
            row |= {f"weight_{name}": value for name, value in self.timeline.weights(step)._asdict().items()}
        return row | {"epoch": done * self.config.batch_size / self.effective.num_samples}

    def _accumulate(
        self, step: int, batches: Iterator[Crops]
    ) -> tuple[ObjectiveOutput, dict[str, Tensor], dict[str, Tensor]]:
        """Forward and backward of the passes of an iteration: the last one's output, and by name the losses and the
        objective's figures, means of all passes and ranks, on the device."""
        passes = self.config.accumulate
        seen = []
        for number in range(passes):
            with gradient_sync(self.model, self.objective, number == passes - 1):
                output = self._forward(step * passes + number, next(batches), step)
                (output.loss / passes).backward()
            watched = [output.loss, *output.terms.values(), *output.figures.values()]
            seen.append(torch.stack([value.detach() for value in watched]))
        means = (self.world.sum(torch.stack(seen).mean(dim=0)) / self.world.size).unbind()
        names = ["loss", *(f"loss_{name}" for name in output.terms)]
        losses = dict(zip(names, means, strict=False))
        return output, losses, dict(zip(output.figures, means[len(names) :], strict=True))

    def _forward(self, number: int, crops: Crops, step: int) -> ObjectiveOutput:
        """Forward pass `number` of the run, counted over all iterations; it belongs to iteration `step`."""
        context = ForwardContext.seeded(
            self.timeline.at("teacher_temperature", step),
            seed=self.config.seed,
            number=number,
            world=self.world,
            weights=self.timeline.weights(step),
            reversals=self.timeline.reversals(step),
        )
        crops = crops.map(lambda group: self.normalize(group.to(self.device, non_blocking=True)))
        with autocast(self.device, self.precision):
            return self.model(crops, context)

    @torch.no_grad()
    def _update_teacher(self, momentum: float) -> None:
        """Move every weight of the teacher towards the student: t = momentum * t + (1 - momentum) * s."""
        teacher, student = (
            [local_tensor(p) for p in n.parameters()] for n in (self.objective.teacher, self.objective.student)
        )
        torch._foreach_lerp_(teacher, student, 1 - momentum)
        for own, given in zip(self.objective.teacher.buffers(), self.objective.student.buffers(), strict=True):
            own.copy_(given)  # statistics of batch norms in timm models: averages already


class Normalize(nn.Module):
    """uint8 to float32 with the channels' mean and deviation, on the device."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: CropSettings) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(settings.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(settings.std).view(3, 1, 1))

    def forward(self, crops: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to float32."""
        return (crops.float() - self.mean) / self.std
