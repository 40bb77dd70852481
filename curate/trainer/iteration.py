"""One iteration: from crops to gradients, the student's step, and the teacher's average after it.

All that is random is drawn from (seed, number of the pass), so that an iteration is the same whatever ran before it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from curate.feed.crops import Crops
from curate.feed.settings import CropSettings
from curate.models.device import autocast
from curate.models.nets.vit import VisionTransformer
from curate.trainer.config import TrainConfig
from curate.trainer.diagnostics import batch_figures, check_finite
from curate.trainer.effective import Effective
from curate.trainer.identity import settle_precision
from curate.trainer.journal import Row
from curate.trainer.objective import ForwardContext, ObjectiveOutput, backbone_of
from curate.trainer.objectives.settings import PrototypeSettings
from curate.trainer.optimizer import clip_gradients, make_optimizer, optimizer_state, set_schedule
from curate.trainer.parallel import World, local_device
from curate.trainer.schedules import linear_then_constant, warmup_cosine
from curate.trainer.sharding import gradient_sync, local_tensor, replicate, shard
from curate.trainer.start import start_objective


class Trainer:
    """The objective and its optimizer on this rank's device, advanced an iteration at a time."""

    def __init__(self, config: TrainConfig, effective: Effective, world: World) -> None:
        self.config, self.effective, self.world = config, effective, world
        self.device = local_device(config.device)
        self.precision = world.broadcast(lambda: settle_precision(config, self.device))
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
        for networks in filter(None, (self.objective.student, self.objective.teacher, self.objective.frozen_teacher)):
            backbone = backbone_of(networks)
            if isinstance(backbone, VisionTransformer):
                backbone.checkpoints_blocks = self.config.activation_checkpointing
                if self.config.compile:
                    backbone.compile_blocks()

    def state(self) -> dict[str, Tensor]:
        """Every tensor of a checkpoint, by name; loading into them restores the trainer."""
        moments = optimizer_state(self.optimizer, self.objective.student)
        return {
            **{f"objective.{name}": value for name, value in self.objective.checkpoint_state().items()},
            **{f"optimizer.{name}": value for name, value in moments.items()},
        }

    def step(self, step: int, batches: Iterator[Crops]) -> Row:
        """Iteration `step`, counted from 0: forward, backward, optimizer, teacher.

        Args:
            batches: the next `config.accumulate` micro-batches are taken from it.

        Returns:
            Its row for the log. One that is not logged has the losses and the learning rate alone, since the other
            figures cost a wait for the device.

        Raises:
            TrainingDiverged: a loss is NaN or infinite; the weights are those from before.
        """
        config, optimizer = self.config, self.config.optimizer
        lr = set_schedule(self.optimizer, step, optimizer, effective=self.effective, num_steps=config.iterations)
        temperature = self._teacher_temperature(step)
        start = self.effective.teacher_momentum
        momentum = warmup_cosine(step, start=start, end=1.0, num_steps=config.iterations)
        self.optimizer.zero_grad(set_to_none=True)
        output, losses = self._accumulate(step, batches, temperature)
        check_finite(losses, step=step, learning_rate=lr)
        if step < optimizer.freeze_backbone_iterations:
            self.objective.student["backbone"].zero_grad(set_to_none=True)  # AdamW passes over what has no gradient
        norms = clip_gradients(self.objective.student, optimizer)
        self.optimizer.step()
        self._update_teacher(momentum)
        row = {"step": step + 1, **losses, "learning_rate": lr}
        if not config.is_logged(step + 1):
            return row
        row |= {"teacher_momentum": momentum, "teacher_temperature": temperature, **batch_figures(output)}
        row |= {f"gradient_norm_{name}": norm.item() for name, norm in norms.items()}
        return row | {"epoch": (step + 1) * config.batch_size / self.effective.num_samples}

    def _accumulate(self, step: int, batches: Iterator[Crops], temperature: float) -> tuple[ObjectiveOutput, Row]:
        """Forward and backward of the passes of an iteration: the last one's output, and the mean losses of all passes
        and ranks."""
        passes = self.config.accumulate
        seen = []
        for number in range(passes):
            with gradient_sync(self.model, self.objective, number == passes - 1):
                output = self._forward(step * passes + number, next(batches), temperature)
                (output.loss / passes).backward()
            seen.append(torch.stack([output.loss.detach(), *(term.detach() for term in output.terms.values())]))
        means = self.world.sum(torch.stack(seen).mean(dim=0)) / self.world.size
        names = ["loss", *(f"loss_{name}" for name in output.terms)]
        return output, dict(zip(names, means.tolist(), strict=True))

    def _forward(self, number: int, crops: Crops, temperature: float) -> ObjectiveOutput:
        """Forward pass `number` of the run, counted over all iterations."""
        context = ForwardContext.seeded(temperature, seed=self.config.seed, number=number, world=self.world)
        crops = crops.map(lambda group: self.normalize(group.to(self.device, non_blocking=True)))
        with autocast(self.device, self.precision):
            return self.model(crops, context)

    def _teacher_temperature(self, step: int) -> float:
        if not isinstance(self.config.objective, PrototypeSettings):
            return 0.0
        first, last = self.config.objective.teacher_temperature
        rise = self.effective.teacher_temperature_iterations
        return linear_then_constant(step, start=first, end=last, num_steps=rise)

    @torch.no_grad()
    def _update_teacher(self, momentum: float) -> None:
        """Move every weight of the teacher towards the student: t = momentum * t + (1 - momentum) * s."""
        teacher, student = (
            [local_tensor(p) for p in n.parameters()] for n in (self.objective.teacher, self.objective.student)
        )
        torch._foreach_lerp_(teacher, student, 1 - momentum)


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
