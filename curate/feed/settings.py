"""What the feed can be told: which samples, in which order and weight, and how they are cropped."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from curate.config import Execution, Settings

Range = tuple[float, float]
ClusterPath = Annotated[str, BeforeValidator(str), Field(pattern=r"^\d+(/\d+)*$")]  # YAML reads 3 as a number
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


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


class FeedSettings(Settings):
    """Which images are shown how often, in which company, and what damaged ones do."""

    cluster_weights: dict[ClusterPath, Weight] = Field(default={})
    """Factor on the repeats of the images below a cluster, by its path from the root, such as 3 or 3/7 (the longest
    that fits); 1 elsewhere. Fractions hold over epochs: 0.25 shows an image in every fourth one."""
    source_weights: dict[str, Weight] = Field(default={})
    """Factor on the repeats of the images of a source, 1 elsewhere; multiplies with `cluster_weights`."""
    homogeneous_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the batches that show one source alone; 0.1 in DINOv3. Each reads `shuffle_window` samples of its source
    at a time, so a source that is rare in every row group costs many reads."""
    homogeneous_sources: tuple[str, ...] = ()
    """The sources of such batches, drawn by their samples; empty: all."""
    on_damaged: Annotated[Literal["error", "skip"], Execution()] = "error"
    """What a damaged shard or image does: end the training, or be left out (shards) or replaced (images), counted."""
