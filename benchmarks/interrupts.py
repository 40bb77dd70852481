"""How long a command takes to end after a Ctrl-C, in every phase of every command.

The real command line runs in a session of its own. The work of a phase, such as a round of k-means, is done over and
over, so that the phase is still under way when SIGINT reaches all processes of the command, as it does when a terminal
sends it. What counts is the time until the command has ended and nothing of it is left. Two phases are no work of
ours: a C function that holds the interpreter's lock, and one that does not, which both never end.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.figures import Figure, show
from curate.cli.arguments import Json
from curate.engine.freshness import Flags
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.pool import make_pool

BEGUN = "the phase has begun"
PROGRAM = f"""
import inspect, signal, sys
from importlib import import_module

def endless(function):
    def again(*args, **kwargs):
        print({BEGUN!r}, file=sys.stderr, flush=True)
        while True:
            made = function(*args, **kwargs)
            if inspect.isgenerator(made):
                for _ in made:
                    pass
    return again

if __name__ == "__main__":  # processes that it spawns read this file, too
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell lets its background ignore them
        signal.signal(signum, signal.SIG_DFL)
    sys.argv[0] = "curate"
    place = sys.argv.pop(1)
    if place:
        module, _, path = place.partition(":")
        *owners, name = path.split(".")
        owner = import_module(module)
        for step in owners:
            owner = getattr(owner, step)
        setattr(owner, name, endless(getattr(owner, name)))
    from curate.__main__ import main
    main()
"""
"""Wraps the function that is named first, then is the command line of the other words."""
HOLDING = "import itertools; work = lambda *_: sum(itertools.repeat(1, 10**15))"
RELEASING = "import hashlib; work = lambda *_: hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
SECOND = 0.3
"""Seconds between the first Ctrl-C and the second."""
LIMIT = 30.0
"""Seconds after which a command counts as one that does not end."""


@dataclass(frozen=True)
class Phase:
    """A command, and the function in it that is interrupted."""

    name: str
    arguments: Sequence[str]
    place: str = ""
    """MODULE:NAME of the function; empty: the command is interrupted `after` so many seconds."""
    after: float = 0.2
    """Seconds from the beginning of the phase to the Ctrl-C."""
    instead: str = ""
    """Code that defines `work`, which takes the function's place."""
    twice: bool = False
    """Whether a second Ctrl-C follows: a training saves after the first, and what is done over and over here never
    comes to that."""


@dataclass(frozen=True)
class Ended:
    """How a command ended after a Ctrl-C."""

    seconds: float
    """Until the process that the shell waits for has ended; a second later none of its processes is left."""
    status: int
    """-2: it died of SIGINT, as a shell expects."""
    told: str
    """The last line of its error output."""


def phases(samples: Path, workdir: Path, shards: Path, output: Path) -> Iterator[Phase]:
    """Every phase, on a sample pool and the finished run over it.

    Args:
        output: a folder for what the commands begin to write, relative to that in which each runs.
    """
    new = [f"sources={samples / 'pool'}", f"workdir={output / 'run'}"]
    dedup = ["run", "dedup", *new]
    balanced = ["run", "hierarchical", *new, "embed.model=luma24"]
    train = ["train", "train/tiny", f"shards={shards}", f"output={output / 'train'}", "iterations=100000"]
    for after in (0.1, 0.2, 0.5, 1.0, 2.0):
        yield Phase(f"run: {after:g} s after the start", dedup, after=after)
        yield Phase(f"train: {after:g} s after the start", train, after=after)
    yield Phase("run: listing", dedup, "curate.sources.listing:_find")
    yield Phase("run: decoding", dedup, "curate.engine.tasks:_rows_together", after=1.0)
    yield Phase("run: embedding", dedup, "curate.models.backbones.backbone:Backbone.embed")
    yield Phase("run: search", dedup, "curate.ops.search.knn:_Join.block")
    yield Phase("run: k-means", balanced, "curate.ops.clusters.kmeans:run_lloyd")
    yield Phase("run: writing shards", dedup, "curate.stages.selection.write_shards:WriteShards.run")
    yield Phase("run: report", dedup, "curate.report.page:render_page")
    on_dask = [*dedup, "executor.kind=local"]
    yield Phase("run: starting Dask", on_dask, "curate.engine.dask_clusters.starting:_start_local", 1.0)
    yield Phase("run: waiting for Dask", on_dask, after=8.0)
    yield Phase("run --dry-run", [*dedup, "--dry-run"], "curate.running:list_source")
    yield Phase("train: reading footers", train, "curate.trainer.train:read_index")
    auto = ["train", "auto", f"shards={shards}", f"output={output / 'auto'}", "iterations=100000"]
    yield Phase("train auto: picking settings", auto, "curate.trainer.settling:pick_settings")
    yield Phase("train: an iteration", train, "curate.trainer.iteration:Trainer.step", twice=True)
    yield Phase("train: decode processes", [*train, "worker_kind=process"], after=9.0)
    yield Phase(
        "train: a checkpoint", [*train, "checkpoint_every=1"], "curate.trainer.checkpoint:_hash_file", 0.5, twice=True
    )
    bundled = ["--data", "bundled"]
    yield Phase("eval: features", ["eval", "lite0", *bundled], "curate.evaluation.features:embed_blocks", 1.0)
    yield Phase("eval: classifiers", ["eval", "luma24", *bundled], "curate.evaluation.logistic:fit_logistic", 0.5)
    dense = ["eval", "lite0", *bundled, "--tasks", "segmentation"]
    yield Phase("eval: features of patches", dense, "curate.evaluation.dense.encoder:PatchEncoder._forward", 0.5)
    seen = ["visualize", "curate", "bundled", f"--output={output / 'seen'}"]
    yield Phase("visualize", seen, "curate.evaluation.visualize:gather_pictures")
    yield Phase("export", ["export", "dinov2_vits14", "--to", "onnx"], "curate.models.convert.convert:load_source")
    yield Phase("plan", ["plan", "dedup", *new, "--images=1000"], "curate.scale.here:_product_rate")
    yield Phase("samples", ["samples", str(output / "pool")], "curate.samples.pool:_write_items")
    for looking in ("status", "report", "sweep"):
        yield Phase(
            looking,
            [looking, str(workdir)],
            "curate.workdir:find_tables" if looking == "status" else "curate.workdir:open_tables",
        )
    yield Phase("list", ["list", str(workdir), "--all", "--csv", "-"], "curate.answers.rows:list_images")
    written = ["write", str(workdir), str(output / "written"), "--to", "folder"]
    yield Phase("write", written, "curate.answers.write.write:write_images")
    yield Phase("review", ["review", str(workdir), "--no-open"], "curate.review.server:serve")
    yield Phase("verify", ["verify", str(workdir)], "curate.verifying:check_file")
    yield Phase("verify: shards", ["verify", str(workdir)], "curate.shard_check:_check_shard")
    yield Phase("clean", ["clean", str(workdir)], "curate.engine.cleaning:find_unneeded")
    yield Phase("doctor", ["doctor", "dedup", *new], "curate.doctor:disk_rates")
    explain = ["explain", str(workdir), "0"]
    yield Phase("explain", explain, "curate.report.finding:find_image")
    yield Phase("C code with the interpreter's lock", explain, "curate.workdir:open_tables", instead=HOLDING)
    yield Phase("C code without it", explain, "curate.workdir:open_tables", instead=RELEASING)


def interrupt(phase: Phase, *, folder: Path, signum: int = signal.SIGINT) -> Ended:
    """Start the command of a phase, send the signal to all of its processes, and wait for their end.

    Args:
        folder: where the command runs.

    Raises:
        RuntimeError: the command ended before the phase began.
        TimeoutError: it does not end.
    """
    program = PROGRAM
    if phase.instead:
        program = program.replace("endless(getattr(owner, name))", "endless(work)")
        program = f"{phase.instead}\n{program}"
    errors = folder / "stderr"
    script = folder / "command.py"  # a file, since processes that it spawns read it again
    script.write_text(program, encoding="utf-8")
    root = str(Path(__file__).parent.parent)
    with errors.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, str(script), phase.place, *phase.arguments],
            stdout=subprocess.DEVNULL,
            stderr=told,
            cwd=folder,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
        )
    try:
        while phase.place and BEGUN not in errors.read_text(errors="replace"):
            if process.poll() is not None:
                raise RuntimeError(f"{phase.name}: ended before: {errors.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        time.sleep(phase.after)
        if process.poll() is not None:
            raise RuntimeError(f"{phase.name}: ended before: {errors.read_text(errors='replace')[-2000:]}")
        if phase.twice:
            os.killpg(process.pid, signum)
            time.sleep(SECOND)
        start = time.perf_counter()
        os.killpg(process.pid, signum)
        status = process.wait(LIMIT)
        seconds = time.perf_counter() - start
        while left := _left(process.pid):
            if time.perf_counter() - start > LIMIT:
                raise TimeoutError(f"{phase.name}: processes {left} of the command are left")
            time.sleep(0.01)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = errors.read_text(errors="replace").splitlines() or [""]
    return Ended(seconds, status, lines[-1])


def _left(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, its_session = stat.read_bytes().rpartition(b")")[2].split()[:4]
            if int(its_session) == session and state not in b"ZX":
                found.append(int(stat.parent.name))
    return found


def bench_interrupts(*, only: str = "") -> list[Figure]:
    """Seconds from a Ctrl-C to the prompt, by phase.

    Args:
        only: phases whose name contains this.
    """
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        samples, workdir = Path(scratch, "samples"), Path(scratch, "run")
        make_pool(samples, num_images=200)
        run_config(load_config("dedup", [f"sources={samples / 'pool'}", f"workdir={workdir}"]), Flags())
        for number, phase in enumerate(phases(samples, workdir, workdir / "shards/data", Path("new"))):
            if only not in phase.name:
                continue
            folder = Path(scratch, f"phase-{number}")
            folder.mkdir()
            ended = interrupt(phase, folder=folder)
            note = (
                ""
                if ended.status == -signal.SIGINT and ended.told.startswith("interrupted: ")
                else (f"status {ended.status}, said {ended.told!r}")
            )
            figures.append(Figure(phase.name, ended.seconds, "s", better="lower", note=note))
    return figures


def command(
    only: Annotated[str, typer.Option(help="phases whose name contains this")] = "",
    json_: Json = False,
) -> None:
    """Seconds from a Ctrl-C to the prompt, in every phase of every command."""
    show(bench_interrupts(only=only), json_)
