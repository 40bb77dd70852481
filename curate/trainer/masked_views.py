"""What DINOv2 and DINOv3 share: a pass of the student over crops of which patches are hidden, beside the targets that a
teacher makes of whole ones, and the losses between them.

A pass reads cls tokens of all crops and, of the global ones, the patches that iBOT judges: those hidden from the
student or, where a frozen teacher is distilled and nothing is hidden, those that would have been. They are few, so
that the last feed-forward layer, the heads and the targets are computed for them alone. Where the Gram loss counts,
all patches of the global crops are read.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.feed.crops import NUM_GLOBAL_CROPS, Crops
from curate.models.nets.config import Architecture
from curate.trainer.gram import gram_loss, gram_patches
from curate.trainer.heads import Projection, head_of
from curate.trainer.losses import add_koleo
from curate.trainer.masks import draw_masks
from curate.trainer.objective import MEMBER, ForwardContext, Objective, ObjectiveOutput, backbone_of, members_of
from curate.trainer.objectives.settings import MaskedSettings
from curate.trainer.parallel import World
from curate.trainer.projected import Targets, dino_term, ibot_term, projected_loss

Sharpen = Callable[[Literal["dino", "ibot"], Projection], Targets]
"""Makes targets of a teacher's scores of cls tokens ("dino") or of patches ("ibot")."""


class Judged(NamedTuple):
    """The patches that iBOT judges, of the N patches of each global crop."""

    hidden: Tensor | None  # (2B, N) bool, those that the student does not see; None: it sees all
    rows: Tensor  # (M,) int64 among the 2B * N patches
    weights: Tensor  # (M,) 1 / number of judged patches in the patch's crop
    num_patches: int  # N


class TeacherView(NamedTuple):
    """What a teacher says of whole global crops."""

    cls: Tensor  # (2B, D)
    patches: Tensor  # (M, D) the judged ones
    targets: Tensor  # (2B, K)
    patch_targets: Targets | None  # of the M judged patches; None: there are none


class StudentView(NamedTuple):
    """What a student says of all crops."""

    cls: Tensor  # (2B, D) of the global ones
    judged: Tensor  # (M, D)
    patches: Tensor | None  # (2B, N, D) of the global crops; None: not asked for
    of_crops: Projection  # units (V * B, E)
    of_patches: Projection | None  # units (M, E)


def draw_judged(
    crops: Crops,
    config: Architecture,
    settings: MaskedSettings,
    *,
    rng: np.random.Generator,
    world: World,
    exact: bool = False,
) -> Tensor:
    """(2B, N) bool on the CPU: this rank's share of the masks of the whole batch.

    Args:
        config: of the student; the tokens of a timm model stand for patches.
        rng: equal on all ranks.
        exact: see `draw_masks`.
    """
    num_crops, share = len(crops.global_crops), settings.masked_share if settings.ibot_weight > 0 else 0.0
    grid = crops.global_crops.shape[-1] // config.patch_size
    masks = draw_masks(num_crops * world.size, grid, rng=rng, share=share, ratios=settings.mask_ratio, exact=exact)
    by_rank = masks.reshape(NUM_GLOBAL_CROPS, world.size, crops.num_images, -1)
    return torch.from_numpy(by_rank[:, world.rank].reshape(num_crops, -1))


def judge(masks: Tensor, *, hide: bool, device: torch.device) -> Judged:
    """Masks (2B, N), bool on the CPU, on `device`; their rows are found without a wait for it."""
    rows = masks.flatten().nonzero().squeeze(1)
    weights = (1 / masks.sum(dim=1).clamp_min(1)).repeat_interleave(masks.shape[1])[rows]
    hidden = masks.to(device, non_blocking=True) if hide else None
    return Judged(hidden, rows.to(device, non_blocking=True), weights.to(device, non_blocking=True), masks.shape[1])


def project_views(networks: nn.ModuleDict, cls: Tensor, patches: Tensor | None) -> tuple[Projection, Projection | None]:
    """cls tokens and patches, where they are judged, through their heads; a head for both runs once."""
    head = head_of(networks, "dino_head")
    if patches is None:
        return head.project(cls), None
    if "ibot_head" in networks:
        return head.project(cls), head_of(networks, "ibot_head").project(patches)
    return head.project(torch.cat([cls, patches])).split(len(cls))


@torch.no_grad()
def view_teacher(networks: nn.ModuleDict, crops: Crops, judged: Judged, *, sharpen: Sharpen, ibot: bool) -> TeacherView:
    """The teacher on whole global crops; `ibot`: whether patches are judged at all."""
    (seen,) = backbone_of(networks).forward_needed([crops.global_crops], patches=[judged.rows])
    of_crops, of_patches = project_views(networks, seen.cls, seen.patches if ibot else None)
    targets = sharpen("dino", of_crops)(slice(None))
    return TeacherView(seen.cls, seen.patches, targets, None if of_patches is None else sharpen("ibot", of_patches))


def view_student(
    networks: nn.ModuleDict, crops: Crops, judged: Judged, context: ForwardContext, *, ibot: bool
) -> StudentView:
    """The student on all crops, of which some patches are hidden."""
    large, unseen = crops.global_crops, [None] * (len(crops.groups) - 1)  # local crops: nothing hidden, none judged
    whole = context.weights.gram > 0
    rows = torch.arange(len(large) * judged.num_patches, device=large.device) if whole else judged.rows
    groups = backbone_of(networks).forward_needed(
        crops.groups,
        None if judged.hidden is None else [judged.hidden, *unseen],
        patches=[rows, *unseen],
        generator=context.generator,
    )
    read = groups[0].patches
    chosen, patches = (read[judged.rows], read.unflatten(0, (len(large), -1))) if whole else (read, None)
    cls = torch.cat([group.cls for group in groups])  # (V * B, D)
    return StudentView(groups[0].cls, chosen, patches, *project_views(networks, cls, chosen if ibot else None))


def masked_losses(
    objective: Objective,
    student: StudentView,
    teacher: TeacherView,
    *,
    judged: Judged,
    crops: Crops,
    context: ForwardContext,
    settings: MaskedSettings,
    local_weight: float = 1.0,
    koleo_views: int = NUM_GLOBAL_CROPS,
) -> ObjectiveOutput:
    """DINO, iBOT, KoLeo and Gram between one student's view and one teacher's, with the iteration's weights.

    Args:
        local_weight: factor on the pairs of a local and a global crop, the iteration's included.
        koleo_views: global crops that KoLeo spreads, each by itself: the first, or both.
    """
    given = context.weights
    by_view = teacher.targets.unflatten(0, (NUM_GLOBAL_CROPS, -1))
    terms = {"dino": dino_term(student.of_crops, by_view, local_weight=local_weight)}
    if student.of_patches is not None and teacher.patch_targets is not None:
        terms["ibot"] = ibot_term(
            student.of_patches, teacher.patch_targets, judged.weights, num_crops=len(crops.global_crops)
        )
    factors = {"dino": settings.dino_weight * given.dino, "ibot": settings.ibot_weight * given.ibot}
    loss, values = projected_loss(terms, factors, temperature=settings.student_temperature)
    spread = student.cls[: koleo_views * crops.num_images]
    loss, values = add_koleo(
        loss, values, spread, settings, world=objective.world, factor=given.koleo, num_views=koleo_views
    )
    if student.patches is not None:
        values["gram"] = _anchor(objective, student.patches, crops)
        loss = loss + given.gram * values["gram"]
    # What a frozen teacher gives never changes: the figures of a distillation are of its student.
    learns = (teacher.cls, teacher.patches) if objective.frozen_teacher is None else (student.cls, student.judged)
    figures = {"cls_patch_cosine": cls_patch_cosine(*learns, judged)} if "ibot" in terms else {}
    return ObjectiveOutput(loss, values, learns[0].detach(), teacher.targets, figures, seen=student.cls)


def masked_step(
    objective: Objective,
    crops: Crops,
    masks: Tensor,
    context: ForwardContext,
    *,
    settings: MaskedSettings,
    sharpen: Sharpen,
    local_weight: float = 1.0,
    koleo_views: int = NUM_GLOBAL_CROPS,
) -> ObjectiveOutput:
    """A pass of every student of the objective, beside one of its teacher.

    Args:
        masks: (2B, N) bool on the CPU, the patches that iBOT judges; hidden from the student unless it is distilled.
        local_weight: as in `masked_losses`.
        koleo_views: as in `masked_losses`.
    """
    hide, device = objective.frozen_teacher is None, crops.global_crops.device
    ibot, state = settings.ibot_weight > 0, context.generator.get_state()
    judged = judge(masks, hide=hide, device=device)
    seen = view_teacher(objective.frozen_teacher or objective.teacher, crops, judged, sharpen=sharpen, ibot=ibot)
    outputs = {}
    for name, networks in members_of(objective.student).items():
        every = objective.every.get(name, 1)
        own = context._replace(generator=torch.Generator(context.generator.device).set_state(state))  # as if alone
        part, shown = (crops, seen) if every == 1 else thin_out(crops, seen, masks, every=every)
        of_part = judged if every == 1 else judge(take_images(masks, crops.num_images, every), hide=hide, device=device)
        student = view_student(networks, part, of_part, own, ibot=ibot)
        outputs[name] = masked_losses(
            objective,
            student,
            shown,
            judged=of_part,
            crops=part,
            context=own,
            settings=settings,
            local_weight=local_weight,
            koleo_views=koleo_views,
        )
    return join_outputs(outputs)


def join_outputs(outputs: dict[str, ObjectiveOutput]) -> ObjectiveOutput:
    """The sum of the students' losses, whose weights have nothing in common; terms and figures of all but the first
    begin with the student's name."""
    first, *_ = outputs.values()
    if len(outputs) == 1:
        return first
    loss = torch.stack([output.loss for output in outputs.values()]).sum()
    terms: dict[str, Tensor] = {}
    figures: dict[str, Tensor] = {}
    for name, output in outputs.items():
        prefix = f"{name}{MEMBER}" if name else ""
        terms |= {prefix + key: value for key, value in output.terms.items()}
        figures |= {prefix + key: value for key, value in output.figures.items()}
    return ObjectiveOutput(loss, terms, first.features, first.targets, figures, first.seen)


def take_images(views: Tensor, num_images: int, every: int) -> Tensor:
    """Of (V * B, ...), views before images, the rows of each image whose number is a multiple of `every`."""
    if not len(views):
        return views
    return views.unflatten(0, (-1, num_images))[:, ::every].flatten(0, 1)


def thin_out(crops: Crops, teacher: TeacherView, masks: Tensor, *, every: int) -> tuple[Crops, TeacherView]:
    """The crops of some images, and what the teacher says of these; `masks` (2B, N) is on the CPU."""
    total, given = crops.num_images, teacher.patch_targets
    rows = masks.flatten().nonzero().squeeze(1)
    kept = (rows // masks.shape[1] % total % every == 0).nonzero().squeeze(1)
    kept = kept.to(crops.global_crops.device, non_blocking=True)
    images = None if crops.images is None else crops.images[::every]
    part = crops.map(lambda views: take_images(views, total, every))._replace(images=images)
    shown = TeacherView(
        take_images(teacher.cls, total, every),
        teacher.patches[kept],
        take_images(teacher.targets, total, every),
        None if given is None else lambda of: given(kept[of]),
    )
    return part, shown


def dino_chance(prototypes: int, crops: Crops, *, local_weight: float) -> float:
    """The DINO loss, in nats, of a student that is no better than chance: ln K, times the sum of the pairs' weights."""
    views = len(crops.local_crops) // crops.num_images
    return math.log(prototypes) * (views * local_weight + NUM_GLOBAL_CROPS - 1) / (views + NUM_GLOBAL_CROPS - 1)


def _anchor(objective: Objective, patches: Tensor, crops: Crops) -> Tensor:
    if objective.gram_teacher is None or crops.gram is None:
        raise ValueError("weights.gram is above 0: Objective.gram_teacher and Crops.gram are needed")
    return gram_loss(patches, gram_patches(objective.gram_teacher, crops.gram, num_patches=patches.shape[1]))


@torch.no_grad()
def cls_patch_cosine(cls: Tensor, patches: Tensor, judged: Judged) -> Tensor:
    """() float32: mean cosine of a crop's cls token with its own judged patches, over crops; 0 where none are judged.

    It rises as patches lose their places and dense quality falls, which is when Gram anchoring is needed.

    Args:
        cls: (2B, D).
        patches: (M, D) the judged ones.
    """
    cosines = F.cosine_similarity(cls[judged.rows // judged.num_patches].float(), patches.float(), dim=-1)
    return (cosines * judged.weights).sum() / judged.weights.sum().clamp_min(1e-6)
