"""The objective before the first iteration: with fresh weights, released ones or those of an earlier training, and
with the frozen teacher that it distills."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from curate.errors import ConfigError, WeightsError
from curate.models.convert.registered import untrainable
from curate.models.convert.source import is_source, load_source, outline_source
from curate.models.files.header import BACKBONE, HEADS, heads_beside
from curate.models.files.heads import HeadShape, HeadsInfo, describe_heads, pick_heads, read_heads, read_heads_info
from curate.models.files.state_dict import fill
from curate.models.nets.throughput import count_flops
from curate.models.nets.tower import TimmTower
from curate.models.nets.trained import Trained, check_same_tokens
from curate.models.nets.vit import VisionTransformer
from curate.trainer.adapting import adapt
from curate.trainer.config import StudentSettings, TrainConfig
from curate.trainer.effective import Effective, resolve_auto
from curate.trainer.feature_teachers import FeatureTeacher
from curate.trainer.given_backbone import check_pixels, load_weights
from curate.trainer.heads import make_head
from curate.trainer.initial import distilled_export, gram_files
from curate.trainer.objective import Objective, backbone_of
from curate.trainer.objectives.settings import ObjectiveSettings, PrototypeSettings
from curate.trainer.parallel import World


def start_objective(config: TrainConfig, effective: Effective, world: World) -> Objective:
    """The objective before the first iteration; fresh weights are drawn from the seed.

    Raises:
        WeightsError: weights to start from are missing, damaged or another model's.
        ConfigError: they do not fit the objective.
    """
    heads = given_heads(config)
    given: dict[str, Any] = {"heads": heads, "effective": effective, "world": world}
    first = StudentSettings(model=config.model, init_from=config.init_from, init_weights=config.init_weights)
    objective, backbone = _build(config, first, adapted=True, **given)
    if config.init_heads is not None:
        load_heads(objective, config.init_heads)
    distilled = distilled_export(config)
    if distilled is not None:
        objective.frozen_teacher = load_frozen_teacher(distilled)
        check_same_tokens(backbone, backbone_of(objective.frozen_teacher))
        _add_students(objective, config, **given)
    for teacher in objective.feature_teachers or ():
        cast(FeatureTeacher, teacher).normalized_for((config.crops.mean, config.crops.std))
    return objective


def _build(
    config: TrainConfig,
    student: StudentSettings,
    *,
    heads: HeadsInfo | None,
    effective: Effective,
    world: World,
    adapted: bool = False,
) -> tuple[Objective, Trained]:
    """The objective around a backbone; each student's weights follow from the seed alone, as in a run of its own.

    Args:
        adapted: whether the run's settings say which part of the backbone learns; students beside the first learn
            whole.
    """
    generator = torch.Generator().manual_seed(config.seed)
    backbone = student.model.build(config.crops.global_size, generator=generator)
    found = None
    if student.init_from is not None:
        found = load_weights(backbone, student.init_from, student.init_weights)
        check_pixels(found, config.crops)
    if isinstance(backbone, TimmTower):
        still = student.model.batch_norm
        backbone.frozen_statistics = still == "frozen" or (still == "auto" and found is not None)
    if adapted:
        adapt(backbone, config, generator=generator)
    settings = with_given_heads(config.objective, heads)
    objective = settings.build(backbone, prototypes=effective.prototypes, world=world, generator=generator)
    objective.given = {} if found is None else {"": found.info}
    return objective, backbone


def with_given_heads(settings: ObjectiveSettings, heads: HeadsInfo | None) -> ObjectiveSettings:
    """Settings of an objective whose heads have as many prototypes as those that are given."""
    if heads is None or not isinstance(settings, PrototypeSettings):
        return settings
    return settings.with_heads({name: shape.prototypes for name, shape in heads.heads.items()})


def _add_students(objective: Objective, config: TrainConfig, *, world: World, **given: Any) -> None:
    """Put the further students of a distillation into its objective; `given` goes to `_build`."""
    assert objective.frozen_teacher is not None
    backbones = {"": backbone_of(objective.student)}
    for name, student in config.students.items():
        other, backbones[name] = _build(config, student, world=world, **given)
        check_same_tokens(backbones[name], backbone_of(objective.frozen_teacher))
        objective.add_student(name, other)
    costs: dict[str, int] = {}
    if any(student.every == "cost" for student in config.students.values()):
        image = torch.zeros(1, 3, config.crops.global_size, config.crops.global_size)
        with torch.no_grad():
            costs = {name: count_flops(partial(net.eval(), image)) for name, net in backbones.items()}
    for name in config.students:
        objective.every[name] = share_images(config, name, costs, world)


def share_images(config: TrainConfig, name: str, costs: Mapping[str, float], world: World) -> int:
    """Of how many images of a pass the student `name` sees one.

    Args:
        costs: of an image in each student, in any unit; only asked for where the setting is `cost`.

    Raises:
        ConfigError: the setting does not divide the images of a process.
    """
    wanted, images = config.students[name].every, config.images_per_pass // world.size
    if wanted == "cost":
        wanted = math.gcd(2 ** int(math.log2(costs[name] / min(costs.values()))), images)
    if images % wanted:
        raise ConfigError(
            f"students.{name}.every is {wanted}, which does not divide the {images} images of a process in a pass"
        )
    seen, group = config.images_per_pass // wanted, config.objective.koleo_group
    if config.objective.koleo_weight > 0 and (seen < 2 or seen % (group or seen)):
        raise ConfigError(
            f"students.{name}.every is {wanted}: the student sees {seen} images of a pass, among which KoLeo finds no "
            f"groups of {group or 2}; lower it, or set objective.koleo_group"
        )
    return wanted


def given_heads(config: TrainConfig) -> HeadsInfo | None:
    """The description of the heads that the run starts from or distills; None: its heads are fresh.

    Raises:
        WeightsError: the file is missing, damaged or holds no heads.
        ConfigError: the objective has no heads that they could fill.
    """
    distilled = distilled_export(config)
    if distilled is not None:
        beside = heads_beside(distilled)
        if not beside.is_file():
            raise WeightsError(
                f"objective.distill_from={distilled}: there is no {beside}; give the folder of a training, which holds "
                f"{BACKBONE} and {HEADS}, or, for a backbone without heads, set objective=distill_features"
            )
        return read_heads_info(beside)
    if config.init_heads is None:
        return None
    if not isinstance(config.objective, PrototypeSettings):
        raise ConfigError(f"init_heads={config.init_heads}: this objective has no prototype heads; leave it out")
    return read_heads_info(config.init_heads)


def resolve_start(config: TrainConfig, *, num_images: int, num_samples: int) -> Effective:
    """The numbers of a run on so many images, with the heads that it starts from.

    Raises:
        WeightsError: heads to start from are missing or damaged, or a later phase's Gram teacher or a backbone to go
            on from is not there, or can only embed.
        ConfigError: the settings do not fit them, or one another.
    """
    for name, source in gram_files(config).items():
        if not is_source(source):
            raise WeightsError(f"{name}={source}: no such file or folder; give weights that are there, or `step N`")
    for start in (config.init_from, *(student.init_from for student in config.students.values())):
        if start is not None and not is_source(start):
            raise untrainable(start)
    heads = given_heads(config)
    given = None if heads is None else heads.prototypes
    return resolve_auto(config, num_images=num_images, num_samples=num_samples, prototypes=given)


def load_heads(objective: Objective, path: str) -> None:
    """Fill the heads of student and teacher from a file of heads.

    Raises:
        WeightsError: missing, damaged, or of other heads than the objective's.
    """
    info, state = read_heads(path)
    own = describe_heads(pick_heads(objective.student.state_dict()), where="the objective")
    for name in info.heads.keys() & own.heads.keys():
        _compare_shapes(name, info.heads[name], own.heads[name], where=f"init_heads={path}")
    for networks in (objective.student, objective.teacher):
        heads = nn.ModuleDict({name: networks[name] for name in own.heads})
        fill(heads, state, where=f"init_heads={path}")


def _compare_shapes(name: str, given: HeadShape, own: HeadShape, *, where: str) -> None:
    if given != own:
        found, wanted = (", ".join(f"{k} {v}" for k, v in shape.model_dump().items()) for shape in (given, own))
        raise WeightsError(
            f"{where}: {name} has {found}, the objective's has {wanted}; set objective.head_hidden, "
            "objective.head_bottleneck and, for a head beside dino_head, those under its own name to the file's; plain "
            "linear prototypes are those of objective=dinov3"
        )


def load_frozen_teacher(export: str) -> nn.ModuleDict:
    """The networks of an export, backbone and heads, which no longer learn.

    Raises:
        WeightsError: no export there, or no heads beside it.
        ConfigError: it is no ViT.
    """
    found = load_source(export, heads=True)
    if not isinstance(found.network, VisionTransformer) or found.heads is None:
        raise ConfigError(f"objective.distill_from={export}: no ViT with heads; distill the export of one")
    info, tensors = found.heads
    heads = _make_heads(found.network, info)
    fill(heads, tensors, where=f"{export}: {HEADS}")
    return nn.ModuleDict({"backbone": found.network, **dict(heads.items())}).requires_grad_(False)


def outline_frozen_teacher(export: str) -> nn.ModuleDict:
    """The networks that `load_frozen_teacher` gives without their weights, for a plan: on the device `meta`.

    Raises:
        WeightsError: no export there, or no heads beside it.
    """
    network, info = outline_source(export), read_heads_info(heads_beside(export))
    with torch.device("meta"):
        return nn.ModuleDict({"backbone": network, **dict(_make_heads(network, info).items())}).requires_grad_(False)


def _make_heads(backbone: Trained, info: HeadsInfo) -> nn.ModuleDict:
    return nn.ModuleDict({name: make_head(backbone, shape) for name, shape in info.heads.items()})
