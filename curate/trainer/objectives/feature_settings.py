"""Settings of the objectives without prototypes and masks: features of frozen backbones, LeJEPA, DIET. Importing this
costs no torch."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from curate.config import Settings
from curate.errors import ConfigError
from curate.trainer.objectives.settings import ObjectiveSettings

if TYPE_CHECKING:
    from curate.models.nets.trained import Trained
    from curate.trainer.config import TrainSettings
    from curate.trainer.objective import Objective


class FeatureTeacherSettings(Settings):
    """A frozen backbone whose features a student learns to predict."""

    model: str
    """The backbone, as all commands name one: an id such as dinov2_vits14 or timm/NAME, or the file or folder of an
    export."""
    weights: str | None = None
    """Path or URL of its weights, for ids that need one."""
    size: int | None = Field(default=None, ge=1)
    """Side in pixels to which global crops are resized for it: its own, for models of a fixed size, or a multiple of
    its patches; null: crops stay as they are."""
    weight: float = Field(default=1.0, gt=0.0)
    """Weight of its losses beside those of the other teachers."""


def _read_teacher(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class DistillFeaturesSettings(ObjectiveSettings):
    """Features of frozen backbones: the student predicts their cls tokens and patches through linear maps. Needs no
    heads of the backbones, and trains a ViT or any timm model."""

    weighed: ClassVar[frozenset[str]] = frozenset({"koleo"})

    kind: Literal["distill_features"] = "distill_features"
    """Name of the objective."""
    teachers: tuple[Annotated[FeatureTeacherSettings, BeforeValidator(_read_teacher)], ...]
    """The frozen backbones, by name alone or with settings: teachers: [dinov2_vits14]."""
    cls_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the losses on pooled features."""
    patch_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the losses on patches, of teachers that have some."""
    cosine_weight: float = Field(default=1.0, ge=0.0)
    """Weight of 1 - cosine of prediction and feature."""
    smooth_l1_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the smooth L1 distance of prediction and feature, mean over dimensions, in standard deviations."""
    statistics_momentum: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Momentum of the running mean and deviation by which the teachers' features are standardized."""

    @field_validator("teachers")
    @classmethod
    def _some(cls, teachers: tuple[FeatureTeacherSettings, ...]) -> tuple[FeatureTeacherSettings, ...]:
        if not teachers:
            raise ValueError("no teacher is named; needed is at least one, as in teachers: [dinov2_vits14]")
        return teachers

    def origins(self) -> dict[str, str]:
        """The weights of the teachers, where they are files."""
        return {f"teachers.{i}": one.weights or one.model for i, one in enumerate(self.teachers)}

    def build(self, backbone: "Trained", **given: Any) -> "Objective":
        """Around `backbone` with `maps`, linear layers to the features of each teacher."""
        from curate.trainer.objectives.distill_features import build_distill_features

        return build_distill_features(self, backbone, **given)

    def check(self, training: "TrainSettings") -> None:
        """Only global crops are looked at."""
        if training.crops.num_local > 0:
            raise ValueError("objective=distill_features looks at the global crops alone; set crops.num_local=0")
        super().check(training)


class LeJepaSettings(ObjectiveSettings):
    """LeJEPA: views of an image agree, and features are spread as an isotropic Gaussian, by random directions."""

    weighed: ClassVar[frozenset[str]] = frozenset({"koleo"})

    kind: Literal["lejepa"] = "lejepa"
    """Name of the objective."""
    sigreg_weight: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Weight of SIGReg, lambda: 0.01 to 0.1 in the paper. That of the agreement of views is 1 less lambda."""
    directions: int = Field(default=1024, ge=1)
    """Random directions along which features are compared with a Gaussian, drawn anew in each pass: 256 to 1024."""
    knots: int = Field(default=17, ge=3)
    """Points at which characteristic functions are compared, an odd number."""
    knot_range: float = Field(default=5.0, gt=0.0)
    """The points lie evenly between minus and plus this: 5 in the paper, 3 in the authors' minimal example."""
    target: Literal["global", "all"] = "global"
    """Views whose mean the features of all views approach: the global ones, or all, as in the authors' minimal
    example."""
    projector_hidden: int = Field(default=2048, ge=1)
    """Width of the hidden layers of the projector."""
    projector_out: int = Field(default=256, ge=1)
    """Width of the vectors that agree and are spread."""

    @field_validator("knots")
    @classmethod
    def _odd(cls, knots: int) -> int:
        if knots % 2 == 0:
            raise ValueError(f"knots is {knots}; needed is an odd number, with one in the middle")
        return knots

    def build(self, backbone: "Trained", **given: Any) -> "Objective":
        """Around `backbone` with `projector`."""
        from curate.trainer.objectives.lejepa import build_lejepa

        return build_lejepa(self, backbone, **given)

    def check(self, training: "TrainSettings") -> None:
        """Several images are looked at together."""
        if training.images_per_pass < 2:
            raise ValueError("objective=lejepa spreads the images of a pass, and it has 1; raise batch_size")
        super().check(training)


class DietSettings(ObjectiveSettings):
    """DIET: each image is a class of its own, for 1,000 to 50,000 images."""

    weighed: ClassVar[frozenset[str]] = frozenset({"koleo"})

    kind: Literal["diet"] = "diet"
    """Name of the objective."""
    label_smoothing: float = Field(default=0.8, ge=0.0, lt=1.0)
    """Share of the target that is spread over all images: 0.8 in the paper."""
    max_images: int = Field(default=50_000, ge=1)
    """Largest number of images for which the layer that tells them apart, one row each, is made."""

    def outputs(self, num_images: int) -> int:
        """One for each image.

        Raises:
            ConfigError: there are too many.
        """
        if num_images > self.max_images:
            raise ConfigError(
                f"objective=diet has a class for each of {num_images} images, and objective.max_images is "
                f"{self.max_images}; raise it, or choose another objective for so many images"
            )
        return num_images

    def build(self, backbone: "Trained", **given: Any) -> "Objective":
        """Around `backbone` with `classifier`."""
        from curate.trainer.objectives.diet import build_diet

        return build_diet(self, backbone, **given)
