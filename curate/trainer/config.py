"""Settings of a training run, with DINOv2's values as defaults where it has one. Importing this costs no torch."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from curate.config import Execution, Settings, refuse_url
from curate.feed.settings import CropSettings, FeedSettings, Range
from curate.models.device import PrecisionChoice
from curate.models.nets.config import DEFAULT_PATCH, PRESETS, ViTConfig, vit_config
from curate.trainer.objectives import AnyObjective
from curate.trainer.objectives.settings import AutoCount, DinoV2Settings
from curate.trainer.phase_checks import check_phases, end_of_phases
from curate.trainer.phase_settings import PhaseSettings

if TYPE_CHECKING:
    import torch

    from curate.models.nets.trained import Trained


Preset = Literal[
    "tiny",
    "small",
    "base",
    "large",
    "giant",
    "dinov3_tiny",
    "dinov3_small",
    "dinov3_small_plus",
    "dinov3_base",
    "dinov3_large",
    "dinov3_huge_plus",
    "dinov3_7b",
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
    "convnext_large",
]
"""Architectures by name."""


OWN_FIELDS = (
    "patch_size",
    "num_registers",
    "ffn",
    "ffn_hidden",
    "depth",
    "dim",
    "heads",
    "positions",
    "rope_rescale",
    "rope_jitter",
    "rope_shift",
    "rope_dtype",
    "qkv_bias",
    "local_norm",
    "norm_eps",
    "interpolate_offset",
    "interpolate_antialias",
)
"""Fields of `ModelSettings` that change a ViT's preset where they are set."""


class ModelSettings(Settings):
    """The backbone: a preset, and changes of it."""

    timm: str | None = None
    """Name of a timm architecture that takes the ViT's place, such as swin_tiny_patch4_window7_224, for objectives
    without masks; of the fields below only timm_kwargs, outputs, batch_norm, token_size and drop_path apply to it.
    null: the preset."""
    timm_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of `timm.create_model` for that architecture, such as {window_size: 14}."""
    outputs: int | None = Field(default=None, ge=1)
    """Width of a linear layer after pooling with which that architecture ends: CLIP's projection into the space of
    texts, of a tower of open_clip that is continued. null: none."""
    batch_norm: Literal["auto", "batch", "frozen"] = "auto"
    """Statistics by which that architecture's batch norms normalize in training: those of the batch of each process,
    whose running averages teacher and exports have (batch); or those of the given weights for good, whatever the batch
    (frozen), while scales and shifts learn. auto: frozen with `init_from`, else batch."""
    preset: Preset = "small"
    """Preset of width, depth and heads: DINOv2's ViT-Ti, -S, -B, -L and -g; DINOv3's ViT-S, -S+, -B, -L, -H+ and -7B
    with patches of 16 px, four registers and rotary positions (dinov3_tiny has no released model); or a ConvNeXt of
    timm, to which the same fields apply as to `timm`."""
    patch_size: int | None = Field(default=None, ge=1)
    """Side of a patch in pixels, a divisor of both crop sizes; null: the preset's, which is 14, of DINOv3's models
    16."""
    token_size: int | None = Field(default=None, ge=1)
    """Side in pixels of the patches to whose grid the last map of a ConvNeXt or another timm model is resized: that of
    the teacher's patches where a ViT is distilled. null: the map stays as it is."""
    num_registers: int | None = Field(default=None, ge=0)
    """Number of register tokens; the released models with registers have 4. null: the preset's, which is 0, of DINOv3's
    models 4."""
    ffn: Literal["mlp", "swiglu"] | None = None
    """Kind of feed-forward layer: a GELU MLP, or SwiGLU, with which DINOv2 trains ViT-L from scratch; null: the
    preset's, which is SwiGLU for giant, small_plus, huge_plus and 7b."""
    ffn_hidden: int | None = Field(default=None, ge=1)
    """Width inside the feed-forward layer; null: the preset's, or 4 x dim, of SwiGLU 8/3 x dim."""
    positions: Literal["learned", "rotary"] | None = None
    """Positions as stored embeddings (DINOv2), or as rotations of queries and keys (DINOv3); null: the preset's."""
    rope_rescale: float | None = Field(default=None, ge=1.0)
    """Rotary positions: the student's coordinates are multiplied by a factor drawn log-uniformly from 1/r to r, anew in
    every block and group of crops, 1: none; null: the preset's, which is 2."""
    rope_jitter: float | None = Field(default=None, ge=1.0)
    """The same, drawn for each axis; null: none, as in the released models."""
    rope_shift: float | None = Field(default=None, ge=0.0)
    """A shift of each axis drawn from [-s, s], where an image spans [-1, 1]; null: none, as in the released models."""
    rope_dtype: Literal["fp32", "bf16"] | None = None
    """Precision of the rotations in a bf16 run: fp32 in DINOv3's 7B, bf16 in its ViT-L; null: fp32."""
    qkv_bias: Literal["full", "masked", "none"] | None = None
    """Bias of queries, keys and values: of all three (DINOv2), with the third of the keys held at 0 (DINOv3), or none
    (its 7B); null: the preset's."""
    local_norm: bool | None = None
    """Whether cls and registers of local crops have a final norm of their own, in training alone; null: the preset's,
    which is true for 7b."""
    norm_eps: float | None = Field(default=None, gt=0.0, le=1.0)
    """Added to the variance in every layer norm; null: the preset's, which is 1e-6, of DINOv3's models 1e-5."""
    interpolate_offset: float | None = None
    """Patches added to the side of the wanted grid where positions are resampled; null: 0.1 without registers, else
    0."""
    interpolate_antialias: bool | None = None
    """Whether that resampling is antialiased, as in timm; null: only with registers."""
    depth: int | None = Field(default=None, ge=1)
    """Number of blocks; null: the preset's."""
    dim: int | None = Field(default=None, ge=1)
    """Width of a token, a multiple of `heads`; null: the preset's."""
    heads: int | None = Field(default=None, ge=1)
    """Number of attention heads; null: the preset's."""
    drop_path: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Rate of the student's stochastic depth: 0.3 in the short recipe, 0.4 in the long one."""
    layer_scale: float = Field(default=1e-5, gt=0.0)
    """Initial value of LayerScale; small models on short runs learn faster with 0.1 to 1."""
    position_size: int | None = Field(default=None, ge=1)
    """Side in pixels of the images for whose grid of patches position embeddings are stored: 518 in the released
    models; null: that of the global crops."""

    @property
    def tower(self) -> str | None:
        """Name of the timm architecture, of `timm` or of the preset; None: a ViT of ours."""
        return self.preset if self.timm is None and self.preset.startswith("convnext_") else self.timm

    @property
    def side(self) -> int:
        """Side of a patch of a ViT, pixels."""
        return self.patch_size or int(PRESETS[self._vit_preset].get("patch_size", DEFAULT_PATCH))

    @property
    def _vit_preset(self) -> str:
        return self.preset if self.preset.startswith("dinov3_") else f"vit_{self.preset}"

    def vit(self, image_size: int) -> ViTConfig:
        """The architecture for global crops of `image_size` pixels."""
        changes: dict[str, Any] = {
            "image_size": self.position_size or image_size,
            "drop_path_rate": self.drop_path,
            "layer_scale_init": self.layer_scale,
        }
        own = {name: getattr(self, name) for name in OWN_FIELDS}
        changes |= {name: value for name, value in own.items() if value is not None}
        return vit_config(self._vit_preset, **changes)

    def build(self, image_size: int, *, generator: "torch.Generator") -> "Trained":
        """The backbone with fresh weights drawn from `generator`."""
        from curate.models.nets.tower import TimmTower, tower_config
        from curate.models.nets.vit import VisionTransformer

        if self.tower is not None:
            kwargs = {"drop_path_rate": self.drop_path} | self.timm_kwargs
            own = {"image_size": image_size, "token_size": self.token_size, "outputs": self.outputs}
            config = tower_config(self.tower, **own, **kwargs)
            return TimmTower(config, generator=generator)
        return VisionTransformer(self.vit(image_size), generator=generator)


Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class OptimizerSettings(Settings):
    """AdamW, and the schedules of learning rate and weight decay."""

    base_lr: Literal["auto"] | Annotated[float, Field(gt=0.0)] = "auto"
    """Peak learning rate at batch size `lr_batch`: 4e-3 in the short recipe, 2e-4 in the long one; auto: between these,
    by the number of images."""
    lr_batch: int = Field(default=1024, ge=1)
    """Batch size at which the peak learning rate is `base_lr`: 1024 in DINOv2, 256 in DINO, 64 in DINOv3, whose rule
    4 sqrt(B / 1024) is sqrt(B / 64)."""
    lr_scaling: Literal["sqrt", "linear"] = "sqrt"
    """How the learning rate grows with batch_size / lr_batch: with its square root, or in proportion."""
    final_lr: float = Field(default=1e-6, ge=0.0)
    """Learning rate at the end of the cosine schedule."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up: cosine, to `final_lr` and to the last weight decay at the end of the run, as in DINOv2;
    or constant learning rate and first weight decay, as in DINOv3, in a run that can be made longer at any time and
    cooled down by a last phase."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay rates of AdamW's first and second moment; 0.9 and 0.99 in DINOv3."""
    warmup_iterations: AutoCount = "auto"
    """Iterations of linear warm-up: 12500 in the short recipe, 100000 in the long one; auto: 10 % of the run."""
    weight_decay: Range = (0.04, 0.2)
    """First and last value of the weight decay, which follows a cosine; the last is 0.4 in the short recipe, 0.2 in the
    long one. With `schedule: constant` the first stays."""
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """Layer-wise decay: a factor on the learning rate for each block further from the output; 0.9 in the short recipe,
    1.0 in the long one."""
    patch_embed_lr: float = Field(default=0.2, ge=0.0)
    """Factor on the learning rate of the patch embedding, that of timm's transformers too."""
    clip_norm: float = Field(default=3.0, gt=0.0)
    """Largest norm of gradients; larger ones are scaled down to it."""
    clip_by: Literal["network", "parameter"] = "network"
    """Whether the norm is that of the backbone and of each head (network, as in DINOv2) or of each parameter
    (parameter, as in DINO)."""
    freeze_backbone_iterations: int = Field(default=0, ge=0)
    """Number of first iterations in which the heads alone learn, to warm up fresh heads on a pretrained backbone."""
    backbone_warmup_iterations: int = Field(default=0, ge=0)
    """Iterations over which the backbone's learning rate then rises from 0 to the heads', so that the jump of its first
    steps does not undo what it was started from; 0: at once."""
    freeze_last_layer_iterations: AutoCount = "auto"
    """Number of first iterations in which the prototypes do not learn: 1250 in DINOv2; auto: 1 % of the run."""


class LoraSettings(Settings):
    """Low-rank adapters, Hu et al. 2021, arXiv:2106.09685."""

    rank: int = Field(default=8, ge=1)
    """Rank of the change of a matrix."""
    alpha: float = Field(default=16.0, gt=0.0)
    """Strength: the change is multiplied by alpha / rank."""


class EmaSettings(Settings):
    """The teacher's exponential moving average (EMA) of the student; its momentum starts at
    `objective.teacher_momentum`."""

    end: Literal["constant"] | Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """Momentum at the end of the run, to which half a cosine leads: 1 in DINOv2; constant: it stays that of the start,
    as in DINOv3."""


class StudentSettings(Settings):
    """A student that is distilled beside the first one, with heads, moments and an average of its own."""

    model: ModelSettings
    """Architecture of its backbone, with as many tokens a crop as the teacher."""
    init_from: str | None = None
    """Weights that it starts from, as `init_from` of the run; null: fresh ones."""
    init_weights: str | None = None
    """Weight file of the model that `init_from` names, as `init_weights` of the run."""
    every: Literal["cost"] | Annotated[int, Field(ge=1)] = 1
    """It sees one image in so many of each pass, all crops of it; a divisor of a process's images. cost: so many that
    it costs about as much as the cheapest student, at most that power of two; 1: all images, as published."""


StudentName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,39}$")]


class TrainSettings(Settings):
    """How a backbone is pretrained, wherever the shards lie."""

    model: ModelSettings = ModelSettings()
    """Architecture of the backbone."""
    crops: CropSettings = CropSettings()
    """Multi-crop and augmentations."""
    objective: AnyObjective = DinoV2Settings()
    """Losses, targets and teacher: the name of an objective (dinov2, dinov3, dino, esvit, sit, distill_features,
    lejepa, diet, or one of your own as my_package.module:MySettings or ./my_file.py:MySettings), or a block of its
    settings whose `kind` is that name."""
    students: dict[StudentName, StudentSettings] = Field(default_factory=dict)
    """Students that are distilled from the same teacher in the same run, by name, beside the one of `model`: the
    teacher runs once for all. Each is trained as if it were alone, and exported under students/NAME/."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Learning rate, weight decay, clipping."""
    ema: EmaSettings = EmaSettings()
    """The teacher's moving average."""
    phases: tuple[PhaseSettings, ...] = ()
    """Stretches of the run with schedules, Gram anchoring and sizes of crops of their own, in order; empty: the run is
    one."""
    init_from: str | None = None
    """Backbone that student and teacher start from: an export, a weight file in the format of torch.hub, timm or
    Hugging Face, or a model id such as dinov2_vits14, timm/NAME, open_clip/ARCH:TAG or lite0. Position embeddings are
    resampled to the grid. null: fresh weights."""
    init_weights: str | None = None
    """Path or https URL of the weights of the model that `init_from` names; null: from the model hub, or packaged."""
    init_heads: str | None = None
    """The heads.safetensors of the training to continue; null: fresh heads."""
    heads: Literal["fresh", "warm-up"] = "fresh"
    """What happens to a backbone of `init_from` under fresh heads: it learns from the start, or after
    `optimizer.freeze_backbone_iterations` (fresh); or it stands still until the loss of the heads has settled, and its
    learning rate then rises over as many iterations (warm-up)."""
    last_blocks: int | None = Field(default=None, ge=1)
    """Number of last blocks of the backbone that learn, with the norm after them; null: all of it."""
    lora: LoraSettings | None = None
    """Low-rank changes of the backbone's matrices, of `last_blocks` or of all, which learn in their place; an export
    holds the sums. null: the matrices themselves learn."""
    batch_size: int = Field(default=64, ge=1)
    """Number of images of an iteration, of all processes together."""
    accumulate: int = Field(default=1, ge=1)
    """Number of passes over which the gradients of an iteration are accumulated; targets and KoLeo look at the images
    of one pass."""
    export_size: int | None = Field(default=None, ge=1)
    """Side of the pictures that exports embed and that `evaluation` shows, pixels; null: that of the global crops, or
    of the pictures that the backbone of `init_from` embeds where those are larger and the network takes both."""
    iterations: int = Field(default=125_000, ge=1)
    """Number of optimizer steps of the run, to which all schedules stretch; where the last of `phases` says its end,
    that. A run whose schedules are constant so far may be made longer or shorter when it is resumed."""
    precision: PrecisionChoice = "auto"
    """Precision of the forward and backward pass, while weights stay float32; auto: bf16 where the processor or GPU is
    faster with it."""
    shuffle_window: int = Field(default=8192, ge=1)
    """Number of samples that are shuffled together, whose encoded bytes are held in memory; row groups are shuffled
    among such windows."""
    feed: FeedSettings = FeedSettings()
    """Weights of clusters and sources, batches of one source or over all clusters, and damaged images."""
    device: Annotated[str, Execution()] = "auto"
    """Device to train on: cpu, cuda, cuda:1, and so on; auto: cuda where there is a GPU."""
    workers: Annotated[int, Field(ge=0), Execution()] = 2
    """Number of threads or processes that decode and crop ahead of the model; 0: it is done between iterations."""
    worker_kind: Annotated[Literal["thread", "process"], Execution()] = "thread"
    """Kind of these workers: threads start at once and suit few cores; processes suit a GPU, but cannot be started from
    a Dask worker."""
    parallel: Annotated[Literal["ddp", "fsdp"], Execution()] = "ddp"
    """How processes started by torchrun share the model: a replica on each (DDP), or shards of its weights (FSDP2)."""
    compile: Annotated[bool, Execution()] = False
    """Whether torch.compile makes the kernels of every block."""
    activation_checkpointing: Annotated[bool, Execution()] = False
    """Whether activations of the student's blocks are computed again in the backward pass, which takes less memory and
    a third more time."""
    checkpoint_every: Annotated[int, Field(ge=1), Execution()] = 1000
    """Iterations between checkpoints; the last iteration always writes one."""
    keep: Annotated[int, Field(ge=1), Execution()] = 3
    """Number of newest checkpoints that are kept."""
    log_every: int = Field(default=10, ge=1)
    """Iterations between rows of the log."""
    wandb: Annotated[str | None, Execution()] = None
    """Project of Weights & Biases that gets the log too, which needs the extra `wandb`; null: none."""
    evaluate_every: int = Field(default=0, ge=0)
    """Iterations between evaluations of the teacher by the function given to `train`; 0: never."""

    @model_validator(mode="before")
    @classmethod
    def _end_with_the_phases(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("phases") and "iterations" not in values:
            end = end_of_phases(values["phases"])
            return values if end is None else values | {"iterations": end}
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainSettings":
        check_phases(self)
        for model in (self.model, *(student.model for student in self.students.values())):
            self._check_model(model)
        if self.heads == "warm-up" and self.init_from is None:
            raise ValueError("heads=warm-up lets a backbone stand still under fresh heads; set init_from to one")
        begun: list[TrainSettings | StudentSettings] = [self, *self.students.values()]
        if any(one.init_weights is not None and one.init_from is None for one in begun):
            raise ValueError("init_weights are those of the model that init_from names; set init_from to its id")
        if self.students and getattr(self.objective, "distill_from", None) is None:
            raise ValueError("students are distilled from one teacher; set objective.distill_from, or leave them out")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}")
        self.objective.check(self)
        return self

    def _check_model(self, model: ModelSettings) -> None:
        for name in ("global_size", "local_size") if self.crops.num_local > 0 else ("global_size",):
            side = getattr(self.crops, name)
            if model.tower is None and side % model.side:
                raise ValueError(f"crops.{name} {side} is not a multiple of patch_size {model.side}")
        if self.export_size is not None and model.tower is None and self.export_size % model.side:
            raise ValueError(f"export_size {self.export_size} is not a multiple of patch_size {model.side}")
        if model.tower is not None and self._masks_patches:
            named = f"model.timm={model.timm}" if model.timm else f"model.preset={model.preset}"
            raise ValueError(
                f"{named} has no mask token; train it with objective=lejepa, dino, esvit or distill_features, or "
                "distill it (objective.distill_from)"
            )
        if model.tower is None and model.vit(self.crops.global_size).local_norm and self.crops.num_local == 0:
            raise ValueError("model.local_norm is the norm of local crops, and crops.num_local is 0; set one of both")

    @property
    def _masks_patches(self) -> bool:
        return self.objective.needs_masks and getattr(self.objective, "distill_from", None) is None

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
    """Parquet shards: the workdir of a run, a folder, a file, or a pattern such as runs/a/shards/data/*.parquet; each
    may be an fsspec URL."""
    output: str
    """Folder for checkpoints, the log and exports; on a disk or a shared file system, no URL."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, order, crops, masks and stochastic depth."""

    @field_validator("output")
    @classmethod
    def _is_local(cls, output: str) -> str:
        refuse_url(output, setting="output")
        return output
