"""Settings of the feed: which images are shown how often, and how they are cropped."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from curate.config import Execution, Settings
from curate.ops.images.bounds import MAX_DECODE_BYTES, MAX_SECONDS, Bounds, DecodeBytes, DecodeSeconds
from curate.ops.images.depth import SignificantBits

Range = tuple[float, float]
ClusterPath = Annotated[str, BeforeValidator(str), Field(pattern=r"^\d+(/\d+)*$")]  # YAML reads 3 as a number
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class CropSettings(Settings):
    """Multi-crop and its augmentations; defaults are DINOv2's."""

    global_size: int = Field(default=224, ge=1)
    """Side of a global crop in pixels."""
    global_scale: Range = (0.32, 1.0)
    """Smallest and largest share of the image's area that a global crop shows, in 0..1."""
    local_size: int = Field(default=98, ge=1)
    """Side of a local crop in pixels."""
    local_scale: Range = (0.05, 0.32)
    """Smallest and largest share of the image's area that a local crop shows, in 0..1."""
    num_local: int = Field(default=8, ge=0)
    """Number of local crops of an image."""
    aspect: Range = (3 / 4, 4 / 3)
    """Smallest and largest ratio of width to height of the cropped area."""
    flip_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability of a horizontal flip; 0 where mirror images differ in meaning, as with digits."""
    jitter_probability: float = Field(default=0.8, ge=0.0, le=1.0)
    """Probability of color jitter."""
    brightness: float = Field(default=0.4, ge=0.0, le=1.0)
    """Strength of the brightness jitter: a factor in 1 - this to 1 + this."""
    contrast: float = Field(default=0.4, ge=0.0, le=1.0)
    """Strength of the contrast jitter: a factor in 1 - this to 1 + this."""
    saturation: float = Field(default=0.2, ge=0.0, le=1.0)
    """Strength of the saturation jitter: a factor in 1 - this to 1 + this."""
    hue: float = Field(default=0.1, ge=0.0, le=0.5)
    """Strength of the hue jitter: the largest rotation of the hue, in full turns, 0..0.5."""
    gray_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Probability of grayscale."""
    blur: Literal["released", "paper", "none"] = "released"
    """Probability of blur of the first global, the second global and a local crop: 0.0, 0.9 and 0.5 in the released
    models, 1.0, 0.1 and 0.5 in the paper."""
    blur_sigma: Range = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur in pixels."""
    solarize_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Probability of solarizing, the inversion of values of 128 and above; on the second global crop only."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of the RGB channels in 0..1, which is subtracted."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Standard deviation of the RGB channels in 0..1, by which they are divided."""

    @model_validator(mode="after")
    def _ordered(self) -> "CropSettings":
        for name in ("global_scale", "local_scale", "aspect", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is [{low}, {high}]; needed: 0 < first <= second")
        return self


class FeedSettings(Settings):
    """How often each image is shown, which images share a batch, and what happens to damaged ones."""

    cluster_weights: dict[ClusterPath, Weight] = Field(default={})
    """Factor on the repeats of the images below a cluster, by the cluster's path from the root, such as 3 or 3/7. The
    longest path that fits an image counts; 1 without any. Fractions hold over epochs: 0.25 shows an image in every
    fourth one."""
    source_weights: dict[str, Weight] = Field(default={})
    """Factor on the repeats of the images of a source, by its name; 1 for others. It multiplies with
    `cluster_weights`."""
    homogeneous_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the batches that show images of one source alone; 0.1 in DINOv3. `shuffle_window` samples of the source
    are read at a time, so a source that is rare in every row group costs many reads."""
    homogeneous_sources: tuple[str, ...] = ()
    """Sources of such batches, drawn in proportion to their samples; empty: all sources."""
    stratify: int | None = Field(default=None, ge=1, le=32)
    """Level of the clusters, in steps of the path from the root, that batches cover as evenly as possible: 1 for the
    topmost clusters. How often an image is shown does not change. The samples of a `shuffle_window` are dealt to its
    batches, so a window should hold many of them. null: batches are drawn without regard to clusters."""
    significant_bits: SignificantBits = "auto"
    """Bits that the 16-bit samples of PNG and TIFF images use, 8..16: as `significant_bits` of the source that they
    were curated from, since shards hold the files as they are."""
    verify: Annotated[float, Field(ge=0.0, le=1.0), Execution()] = 0.01
    """Share of the images, drawn by seed and sample number, whose bytes are held against the `sha256` that their shard
    says, 0..1; in shards that curate wrote. Damage on the disk is found without it too: this finds what was wrong
    before a shard was written."""
    max_decode_bytes: DecodeBytes = MAX_DECODE_BYTES
    """Most bytes of memory that decoding an image takes, beside the bytes of the file; what takes more counts as
    damaged."""
    max_seconds: DecodeSeconds = 2 * MAX_SECONDS
    """Most seconds of CPU time that decoding an image takes; what takes more counts as damaged. Curation allows less,
    so that no image is accepted there and refused here by the clock of another machine."""
    on_damaged: Annotated[Literal["error", "skip"], Execution()] = "error"
    """What a damaged shard or image does: error ends the training; skip leaves the shard out or replaces the image, and
    counts it in the log."""

    @property
    def bounds(self) -> Bounds:
        """What decoding an image may cost."""
        return Bounds(max_decode_bytes=self.max_decode_bytes, max_seconds=self.max_seconds)
