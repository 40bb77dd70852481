"""Settings of the objectives, apart from their networks: reading a configuration imports no torch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from curate.config import Settings
from curate.feed.settings import Range
from curate.models.files.header import heads_beside
from curate.trainer.guide_settings import GuideSettings, check_guides

if TYPE_CHECKING:
    import torch

    from curate.models.nets.trained import Trained
    from curate.trainer.config import TrainSettings
    from curate.trainer.objective import Objective
    from curate.trainer.parallel import World

AutoCount = Literal["auto"] | Annotated[int, Field(ge=0)]


class ObjectiveSettings(Settings):
    """Base of every objective's settings: fields are what a configuration may set, and `build` makes the networks.

    An objective of your own is such a class beside a `curate.trainer.objective.Objective`, in any importable module or
    file; a configuration names it as `objective: {kind: my_package.module:MySettings, ...}`.
    """

    extensible: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = False
    """Whether patches are hidden behind the backbone's mask token, which timm models lack."""
    weighed: ClassVar[frozenset[str]] = frozenset()
    """The fields of `LossWeights` that the objective reads, which phases may change; `gram` stands for anchoring."""

    kind: str
    """Name of the objective: dinov2, dinov3, dino, esvit, sit, distill_features, lejepa, diet, or one of your own as
    module:class or ./file.py:class."""
    teacher_momentum: Literal["auto"] | Annotated[float, Field(ge=0.0, lt=1.0)] = "auto"
    """Momentum of the teacher's exponential moving average (EMA) at the start, from which a cosine leads to 1: 0.992 in
    the short recipe, 0.994 in the long one; auto: by the batch size, and lower in runs below 2500 iterations."""
    koleo_weight: float = Field(default=0.0, ge=0.0)
    """Weight of KoLeo, which spreads the features of a batch: 0.1 in DINOv2. The other papers have none; with small
    batches or short runs it keeps their features from collapsing."""
    koleo_group: int | None = Field(default=None, ge=2)
    """Number of images among which KoLeo finds neighbors, a divisor of the batch (in DINOv2 the images of one GPU);
    null: all of them."""
    guides: tuple[GuideSettings, ...] = ()
    """Columns of the shards that the features are to tell, such as organ, or to hide, such as scanner."""

    def build(
        self, backbone: "Trained", *, prototypes: int, world: "World", generator: "torch.Generator"
    ) -> "Objective":
        """The objective around `backbone`, as it is before the first iteration.

        Args:
            backbone: the student's; the teacher starts as its copy.
            prototypes: outputs of a head; for settings that are not `PrototypeSettings`, what `outputs` says.
            world: the processes that train together.
            generator: draws the weights of the heads.

        Raises:
            ConfigError: the backbone is of a kind that the objective cannot train.
        """
        raise NotImplementedError

    def outputs(self, num_images: int) -> int:
        """What `build` gets as `prototypes`, on so many images, where these are no `PrototypeSettings`."""
        return 0

    def origins(self) -> dict[str, str]:
        """Files of weights that the objective starts from beside `init_from`, by the setting that names them."""
        return {}

    def check(self, training: "TrainSettings") -> None:
        """Compare with the rest of the training's settings; objectives with demands of their own extend it.

        Raises:
            ValueError: they do not go together.
        """
        check_guides(self.guides, training)
        images = training.images_per_pass
        if self.koleo_weight > 0:
            if images < 2:
                raise ValueError("a pass of 1 image has no nearest neighbor for KoLeo; set objective.koleo_weight=0")
            if images % (self.koleo_group or images):
                raise ValueError(
                    f"objective.koleo_group {self.koleo_group} does not divide the {images} images of a pass"
                )


class HeadSettings(Settings):
    """Widths of a head beside the one for whole crops; null: as in that one."""

    prototypes: int | None = Field(default=None, ge=2)
    """Number of prototypes; null: as many as the head for whole crops has, or as the heads that the run starts from or
    distills."""
    hidden: int | None = Field(default=None, ge=1)
    """Width of the hidden layers; null: `head_hidden`."""
    bottleneck: int | None = Field(default=None, ge=1)
    """Width of the vectors that are compared with the prototypes; null: `head_bottleneck`."""


class PrototypeSettings(ObjectiveSettings):
    """Settings of objectives that compare distributions over prototypes."""

    prototypes: Literal["auto"] | Annotated[int, Field(ge=2)] = "auto"
    """Number of prototypes, the outputs of the head for whole crops: 65536 in DINOv2's short recipe, 131072 in its long
    one; auto: by the number of images."""
    head_hidden: int = Field(default=2048, ge=1)
    """Width of that head's hidden layers."""
    head_bottleneck: int = Field(default=256, ge=1)
    """Width of the vectors that are compared with the prototypes: 384 in DINOv2's long recipe."""
    student_temperature: float = Field(default=0.1, gt=0.0)
    """Temperature of the student's softmax."""
    teacher_temperature: Range = (0.04, 0.07)
    """Temperature of the teacher's targets: first and last value of a linear rise."""
    teacher_temperature_iterations: AutoCount = "auto"
    """Length of that rise in iterations: 37500 in DINOv2; auto: 30 % of the run."""

    def with_heads(self, prototypes: Mapping[str, int]) -> Self:
        """The settings for heads that are given: heads that have no number of prototypes yet get theirs.

        Args:
            prototypes: number of prototypes of each given head, by name.
        """
        own = {name: getattr(self, name) or HeadSettings() for name in prototypes if name in type(self).model_fields}
        counted = {
            name: head.model_copy(update={"prototypes": head.prototypes or prototypes[name]})
            for name, head in own.items()
        }
        return self.model_copy(update=counted)


class CenteredSettings(PrototypeSettings):
    """Settings of objectives whose targets are a softmax around a running center."""

    center_momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Momentum of the running mean of the teacher's scores, the center."""
    norm_last_layer: bool = True
    """Keep all prototypes at length 1, which is steadier; small models do better without."""


class DinoSettings(CenteredSettings):
    """DINO: cross-entropy between crops alone."""

    weighed: ClassVar[frozenset[str]] = frozenset({"koleo"})

    kind: Literal["dino"] = "dino"
    """Name of the objective."""

    def build(self, backbone: "Trained", **given: Any) -> "Objective":
        """Around `backbone` with `dino_head`."""
        from curate.trainer.objectives.dino import build_dino

        return build_dino(self, backbone, **given)


class MaskedSettings(PrototypeSettings):
    """Settings of objectives that hide patches from the student: DINO, iBOT and KoLeo."""

    needs_masks: ClassVar[bool] = True
    weighed: ClassVar[frozenset[str]] = frozenset({"dino", "local", "ibot", "koleo", "gram"})

    ibot_head: HeadSettings | None = None
    """What the head for patches, where it is not tied, has of its own: in DINOv2's long recipe a bottleneck of 256."""
    dino_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the DINO loss between crops."""
    ibot_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the iBOT loss on masked patches."""
    koleo_weight: float = Field(default=0.1, ge=0.0)
    """Weight of KoLeo, which spreads the features of a batch."""
    masked_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the global crops that are masked."""
    mask_ratio: Range = (0.1, 0.5)
    """Smallest and largest share of patches that are masked in a masked crop."""
    distill_from: str | None = None
    """Export of a larger backbone, with heads.safetensors beside it, that stays frozen and makes the targets. Masks
    then hide nothing from the student; they say at which patches iBOT compares it with the teacher. null: the teacher
    is the student's average."""

    def origins(self) -> dict[str, str]:
        """The export that is distilled, and the heads beside it."""
        if self.distill_from is None:
            return {}
        return {"distill_from": self.distill_from, "distill_heads": str(heads_beside(self.distill_from))}


class DinoV2Settings(MaskedSettings):
    """DINOv2: DINO, iBOT and KoLeo."""

    kind: Literal["dinov2"] = "dinov2"
    """Name of the objective."""
    tied_heads: bool = False
    """Whether DINO and iBOT share one head (short recipe) or have two (long recipe)."""
    centering: Literal["sinkhorn", "softmax"] = "sinkhorn"
    """How the teacher's scores become targets: by Sinkhorn-Knopp (long recipe) or by a softmax around a running
    center."""

    def build(self, backbone: "Trained", **given: Any) -> "Objective":
        """Around `backbone` with `dino_head` and, unless the heads are tied or iBOT is off, `ibot_head`."""
        from curate.trainer.objectives.dinov2 import build_dinov2

        return build_dinov2(self, backbone, **given)


class DinoV3Settings(MaskedSettings):
    """DINOv3: as DINOv2 with heads of their own, plain prototypes, exact masks and targets by Sinkhorn-Knopp; phases
    may add Gram anchoring."""

    kind: Literal["dinov3"] = "dinov3"
    """Name of the objective."""
    local_weight: float = Field(default=1.0, ge=0.0)
    """Factor on the pairs of a local and a global crop in the DINO loss: 1, and 0.5 from the Gram phase on."""
    koleo_group: int | None = Field(default=16, ge=2)
    """Number of images among which KoLeo finds neighbors, a divisor of the batch: 16 in DINOv3; null: all of them."""
    koleo_views: Literal["both", "first"] = "both"
    """Global crops that KoLeo spreads: both, as the released code does, or the first, as the paper says."""

    def build(self, backbone: "Trained", **given: Any) -> "Objective":
        """Around `backbone` with `dino_head` and, unless iBOT is off, `ibot_head`."""
        from curate.trainer.objectives.dinov3 import build_dinov3

        return build_dinov3(self, backbone, **given)


class EsVitSettings(CenteredSettings):
    """EsViT: cross-entropy between crops and between their matched regions."""

    weighed: ClassVar[frozenset[str]] = frozenset({"koleo"})

    kind: Literal["esvit"] = "esvit"
    """Name of the objective."""
    view_weight: float = Field(default=0.5, ge=0.0)
    """Weight of the loss between crops."""
    region_head: HeadSettings | None = None
    """What the head for regions has of its own."""
    region_weight: float = Field(default=0.5, ge=0.0)
    """Weight of the loss between regions. Its head scores every token, which takes most of the time where there are
    many prototypes."""

    def build(self, backbone: "Trained", **given: Any) -> "Objective":
        """Around `backbone` with `dino_head` for whole crops and `region_head` for their tokens."""
        from curate.trainer.objectives.esvit import build_esvit

        return build_esvit(self, backbone, **given)


class SitSettings(ObjectiveSettings):
    """SiT: contrast between images, reconstruction of hidden blocks, and which way is up."""

    weighed: ClassVar[frozenset[str]] = frozenset({"koleo"})

    kind: Literal["sit"] = "sit"
    """Name of the objective."""
    temperature: float = Field(default=0.2, gt=0.0)
    """Temperature of the softmax over images in the contrastive loss, whose weight is 1."""
    reconstruction_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the mean absolute error of hidden pixels, in the units of normalized images."""
    rotation_weight: float = Field(default=0.0, ge=0.0)
    """Weight of predicting by how many quarter turns a crop is rotated, which needs a register token; 0: crops are not
    rotated."""
    hidden_share: Range = (0.5, 0.7)
    """Smallest and largest share of a crop's pixels that blocks hide; drawn for each crop and met on average."""
    block_side: Range = (0.1, 0.3)
    """Smallest and largest height and width of a block, as a share of the crop's side."""
    foreign_share: float = Field(default=0.35, ge=0.0, le=1.0)
    """Share of the blocks that show another image; the others show noise."""
    head_hidden: int = Field(default=2048, ge=1)
    """Width of the hidden layers of the contrastive head."""
    head_out: int = Field(default=256, ge=1)
    """Width of the vectors that are compared."""

    @model_validator(mode="after")
    def _possible(self) -> "SitSettings":
        if not 0 <= self.hidden_share[0] <= self.hidden_share[1] < 1:
            raise ValueError(f"hidden_share is {list(self.hidden_share)}; needed: 0 <= first <= second < 1")
        if not 0 < self.block_side[0] <= self.block_side[1] <= 1:
            raise ValueError(f"block_side is {list(self.block_side)}; needed: 0 < first <= second <= 1")
        return self

    def build(self, backbone: "Trained", **given: Any) -> "Objective":
        """Around `backbone` with `contrast_head`, `decoder` and, where crops are rotated, `rotation_head`."""
        from curate.trainer.objectives.sit import build_sit

        return build_sit(self, backbone, **given)

    def check(self, training: "TrainSettings") -> None:
        """Only global crops are looked at, and several images at a time."""
        if training.crops.num_local > 0:
            raise ValueError("objective=sit looks at the global crops alone; set crops.num_local=0")
        if training.images_per_pass < 2:
            raise ValueError("objective=sit tells the images of a pass apart, and it has 1; raise batch_size")
        super().check(training)
