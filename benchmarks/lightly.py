"""Our DINOv2 and DINOv3 steps beside the DINOv2 step of lightly-train, which runs in an environment of its own.

Each trainer runs as a process of its own for a few iterations and for more, on the bundled photographs, with the same
ViT-S, crops, heads and batch; a step is the difference of their CPU seconds by that of their iterations, so that
imports, the first step and the export do not count. lightly-train is under the AGPL; nothing of it is imported here:

    python -m venv peer && peer/bin/pip install lightly-train
    python -m benchmarks lightly --python peer/bin/python
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.figures import PEAK_UNIT, Figure, show
from benchmarks.shards import write_shard
from curate.cli.arguments import Json
from curate.config import merge
from curate.errors import ConfigError
from curate.samples.bundled import PHOTOS

GLOBAL, LOCAL, NUM_LOCAL = 112, 56, 8
"""Crops: sides in pixels of the two global ones and of the local ones."""
PROTOTYPES, HIDDEN, BOTTLENECK = 8192, 2048, 256
FEW, MORE = 2, 6
"""Iterations of the two runs."""

OURS: Mapping[str, Any] = {
    "model": {"preset": "small", "patch_size": 14, "drop_path": 0.0},
    "crops": {"global_size": GLOBAL, "local_size": LOCAL, "num_local": NUM_LOCAL},
    "objective": {
        **{"kind": "dinov2", "prototypes": PROTOTYPES, "head_hidden": HIDDEN, "head_bottleneck": BOTTLENECK},
    },
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
    "log_every": 1000,
    "checkpoint_every": 1000,
}
OUR_CODE = """
import json, sys
from curate.config import parse
from curate.trainer.config import TrainConfig
from curate.trainer.train import train
train(parse(TrainConfig, json.loads(sys.argv[1]), where="benchmark"))
"""
PEER_CODE = """
import json, sys
from lightly_train import pretrain
if __name__ == "__main__":
    pretrain(**json.loads(sys.argv[1]))
"""


class Run(NamedTuple):
    """What a process took."""

    cpu_seconds: float
    peak_bytes: int


def bench_lightly(python: str, *, batch: int = 16, threads: int = 1) -> list[Figure]:
    """CPU seconds of a step and peak memory of both objectives of ours, beside the peer's.

    Args:
        python: the interpreter of the environment that has lightly-train.
        batch: images of a step.
        threads: of each process.

    Raises:
        ConfigError: a trainer failed; the end of what it said is in the message.
    """
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch, "shards")
        write_shard(shards, [path.read_bytes() for path in sorted(PHOTOS.rglob("*.jpg"))], source="photos")
        peer = [
            _run(python, PEER_CODE, _of_peer(Path(scratch, f"peer-{n}"), batch, n), threads=threads)
            for n in (FEW, MORE)
        ]
        figures = []
        for kind in ("dinov2", "dinov3"):
            changes = {"shards": str(shards), "batch_size": batch, "objective": {"kind": kind}}
            runs = []
            for n in (FEW, MORE):
                values = merge(merge(OURS, changes), {"output": str(Path(scratch, f"{kind}-{n}")), "iterations": n})
                runs.append(_run(sys.executable, OUR_CODE, values, threads=threads))
            figures.append(
                Figure(
                    f"{kind}, ViT-S/14, {batch} images of 2 x {GLOBAL} and {NUM_LOCAL} x {LOCAL} px, fp32",
                    _step(runs),
                    "CPU s a step",
                    "lightly-train's dinov2",
                    _step(peer),
                    better="lower",
                    peak_bytes=runs[-1].peak_bytes,
                    note=f"peak of the peer {peer[-1].peak_bytes / 2**30:.2f} GiB; {threads} threads",
                )
            )
    return figures


def _of_peer(output: Path, batch: int, iterations: int) -> dict[str, Any]:
    """Arguments of lightly-train that mean what `OURS` does."""
    return {
        "out": str(output),
        "data": str(PHOTOS),
        "model": "dinov2/vits14-notpretrained",
        "method": "dinov2",
        "epochs": 1000,  # max_steps ends it
        "batch_size": batch,
        "num_workers": 0,
        "devices": 1,
        "accelerator": "cpu",
        "precision": "32-true",
        "model_args": {"drop_path_rate": 0.0},
        "method_args": {
            **{"output_dim": PROTOTYPES, "hidden_dim": HIDDEN, "dino_bottleneck_dim": BOTTLENECK},
            **{"ibot_separate_head": True, "ibot_bottleneck_dim": BOTTLENECK},
        },
        "transform_args": {
            "image_size": [GLOBAL, GLOBAL],
            "local_view": {"num_views": NUM_LOCAL, "view_size": [LOCAL, LOCAL]},
        },
        "trainer_args": {"max_steps": iterations},
    }


def _run(python: str, code: str, values: Mapping[str, Any], *, threads: int) -> Run:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryFile() as said:
        command = [python, "-c", code, json.dumps(values)]
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            told = said.read()[-2000:].decode(errors="replace")
            raise ConfigError(f"{python} ended with {process.returncode}; the end of what it said:\n{told}")
    return Run(used.ru_utime + used.ru_stime, used.ru_maxrss * PEAK_UNIT)


def _step(runs: Sequence[Run]) -> float:
    few, more = runs
    return (more.cpu_seconds - few.cpu_seconds) / (MORE - FEW)


def command(
    python: Annotated[str, typer.Option(help="interpreter of an environment that has lightly-train")],
    batch: Annotated[int, typer.Option(min=2, help="images of a step")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="of each process")] = 1,
    json_: Json = False,
) -> None:
    """CPU seconds of our steps beside lightly-train's, same network, crops, heads and batch."""
    show(bench_lightly(python, batch=batch, threads=threads), json_)
