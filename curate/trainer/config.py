"""Everything that a training run can be told, with DINOv2's values as defaults where it has one."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from curate.config import Execution, Settings
from curate.feed.settings import CropSettings, FeedSettings, Range
from curate.models.device import PrecisionChoice
from curate.trainer.objectives import AnyObjective
from curate.trainer.objectives.settings import AutoCount, DinoV2Settings

if TYPE_CHECKING:
    import torch

    from curate.models.nets.config import ViTConfig
    from curate.models.nets.trained import Trained


class ModelSettings(Settings):
    """The backbone: a preset and what is changed in it."""

    timm: str | None = None
    """A timm architecture in the ViT's place, such as swin_tiny_patch4_window7_224, for objectives without masks; of
    the fields below only timm_kwargs and drop_path hold for it."""
    timm_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Changes of that architecture, as `timm.create_model` takes them, such as {window_size: 14}."""
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
    dim: int | None = Field(default=None, ge=1)
    """Width of a token, a multiple of the heads; null: the preset's."""
    heads: int | None = Field(default=None, ge=1)
    """Attention heads; null: the preset's."""
    drop_path: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Stochastic depth of the student: 0.3 short recipe, 0.4 long."""
    layer_scale: float = Field(default=1e-5, gt=0.0)
    """Start of the LayerScale gammas; small models on short runs learn faster from 0.1 to 1."""
    position_size: int | None = Field(default=None, ge=1)
    """Image side of the stored grid of positions, pixels; null: the global crop's. Released models: 518."""

    def vit(self, image_size: int) -> "ViTConfig":
        """The architecture for global crops of `image_size` pixels."""
        from curate.models.nets.config import vit_config

        changes: dict[str, Any] = {
            "patch_size": self.patch_size,
            "num_registers": self.num_registers,
            "image_size": self.position_size or image_size,
            "drop_path_rate": self.drop_path,
            "layer_scale_init": self.layer_scale,
        }
        own = {"ffn": self.ffn, "depth": self.depth, "dim": self.dim, "heads": self.heads}
        changes |= {name: value for name, value in own.items() if value is not None}
        return vit_config(f"vit_{self.preset}", **changes)

    def build(self, image_size: int, *, generator: "torch.Generator") -> "Trained":
        """The backbone with fresh weights drawn from `generator`."""
        from curate.models.nets.tower import TimmTower, tower_config
        from curate.models.nets.vit import VisionTransformer

        if self.timm is not None:
            kwargs = {"drop_path_rate": self.drop_path} | self.timm_kwargs
            return TimmTower(tower_config(self.timm, image_size=image_size, **kwargs), generator=generator)
        return VisionTransformer(self.vit(image_size), generator=generator)


class OptimizerSettings(Settings):
    """AdamW (0.9, 0.999) with DINOv2's schedules."""

    base_lr: Literal["auto"] | Annotated[float, Field(gt=0.0)] = "auto"
    """Learning rate at batch `lr_batch`: 4e-3 short recipe, 2e-4 long; auto: between these by the number of images."""
    lr_batch: int = Field(default=1024, ge=1)
    """Batch size at which the learning rate is `base_lr`: 1024 in DINOv2, 256 in DINO."""
    lr_scaling: Literal["sqrt", "linear"] = "sqrt"
    """How the learning rate grows with batch_size / lr_batch."""
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
    """Largest gradient norm."""
    clip_by: Literal["network", "parameter"] = "network"
    """What is clipped on its own: backbone and each head (DINOv2), or each parameter (DINO)."""
    freeze_backbone_iterations: int = Field(default=0, ge=0)
    """Iterations in which only the heads learn: warms up fresh heads on a pretrained backbone."""
    freeze_last_layer_iterations: AutoCount = "auto"
    """Iterations with learning rate 0 for the prototypes: 1250 in DINOv2; auto: 1 % of the run."""


class TrainSettings(Settings):
    """How a backbone is pretrained, wherever its shards lie."""

    model: ModelSettings = ModelSettings()
    """The backbone."""
    crops: CropSettings = CropSettings()
    """Views of an image."""
    objective: AnyObjective = DinoV2Settings()
    """Losses, targets, teacher; `dinov2`, or the name of another objective, or a block whose `kind` names it."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Learning rate, weight decay, clipping."""
    init_from: str | None = None
    """Weights to start from, of student and teacher: an export, a weight file in torch.hub's, timm's or Hugging Face's
    format, or a model id such as dinov2_vits14; positions are resampled to the grid. null: fresh weights."""
    init_heads: str | None = None
    """heads.safetensors of the training to go on with; null: fresh heads."""
    batch_size: int = Field(default=64, ge=1)
    """Images an iteration, of all processes together."""
    accumulate: int = Field(default=1, ge=1)
    """Passes that make one iteration; targets and KoLeo look at the images of one pass."""
    iterations: int = Field(default=125_000, ge=1)
    """Optimiser steps in all; all schedules stretch to it."""
    precision: PrecisionChoice = "auto"
    """Of the forward and backward pass, weights stay float32; auto: bf16 where the processor or GPU has it."""
    shuffle_window: int = Field(default=8192, ge=1)
    """Samples shuffled together; their encoded bytes are held in memory. Row groups are shuffled among windows."""
    feed: FeedSettings = FeedSettings()
    """Weights of clusters and sources, batches of one source, damaged images."""
    device: Annotated[str, Execution()] = "auto"
    """cpu, cuda, cuda:1, ...; auto: cuda where there is one."""
    workers: Annotated[int, Field(ge=0), Execution()] = 2
    """Threads or processes that decode and crop ahead of the model; 0: in between steps."""
    worker_kind: Annotated[Literal["thread", "process"], Execution()] = "thread"
    """Threads start at once and suit few cores; processes suit a GPU, but cannot be started from a Dask worker."""
    parallel: Annotated[Literal["ddp", "fsdp"], Execution()] = "ddp"
    """How processes started by torchrun share the model: whole on each, or in shards (FSDP2)."""
    compile: Annotated[bool, Execution()] = False
    """torch.compile every block."""
    activation_checkpointing: Annotated[bool, Execution()] = False
    """Compute activations of the student's blocks again in the backward pass: less memory, a third more time."""
    checkpoint_every: Annotated[int, Field(ge=1), Execution()] = 1000
    """Iterations between checkpoints; the last iteration always makes one."""
    keep: Annotated[int, Field(ge=1), Execution()] = 3
    """Newest checkpoints kept."""
    log_every: int = Field(default=10, ge=1)
    """Iterations between rows of the log."""
    wandb: Annotated[str | None, Execution()] = None
    """Project of Weights & Biases that gets the log too (extra `wandb`); null: none."""
    evaluate_every: int = Field(default=0, ge=0)
    """Iterations between evaluations of the teacher by the function given to `train`; 0: never."""

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainSettings":
        for name in ("global_size", "local_size") if self.crops.num_local > 0 else ("global_size",):
            side = getattr(self.crops, name)
            if self.model.timm is None and side % self.model.patch_size:
                raise ValueError(f"crops.{name} {side} is not a multiple of patch_size {self.model.patch_size}")
        if self.model.timm is not None and (self.objective.needs_masks or self.optimizer.layer_decay < 1):
            raise ValueError(
                f"model.timm={self.model.timm} has no mask token and no even row of blocks; train it with "
                "objective=dino or esvit and optimizer.layer_decay=1"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}")
        self.objective.check(self)
        return self

    @property
    def images_per_pass(self) -> int:
        """Images of one forward pass, of all processes together."""
        return self.batch_size // self.accumulate

    def is_due(self, done: int, every: int) -> bool:
        """Whether what comes `every` so many iterations, and after the last, comes after `done` of them; 0: never."""
        return every > 0 and (done % every == 0 or done == self.iterations)

    def is_logged(self, done: int) -> bool:
        """Whether the log gets a row after `done` iterations."""
        return self.is_due(done, self.log_every) or self.is_due(done, self.evaluate_every)


class TrainConfig(TrainSettings):
    """One pretraining run."""

    shards: str
    """Parquet shards: a folder, a file, or a pattern such as runs/a/shards/data/*.parquet; fsspec URLs too."""
    output: str
    """Folder for checkpoints, log and exports."""
    seed: int = Field(default=0, ge=0)
    """Of weights, order, crops, masks and stochastic depth."""
