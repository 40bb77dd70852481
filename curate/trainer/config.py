"""Everything that a training run can be told, with DINOv2's values as defaults where it has one."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from curate.config import Execution, Settings
from curate.errors import ConfigError
from curate.models.device import PrecisionChoice
from curate.models.vit import ViTConfig, vit_config

AutoCount = Literal["auto"] | Annotated[int, Field(ge=0)]
Range = tuple[float, float]


class ModelSettings(Settings):
    """The backbone: a preset and what is changed in it."""

    preset: Literal["tiny", "small", "base", "large", "giant"] = "small"
    """Width, depth and heads: ViT-Ti, S, B, L or g."""
    patch_size: int = Field(default=14, ge=1)
    """Side of a patch, pixels; divides both crop sizes."""
    num_registers: int = Field(default=0, ge=0)
    """Register tokens; 4 where used."""
    ffn: Literal["mlp", "swiglu"] | None = None
    """Feed-forward layer; null: the preset's (SwiGLU for giant). ViT-L from scratch uses swiglu."""
    depth: int | None = Field(default=None, ge=1)
    """Blocks; null: the preset's."""
    drop_path: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Stochastic depth of the student: 0.3 short recipe, 0.4 long."""
    layer_scale: float = Field(default=1e-5, gt=0.0)
    """Start of the LayerScale gammas; small models on short runs learn faster from 0.1 to 1."""
    position_size: int | None = Field(default=None, ge=1)
    """Image side of the stored grid of positions, pixels; null: the global crop's. Released models: 518."""

    def vit(self, image_size: int) -> ViTConfig:
        """The architecture for global crops of `image_size` pixels."""
        changes: dict[str, Any] = {
            "patch_size": self.patch_size,
            "num_registers": self.num_registers,
            "image_size": self.position_size or image_size,
            "drop_path_rate": self.drop_path,
            "layer_scale_init": self.layer_scale,
        }
        changes |= {k: v for k, v in {"ffn": self.ffn, "depth": self.depth}.items() if v is not None}
        return vit_config(f"vit_{self.preset}", **changes)


class CropSettings(Settings):
    """Multi-crop and its augmentations."""

    global_size: int = Field(default=224, ge=1)
    """Side of a global crop, pixels."""
    global_scale: Range = (0.32, 1.0)
    """Share of the image's area that a global crop shows, 0..1."""
    local_size: int = Field(default=98, ge=1)
    """Side of a local crop, pixels."""
    local_scale: Range = (0.05, 0.32)
    """Share of the image's area that a local crop shows, 0..1."""
    num_local: int = Field(default=8, ge=0)
    """Local crops an image."""
    aspect: Range = (3 / 4, 4 / 3)
    """Width / height of the cropped area."""
    flip_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    """Of a horizontal flip; 0 where mirror images differ in meaning, as with digits."""
    jitter_probability: float = Field(default=0.8, ge=0.0, le=1.0)
    """Of colour jitter."""
    brightness: float = Field(default=0.4, ge=0.0, le=1.0)
    """Jitter: factor in 1 -+ this."""
    contrast: float = Field(default=0.4, ge=0.0, le=1.0)
    """Jitter: factor in 1 -+ this."""
    saturation: float = Field(default=0.2, ge=0.0, le=1.0)
    """Jitter: factor in 1 -+ this."""
    hue: float = Field(default=0.1, ge=0.0, le=0.5)
    """Jitter: turn of the hue, in 1/360 degrees, 0..0.5."""
    gray_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Of greyscale."""
    blur: Literal["released", "paper", "none"] = "released"
    """Blur probability of global 1 / global 2 / local: released models 0.0 / 0.9 / 0.5, paper 1.0 / 0.1 / 0.5."""
    blur_sigma: Range = (0.1, 2.0)
    """Standard deviation of the blur, pixels."""
    solarize_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Of solarising above 128, on the second global crop only."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from channels in 0..1."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divides channels after `mean`."""

    @model_validator(mode="after")
    def _ordered(self) -> "CropSettings":
        for name in ("global_scale", "local_scale", "aspect", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is [{low}, {high}]; needed: 0 < first <= second")
        return self


class ObjectiveSettings(Settings):
    """DINO + iBOT + KoLeo."""

    prototypes: Literal["auto"] | Annotated[int, Field(ge=2)] = "auto"
    """Outputs of a head: 65536 short recipe, 131072 long; auto: by the number of images."""
    tied_heads: bool = False
    """One head for DINO and iBOT (short recipe), or two (long)."""
    head_hidden: int = Field(default=2048, ge=1)
    """Width of the head's hidden layers."""
    head_bottleneck: int = Field(default=256, ge=1)
    """Width before the prototypes."""
    centering: Literal["sinkhorn", "softmax"] = "sinkhorn"
    """How the teacher's scores become targets: sinkhorn (long recipe) or softmax with a running centre."""
    student_temperature: float = Field(default=0.1, gt=0.0)
    """Of the student's softmax."""
    teacher_temperature: Range = (0.04, 0.07)
    """Of the teacher: first and last value of a linear rise."""
    teacher_temperature_iterations: AutoCount = "auto"
    """Length of that rise: 37500 in DINOv2; auto: 30 % of the run."""
    teacher_momentum: Literal["auto"] | Annotated[float, Field(ge=0.0, lt=1.0)] = "auto"
    """EMA at the start, going to 1 by a cosine: 0.992 short, 0.994 long; auto: lower in runs below 2500 its."""
    dino_weight: float = Field(default=1.0, ge=0.0)
    """Of the loss between crops."""
    ibot_weight: float = Field(default=1.0, ge=0.0)
    """Of the loss on masked patches."""
    koleo_weight: float = Field(default=0.1, ge=0.0)
    """Of the spreading of features within a batch."""
    masked_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the global crops that are masked."""
    mask_ratio: Range = (0.1, 0.5)
    """Share of patches masked in a masked crop."""


class OptimizerSettings(Settings):
    """AdamW (0.9, 0.999) with DINOv2's schedules."""

    base_lr: float = Field(default=2e-4, gt=0.0)
    """Learning rate at batch 1024, scaled by sqrt(batch / 1024): 4e-3 short recipe, 2e-4 long."""
    final_lr: float = Field(default=1e-6, ge=0.0)
    """Learning rate at the end of the cosine."""
    warmup_iterations: AutoCount = "auto"
    """Linear warm-up: 12500 short, 100000 long; auto: 10 % of the run."""
    weight_decay: Range = (0.04, 0.2)
    """First and last value of a cosine: last is 0.4 short, 0.2 long."""
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """Factor on the learning rate for each block further from the output: 0.9 short, 1.0 long."""
    patch_embed_lr: float = Field(default=0.2, ge=0.0)
    """Factor on the learning rate of the patch embedding."""
    clip_norm: float = Field(default=3.0, gt=0.0)
    """Largest gradient norm, of backbone, DINO head and iBOT head each."""
    freeze_last_layer_iterations: AutoCount = "auto"
    """Iterations with learning rate 0 for the prototypes: 1250 in DINOv2; auto: 1 % of the run."""


class TrainSettings(Settings):
    """How a backbone is pretrained, wherever its shards lie."""

    model: ModelSettings = ModelSettings()
    """The backbone."""
    crops: CropSettings = CropSettings()
    """Views of an image."""
    objective: ObjectiveSettings = ObjectiveSettings()
    """Losses, targets, teacher."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Learning rate, weight decay, clipping."""
    batch_size: int = Field(default=64, ge=1)
    """Images an iteration."""
    iterations: int = Field(default=125_000, ge=1)
    """Optimiser steps in all; all schedules stretch to it."""
    precision: PrecisionChoice = "auto"
    """Of the forward and backward pass, weights stay float32; auto: bf16 where the processor or GPU has it."""
    shuffle_window: int = Field(default=8192, ge=1)
    """Samples shuffled together; their encoded bytes are held in memory. Row groups are shuffled among windows."""
    device: Annotated[str, Execution()] = "auto"
    """cpu, cuda, cuda:1, ...; auto: cuda where there is one."""
    workers: Annotated[int, Field(ge=0), Execution()] = 2
    """Threads or processes that decode and crop ahead of the model; 0: in between steps."""
    worker_kind: Annotated[Literal["thread", "process"], Execution()] = "thread"
    """Threads start at once and suit few cores; processes suit a GPU, but cannot be started from a Dask worker."""
    checkpoint_every: Annotated[int, Field(ge=1), Execution()] = 1000
    """Iterations between checkpoints; the last iteration always makes one."""
    keep: Annotated[int, Field(ge=1), Execution()] = 3
    """Newest checkpoints kept."""
    log_every: int = Field(default=10, ge=1)
    """Iterations between rows of the log."""
    evaluate_every: int = Field(default=0, ge=0)
    """Iterations between evaluations of the teacher by the function given to `train`; 0: never."""

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainSettings":
        for name in ("global_size", "local_size"):
            side = getattr(self.crops, name)
            if side % self.model.patch_size:
                raise ValueError(f"crops.{name} {side} is not a multiple of patch_size {self.model.patch_size}")
        if self.batch_size < 2 and self.objective.koleo_weight > 0:
            raise ValueError("batch_size 1 has no nearest neighbour for KoLeo; set objective.koleo_weight=0")
        return self


class TrainConfig(TrainSettings):
    """One pretraining run."""

    shards: str
    """Parquet shards: a folder, a file, or a pattern such as runs/a/shards/data/*.parquet; fsspec URLs too."""
    output: str
    """Folder for checkpoints, log and exports."""
    seed: int = Field(default=0, ge=0)
    """Of weights, order, crops, masks and stochastic depth."""


class Effective(Settings):
    """What `auto` became, and what the numbers amount to."""

    num_images: int
    """Rows of the shards."""
    num_samples: int
    """Samples of an epoch: images times their repeats."""
    prototypes: int
    """Outputs of a head."""
    teacher_temperature_iterations: int
    """Length of the temperature's rise."""
    teacher_momentum: float
    """EMA at the start."""
    warmup_iterations: int
    """Length of the learning rate's rise."""
    freeze_last_layer_iterations: int
    """Iterations before the prototypes move."""
    learning_rate: float
    """Peak: base_lr * sqrt(batch_size / 1024)."""
    epochs: float
    """Times that every sample is shown."""
    images_seen: int
    """Samples over the whole run."""


def resolve(config: TrainConfig, *, num_images: int, num_samples: int) -> Effective:
    """Replace every `auto` by a number.

    Raises:
        ConfigError: the warm-up leaves no iteration for the cosine.
    """
    iterations, objective, optimizer = config.iterations, config.objective, config.optimizer
    warmup = _count(optimizer.warmup_iterations, iterations // 10)
    if warmup >= iterations:
        raise ConfigError(f"optimizer.warmup_iterations is {warmup} of {iterations} iterations; it must be smaller")
    momentum = objective.teacher_momentum
    return Effective(
        num_images=num_images,
        num_samples=num_samples,
        prototypes=_count(objective.prototypes, auto_prototypes(num_images)),
        teacher_temperature_iterations=_count(objective.teacher_temperature_iterations, iterations * 3 // 10),
        teacher_momentum=auto_momentum(iterations) if momentum == "auto" else momentum,
        warmup_iterations=warmup,
        freeze_last_layer_iterations=_count(optimizer.freeze_last_layer_iterations, iterations // 100),
        learning_rate=optimizer.base_lr * (config.batch_size / 1024) ** 0.5,
        epochs=iterations * config.batch_size / num_samples,
        images_seen=iterations * config.batch_size,
    )


def auto_prototypes(num_images: int) -> int:
    """Power of two nearest 58 sqrt(images), between 256 and 131072: 65536 at ImageNet-1k's 1.28 million."""
    exponent = round(math.log2(58 * num_images**0.5))
    return 2 ** min(max(exponent, 8), 17)


def auto_momentum(iterations: int) -> float:
    """0.992 for long runs; in short ones the teacher averages over 5 % of the run, so that it can follow."""
    return min(0.992, max(0.9, 1 - 20 / iterations))


def _count(value: Literal["auto"] | int, auto: int) -> int:
    return auto if value == "auto" else value
