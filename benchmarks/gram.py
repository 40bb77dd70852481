"""Does Gram anchoring repair patches that a training has spoiled? One toy run, branched where its patches are bad.

DINO's loss alone asks nothing of patches but that cls can be read from them. At a high constant rate the patches of a
small ViT let their places go soon: their cosine with cls rises, and points of one view are no longer found in another.
From one checkpoint of such a run, with its moments, its order of images and its crops, two runs go on: one with a Gram
loss against the run's own teacher of an early iteration, and one with that loss at weight 0. All else is equal in both.

Half of the bundled photographs is trained on, the other half is asked. The iterations at which the run is looked at are
fixed beforehand, and the same for every seed.
"""

import io
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image

from benchmarks.figures import Figure, cpu_seconds, show
from benchmarks.shards import write_shard
from curate.cli.arguments import Json
from curate.config import merge, parse
from curate.errors import ConfigError
from curate.evaluation import scores
from curate.evaluation.dense.composites import compose
from curate.evaluation.dense.encoder import PatchEncoder
from curate.evaluation.dense.truth import CorrespondenceTask, Series
from curate.evaluation.features import prepare
from curate.evaluation.labeled import LabeledImages, open_labeled
from curate.evaluation.measures.correspondence import score_correspondence
from curate.evaluation.parts import find_from_parts
from curate.evaluation.scores import Score, ScoreDifference
from curate.models.backbones.backbone import Backbone
from curate.models.backbones.load import load_backbone
from curate.stages.training.evaluate import PARTS_AREA, PARTS_SEED
from curate.trainer.checkpoint import checkpoint_path
from curate.trainer.config import TrainConfig
from curate.trainer.train import EXPORT, INITIAL_EXPORT, train

SMALL: Mapping[str, Any] = {
    "model": {
        **{"preset": "tiny", "patch_size": 4, "dim": 48, "depth": 3, "heads": 3},
        **{"drop_path": 0.0, "layer_scale": 1.0},
    },
    "crops": {"global_size": 24, "local_size": 12, "num_local": 4, "blur": "none"},
    "objective": {
        **{"kind": "dinov3", "prototypes": 32, "head_hidden": 96, "head_bottleneck": 32, "koleo_group": None},
        **{"teacher_temperature": [0.025, 0.025]},
        **{"ibot_weight": 0.02, "masked_share": 0.1},  # hardly any: what asks patches for their places
    },
    "ema": {"end": "constant"},
    "optimizer": {"patch_embed_lr": 1.0, "schedule": "constant", "warmup_iterations": 100},
    "batch_size": 16,
    "precision": "fp32",
    "device": "cpu",
    "workers": 1,
    "log_every": 20,
}
"""What both toys have in common."""
PHOTO_SIDE = 64
"""Short side in pixels of the photographs that are trained on."""
GRID = 8
"""Patches along the side of a view of which points are looked for; global crops have 6."""
PAIRS = 100
"""Pairs of views."""
WEIGHT = 2.0
"""Of the Gram loss, as in DINOv3."""
WITHOUT, ANCHORED = "without", "anchored"
"""Folders of the two branches."""
EVIDENCE = 2.0
"""Standard errors from zero beyond which a difference counts."""


@dataclass(frozen=True)
class Toy:
    """A training whose patches degrade, and the iterations at which it is looked at."""

    changes: Mapping[str, Any]
    """Of `SMALL`."""
    early: int
    """Whose teacher becomes the Gram teacher."""
    branch: int
    """From which on the two branches differ."""
    end: int

    @property
    def between(self) -> int:
        """Iterations from one checkpoint to the next."""
        return math.gcd(self.early, self.branch)


TOYS: Mapping[str, Toy] = {
    "fast": Toy(
        {"objective": {"teacher_momentum": 0.95}, "optimizer": {"base_lr": 3e-2}}, early=100, branch=300, end=600
    ),
    "slow": Toy(
        {
            "crops": {"global_scale": [0.5, 1.0], "local_scale": [0.15, 0.5]},
            "objective": {"teacher_momentum": 0.98},
            "optimizer": {"base_lr": 1e-2},
        },
        early=600,
        branch=1800,
        end=2000,
    ),
}
"""fast: a rate of 3.75e-3 is too high for so small a ViT, and whole pictures get worse as patches do. slow: at a third
of it, and with crops that are easier to match, whole pictures go on being learned while patches degrade."""


@dataclass(frozen=True)
class Look:
    """What a backbone is worth on photographs that it was not trained on."""

    cosine: Score
    """Mean cosine of cls with the patches of its own photograph."""
    dense: Score
    """Share of points of one view found in another."""
    whole: Score
    """Share of photographs found again by a part of them: what the loss between crops asks for."""


@dataclass(frozen=True)
class Branched:
    """One seed: looks at the run, and at its two branches at their end."""

    seed: int
    initial: Look
    early: Look
    branch: Look
    without: Look
    anchored: Look

    @cached_property
    def differences(self) -> dict[str, ScoreDifference]:
        """What must be below or above zero, by what is said of it."""
        return {
            "dense: at the branch - early": ScoreDifference(self.early.dense, self.branch.dense),
            "cosine: at the branch - early": ScoreDifference(self.early.cosine, self.branch.cosine),
            "dense: anchored - at the branch": ScoreDifference(self.branch.dense, self.anchored.dense),
            "dense: anchored - without": ScoreDifference(self.without.dense, self.anchored.dense),
            "cosine: anchored - at the branch": ScoreDifference(self.branch.cosine, self.anchored.cosine),
            "cosine: anchored - without": ScoreDifference(self.without.cosine, self.anchored.cosine),
        }

    @property
    def degraded(self) -> bool:
        """Whether, beyond errors, the dense figure fell and the cosine rose from the early iteration to the branch."""
        dense, cosine, *_ = self.differences.values()
        return _falls(dense) and _rises(cosine)

    @property
    def repaired(self) -> bool:
        """Whether, beyond errors, anchoring raised the dense figure and lowered the cosine, beside the branch's
        beginning and beside the other branch."""
        _, _, *given = self.differences.values()
        return all(map(_rises, given[:2])) and all(map(_falls, given[2:]))


def _rises(difference: ScoreDifference) -> bool:
    return difference.value > EVIDENCE * difference.stderr


def _falls(difference: ScoreDifference) -> bool:
    return difference.value < -EVIDENCE * difference.stderr


@dataclass(frozen=True)
class Judge:
    """The photographs that are asked, and pairs of views of composites of them."""

    images: LabeledImages
    task: CorrespondenceTask

    @classmethod
    def of(cls, images: LabeledImages, *, pairs: int) -> "Judge":
        """With `pairs` pairs, which are made once."""
        task = compose(images, seed=0, scenes=pairs).correspondence
        assert task is not None  # composites have all tasks
        made = list(task.pairs)
        return cls(images, replace(task, pairs=Series(len(made), made.__getitem__)))

    def look(self, export: Path) -> Look:
        """Take all figures of an export."""
        backbone = load_backbone("curate", weights=str(export), device="cpu", precision="fp32")
        cosines = cls_patch_cosines(backbone, self.images)
        *_, dense = score_correspondence(PatchEncoder.of(backbone, grid=GRID), self.task)
        whole = find_from_parts(backbone, self.images, area=PARTS_AREA, seed=PARTS_SEED)
        return Look(
            scores.of_items("cosine", "of cls with its patches", f"{len(cosines)} photographs", cosines),
            dense,
            scores.of_accuracy("parts", "top 1", f"{len(cosines)} photographs", whole),
        )


@torch.no_grad()
def cls_patch_cosines(backbone: Backbone, images: LabeledImages) -> np.ndarray:
    """(N,) mean cosine of the cls token of each picture with the patches of the same picture, after the last norm."""
    how, found = backbone.preprocess, []
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (how.mean, how.std))
    for pixels in prepare(images.pictures(), how):
        seen = backbone.module.forward_features((pixels / 255 - mean) / std)  # type: ignore[operator]
        found.append(F.cosine_similarity(seen.cls[:, None], seen.patches, dim=-1).mean(dim=1))
    return torch.cat(found).numpy()


def every_other(images: LabeledImages, first: int) -> LabeledImages:
    """Every second picture, beginning with number `first`."""
    rows = np.arange(first, len(images), 2)
    return replace(images, labels=images.labels[rows], read=lambda chosen: images.read(rows[chosen]))


def write_photos(images: LabeledImages, folder: Path) -> None:
    """Pictures, reduced to `PHOTO_SIDE`, as a shard."""
    write_shard(folder, [_encode(decode()) for decode in images.pictures()], source="photos")


def _encode(picture: Image.Image) -> bytes:
    scale, buffer = PHOTO_SIDE / min(picture.size), io.BytesIO()
    width, height = (round(side * scale) for side in picture.size)
    picture.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "png")
    return buffer.getvalue()


def configure(toy: Toy, *, shards: Path, output: Path, seed: int, weight: float) -> TrainConfig:
    """The toy run with a Gram phase of so much weight from the branch on."""
    gram = {"teacher": f"step {toy.early}", "weight": weight, "upscale": 1}
    phases = [{"until": toy.branch}, {"until": toy.end, "gram": gram}]
    kept = {"checkpoint_every": toy.between, "keep": toy.end}
    given = {"shards": str(shards), "output": str(output), "seed": seed, "phases": phases, **kept}
    return parse(TrainConfig, merge(merge(SMALL, toy.changes), given), where="gram")


def branch_off(run: Path, branch: Path, *, step: int) -> None:
    """Copy the folder of a training without the checkpoints after iteration `step`, so that it goes on from there."""
    last = checkpoint_path(run / "checkpoints", step).name
    partial = branch.with_name(f"{branch.name}.partial")  # a copy that was killed is none
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(run, partial, ignore=lambda _, names: [n for n in names if n.startswith("step-") and n > last])
    partial.rename(branch)


def bench_gram(
    workdir: str | Path, toy: Toy, *, seeds: Sequence[int], weight: float = WEIGHT, pairs: int = PAIRS
) -> Iterator[Branched]:
    """Train, branch and look, seed by seed; what is finished in `workdir` is not done again.

    Args:
        workdir: gets the shards, and for each seed the folders of its two branches.
        toy: what is trained, and when it is looked at.
        seeds: of weights, order, crops and masks.
        weight: of the Gram loss.
        pairs: pairs of views.
    """
    folder, photos = Path(workdir), open_labeled("bundled")
    shards = folder / "shards"
    write_photos(every_other(photos, 0), shards)
    judge = Judge.of(every_other(photos, 1), pairs=pairs)
    for seed in seeds:
        anchored, without = (folder / f"seed-{seed}" / name for name in (ANCHORED, WITHOUT))
        train(configure(toy, shards=shards, output=anchored, seed=seed, weight=weight))
        if not without.exists():
            branch_off(anchored, without, step=toy.branch)
        train(configure(toy, shards=shards, output=without, seed=seed, weight=0.0))
        early, branch = (checkpoint_path(anchored / "checkpoints", at) for at in (toy.early, toy.branch))
        exports = [anchored / INITIAL_EXPORT, *(at / EXPORT for at in (early, branch, without, anchored))]
        yield Branched(seed, *map(judge.look, exports))


def format_table(found: Sequence[Branched]) -> str:
    """A line a look, then what came out."""
    titles = {
        "initial": "initialization",
        "early": "early: the Gram teacher",
        "branch": "at the branch",
        "without": "end, without Gram anchoring",
        "anchored": "end, anchored",
    }
    rows = [("seed", "run", "cosine of cls and patches", "PCK@0.1 %", "found by a part %")]
    for one in found:
        for name, title in titles.items():
            look: Look = getattr(one, name)
            cosine = f"{look.cosine.value:.3f} +- {look.cosine.stderr:.3f}"
            rows.append((str(one.seed), title, cosine, _percent(look.dense), _percent(look.whole)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for one in found:
        told = "; ".join(f"{name} {gap.value:+.3f} +- {gap.stderr:.3f}" for name, gap in one.differences.items())
        lines.append(f"seed {one.seed}: {told}")
    lines.append("+- standard errors over pairs of views or photographs, paired in differences")
    return "\n".join([*lines, *conclusions(found)])


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f} +- {100 * score.stderr:.1f}"


def conclusions(found: Sequence[Branched]) -> list[str]:
    """What came out, over all seeds."""
    total = len(found)
    return [
        f"patches degraded (PCK fell, cosine rose, both beyond {EVIDENCE:g} standard errors) in "
        f"{sum(one.degraded for one in found)} of {total} seeds",
        "Gram anchoring repaired them (PCK rose, cosine fell, beside the branch's beginning and beside the branch "
        f"without it) in {sum(one.repaired for one in found)} of {total} seeds",
    ]


def as_figures(one: Branched) -> list[Figure]:
    """Figures of a seed: the branch beside the early iteration, and the anchored end beside the other one."""
    seen = {
        "at the branch": (one.branch, "early", one.early, "at the branch - early"),
        "end, anchored": (one.anchored, "without", one.without, "anchored - without"),
    }
    figures = []
    for when, (look, peer, beside, gap) in seen.items():
        dense, cosine = (one.differences[f"{name}: {gap}"] for name in ("dense", "cosine"))
        title = f"seed {one.seed}, {when}"
        figures += [
            Figure(f"{title}: PCK@0.1", look.dense.value, "share", peer, beside.dense.value, note=_gap(dense)),
            Figure(
                f"{title}: cosine of cls and patches",
                look.cosine.value,
                "cosine",
                peer,
                beside.cosine.value,
                better="lower",
                note=_gap(cosine),
            ),
        ]
    return figures


def _gap(difference: ScoreDifference) -> str:
    return f"{difference.value:+.4f} +- {difference.stderr:.4f}, paired"


def command(
    workdir: Annotated[Path, typer.Argument(help="folder for shards, checkpoints and exports")],
    toy: Annotated[str, typer.Option(help=f"what is trained: {', '.join(TOYS)}")] = "fast",
    seeds: Annotated[int, typer.Option(min=1, help="runs, by seed from 0")] = 3,
    weight: Annotated[float, typer.Option(min=0.0, help="of the Gram loss")] = WEIGHT,
    json_: Json = False,
) -> None:
    """Gram anchoring on a toy run whose patches degrade: cosine with cls and a dense figure, with it and without."""
    if toy not in TOYS:
        raise ConfigError(f"toy={toy}: known are {', '.join(TOYS)}")
    found = list(bench_gram(workdir / toy, TOYS[toy], seeds=range(seeds), weight=weight))
    seconds = f"{cpu_seconds():.0f} CPU seconds"
    show([figure for one in found for figure in as_figures(one)], json_, text=f"{format_table(found)}\n{seconds}")
