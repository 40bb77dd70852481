"""Whole runs that find copies in a pool of files, beside other tools on the same files.

Photographs, as they are, and files of planted copies of some of them are a pool; those without a copy are the
distractors. `curate run dedup` judges it by default and with `copies.threshold=auto`, each as a program of its own,
whose CPU seconds and memory count from its start to its end. A pair is found where both images lie in one group, since
of a group one image stays. The pairs of one picture hang together, so bounds count pictures, not pairs.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
from PIL import Image

import curate
from benchmarks import copy_peers
from benchmarks.commands import LAUNCH
from benchmarks.figures import PEAK_UNIT, machine
from benchmarks.look_alikes import Share, format_share, harmonic_share, pair_shares
from curate.api import Run
from curate.errors import ConfigError, SourceError
from curate.ops.copies.components import connected_components
from curate.ops.images.edits import MIN_SIDE, plant_file
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.samples.bundled import PHOTOS

Edits = Literal["web", "borders"]
RUNS = {"default": (), "auto": ("copies.threshold=auto",)}
"""What each of our runs changes in the recipe `dedup`."""
CALIBRATION = "CalibrateCopies"
"""The stage that promises a precision."""
NOT_RUN = {
    "imagededup CNN": "not run: its weights are downloaded from a model hub",
    "fastdup": "not run: its license is for non-commercial use, and it reports to a server of its maker",
}
SMALL_SHARE = 0.01
"""Tables below this share of the CPU seconds are told together."""
MIB = 2**20


@dataclass(frozen=True)
class Pool:
    """Files of a pool, named by their number, and what is known of them."""

    folder: Path
    source: np.ndarray
    """(N,) int64, the number of the picture that each shows; pictures themselves come first."""
    edits: list[tuple[str, ...]]
    """The chain that made each; empty for the pictures themselves."""


@dataclass(frozen=True)
class Cost:
    """What a program took, from its start to its end."""

    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class PoolScore:
    """What one tool did to the pool."""

    method: str
    precision: Share
    recall: Share
    f1: Share
    images_per_cpu_second: float
    cost: Cost
    recall_by_edit: dict[str, Share]
    """Of the copies with this edit in their chain: those in one group with their picture."""
    promised: float | None = None
    """The precision that a calibration promised."""
    stages: dict[str, float] | None = None
    """CPU seconds by table."""


@dataclass(frozen=True)
class PoolScores:
    """All tools on one pool."""

    pictures: int
    images: int
    scores: list[PoolScore]
    not_run: dict[str, str]
    """Tools without a score, and why."""


def measure_pool(
    folder: Path = PHOTOS,
    *,
    num_pictures: int = 338,
    copied: float = 0.75,
    copies_each: int = 3,
    max_edits: int = 3,
    edits: Edits = "web",
    seed: int = 0,
    peers: Path | None = None,
    runs: Sequence[str] = tuple(RUNS),
    changes: Sequence[str] = (),
) -> PoolScores:
    """Score our runs and the peers on one pool.

    Args:
        folder: pictures without copies among them, in any depth; the bundled photographs by default.
        num_pictures: at most so many are taken.
        copied: share of the pictures that copies are planted of.
        copies_each: copies of each of these.
        max_edits: a copy is a chain of 1 to `max_edits` edits.
        edits: borders: one edit of each chain is one of `edits.BORDERS`.
        peers: interpreter of an environment with the other tools; None: our own, which has pdqhash.
        runs: which of RUNS.
        changes: `key=value` changes of the recipe, for both runs.

    Raises:
        SourceError: fewer than four usable pictures in the folder.
        ConfigError: a number above is out of its range.
        CalledProcessError: a run failed.
    """
    if copies_each < 1 or max_edits < 1 or not 0 < copied <= 1:
        raise ConfigError(
            f"copies_each={copies_each}, max_edits={max_edits}, copied={copied}: at least 1, 1, and above 0 to 1"
        )
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        pool = write_pool(
            usable_files(folder, num_pictures),
            work / "pool",
            copied=copied,
            copies_each=copies_each,
            max_edits=max_edits,
            edits=edits,
            seed=seed,
        )
        scores = [score_run(pool, name, work, changes) for name in runs]
        not_run = dict(NOT_RUN)
        for tool in copy_peers.TOOLS:
            found = score_peer(pool, tool, work, peers)
            if isinstance(found, PoolScore):
                scores.append(found)
            else:
                not_run[tool] = found
    return PoolScores(int(pool.source.max()) + 1, len(pool.source), scores, not_run)


def parse_edits(choice: str) -> Edits:
    """`web` or `borders`.

    Raises:
        ConfigError: it is neither.
    """
    for known in get_args(Edits):
        if choice == known:
            return cast(Edits, known)
    raise ConfigError(f"--edits {choice}: needed is one of {', '.join(get_args(Edits))}")


def usable_files(folder: Path, num_pictures: int) -> list[Path]:
    """The first `num_pictures` files by path that copies can be planted of.

    Raises:
        SourceError: they are fewer than four.
    """
    limits, found = ImageLimits(min_side=2 * MIN_SIDE), list[Path]()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if len(found) == num_pictures:
            break
        if inspect_image(file.read_bytes(), limits).picture is not None:
            found.append(file)
    if len(found) < 4:
        raise SourceError(f"{folder}: {len(found)} usable pictures, at least 4 are needed to plant copies on")
    return found


def write_pool(
    files: Sequence[Path],
    folder: Path,
    *,
    copied: float,
    copies_each: int,
    max_edits: int,
    edits: Edits,
    seed: int,
) -> Pool:
    """Write the files as they are, and planted copies of some; each copy has a random stream of its own."""
    folder.mkdir(parents=True)
    source = list(range(len(files)))
    chains: list[tuple[str, ...]] = [()] * len(files)
    for i, file in enumerate(files):
        (folder / f"{i:06}{file.suffix.lower()}").write_bytes(file.read_bytes())
    with_copies = np.random.default_rng(seed).permutation(len(files))[: max(1, round(copied * len(files)))]
    for i in sorted(with_copies.tolist()):
        picture = _decoded(files[i])
        for k in range(copies_each):
            rng = np.random.default_rng([seed, i, k])
            length = int(rng.integers(1, max_edits + 1))
            data, names = plant_file(picture, rng, num_edits=length, num_borders=int(edits == "borders"))
            suffix = ".png" if data.startswith(b"\x89PNG") else ".jpg"
            (folder / f"{len(source):06}{suffix}").write_bytes(data)
            source.append(i)
            chains.append(names)
    return Pool(folder, np.array(source, np.int64), chains)


def _decoded(file: Path) -> Image.Image:
    picture = inspect_image(file.read_bytes(), ImageLimits()).picture
    assert picture is not None
    return picture


def score_run(pool: Pool, name: str, work: Path, changes: Sequence[str]) -> PoolScore:
    """One of our runs, as a program of its own."""
    workdir, out = work / f"run-{name}", work / f"{name}.json"
    arguments = ["run", "dedup", f"workdir={workdir}", f"sources.pool={pool.folder}", "write=null"]
    command = [sys.executable, "-m", "benchmarks.stage_seconds", str(out), *arguments, *RUNS[name], *changes]
    cost = _launched(command)
    run = curate.open_run(workdir)
    stages = json.loads(out.read_text())
    stages["start and end of the program"] = max(0.0, cost.cpu_seconds - sum(stages.values()))
    return score_pool(pool, name, _groups(run, len(pool.source)), cost, promised=_promised(run), stages=stages)


def score_peer(pool: Pool, tool: str, work: Path, peers: Path | None) -> PoolScore | str:
    """A peer's score, or why there is none."""
    out = work / f"{tool}.json"
    command = [str(peers or sys.executable), str(Path(copy_peers.__file__)), tool, str(pool.folder), str(out)]
    try:
        cost = _launched(command)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()[-1:] or ["it said nothing"]
        return said[0] if error.returncode == copy_peers.UNAVAILABLE else f"failed: {said[0]}"
    pairs = [[int(Path(name).stem) for name in pair] for pair in json.loads(out.read_text())]
    rows, cols = np.array(pairs, np.int64).reshape(-1, 2).T
    return score_pool(pool, tool, connected_components(len(pool.source), rows, cols), cost)


def _launched(command: list[str]) -> Cost:
    """Run a program to its end.

    Raises:
        CalledProcessError: it failed.
    """
    ran = subprocess.run([sys.executable, "-c", LAUNCH, *command], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise subprocess.CalledProcessError(ran.returncode, command, stderr=ran.stderr)
    seconds, peak = ran.stdout.split()
    return Cost(float(seconds), int(peak) * PEAK_UNIT)


def _groups(run: Run, number: int) -> np.ndarray:
    """(N,) int64: the group of each file; rejected ones are alone."""
    keys = run.tables["catalog"].read_all(["image_id", "key"]).to_pylist()
    place = {row["image_id"]: int(Path(row["key"]).stem) for row in keys}
    groups = np.arange(number)
    for row in run.tables["duplicates"].read_all(["image_id", "component_id"]).to_pylist():
        groups[place[row["image_id"]]] = place[row["component_id"]]
    return groups


def _promised(run: Run) -> float | None:
    """The precision that the run's calibration was asked to keep; None: it had none."""
    manifests = (table.complete_manifest() for table in run.tables.values())
    return next((float(found.config["precision"]) for found in manifests if found.stage == CALIBRATION), None)


def score_pool(
    pool: Pool,
    method: str,
    groups: np.ndarray,
    cost: Cost,
    *,
    promised: float | None = None,
    stages: dict[str, float] | None = None,
) -> PoolScore:
    """Count pairs of images in one group, (N,), and copies that lie in one with their picture."""
    precision, recall = pair_shares(groups, pool.source)
    joined: dict[str, list[bool]] = {}
    for i, names in enumerate(pool.edits):
        for name in names:
            joined.setdefault(name, []).append(bool(groups[i] == groups[pool.source[i]]))
    by_edit = {name: Share(sum(hits), len(hits)) for name, hits in sorted(joined.items())}
    rate = len(groups) / cost.cpu_seconds
    f1 = harmonic_share(groups, pool.source)
    return PoolScore(method, precision, recall, f1, rate, cost, by_edit, promised, stages)


def pool_as_json(found: PoolScores) -> str:
    """The scores for programs."""
    rows = []
    for score in found.scores:
        shares = {name: getattr(score, name).as_dict() for name in ("precision", "recall", "f1")}
        by_edit = {name: share.as_dict() for name, share in score.recall_by_edit.items()}
        rows.append(asdict(score) | shares | {"recall_by_edit": by_edit})
    return json.dumps(asdict(found) | {"machine": machine(), "scores": rows}, indent=2)


def format_pool(found: PoolScores) -> str:
    """The scores as tables: pairs and cost, recall by edit, CPU seconds by table; then who was not run, and why."""
    lines = [f"{found.images} files of {found.pictures} pictures; in brackets bounds of 95 %"]
    head = f"{'precision':<21} {'promised':<9} {'recall':<21} {'F1':<21} {'images/CPU s':>12} {'CPU s':>7} {'MiB':>6}"
    lines.append(f"{'method':<11} {head}")
    for score in found.scores:
        promised = "" if score.promised is None else f"{score.promised:.3f}"
        lines.append(
            f"{score.method:<11} {format_share(score.precision):<21} {promised:<9} {format_share(score.recall):<21} "
            f"{format_share(score.f1):<21} {score.images_per_cpu_second:>12.1f} {score.cost.cpu_seconds:>7.1f} "
            f"{score.cost.peak_bytes / MIB:>6.0f}"
        )
    lines += ["", f"{'recall of':<15} {'copies':>6}  " + "  ".join(f"{s.method:<20}" for s in found.scores).rstrip()]
    for name, share in found.scores[0].recall_by_edit.items():
        cells = (format_share(score.recall_by_edit[name]) for score in found.scores)
        lines.append(f"{name:<15} {share.of:>6}  " + "  ".join(f"{cell:<20}" for cell in cells).rstrip())
    for score in found.scores:
        if score.stages:
            lines += ["", *_format_stages(score)]
    lines += ["", *(f"{tool}: {why}" for tool, why in found.not_run.items())]
    return "\n".join(lines)


def _format_stages(score: PoolScore) -> list[str]:
    stages, total = score.stages or {}, score.cost.cpu_seconds
    large = {name: seconds for name, seconds in stages.items() if seconds >= SMALL_SHARE * total}
    rest = sum(stages.values()) - sum(large.values())
    rows = [*large.items(), (f"the other {len(stages) - len(large)}", rest)]
    head = f"{score.method}: {'CPU seconds by table':<38} {'CPU s':>7} {'share':>6}"
    return [head, *(f"{name:<{len(score.method) + 40}} {s:>7.2f} {s / total:>6.1%}" for name, s in rows)]
