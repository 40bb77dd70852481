"""Work that waits for a test: a pipeline and an objective that go on when a file says so.

As a program, `python -m tests.cluster.gated WORKDIR GATE`, the driver of such a pipeline with one Slurm job as worker.
"""

import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated

import pyarrow as pa

from curate.config import Execution, parse
from curate.engine.executors import ExecutorConfig, start_executor
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches
from curate.engine.store import Store
from tests.engine.test_pipeline import NONE, AddTo, ByParity, Count

PARTS = 10


class GatedAdd(AddTo):
    """A part is made while fewer parts are there than the gate's file says; a scheduler may begin with any."""

    gate: Annotated[str, Execution()]
    folder: Annotated[str, Execution()]
    """Of the table."""

    def run(self, part: int, *, numbers: pa.Table) -> Batches:
        Path(f"{self.gate}.reached").touch()
        while len(list(Path(self.folder).glob("part-*"))) >= int(Path(self.gate).read_text() or 0):
            time.sleep(0.05)
        yield from super().run(part, numbers=numbers)


def build(workdir: Path, gate: Path) -> Pipeline:
    p = Pipeline(Store(workdir), seed=0)
    numbers = p.add("numbers", Count(parts=PARTS))
    added = p.add("added", GatedAdd(gate=str(gate), folder=str(workdir / "added")), numbers=numbers)
    p.add("parity", ByParity(), numbers=added)
    return p


def main(workdir: str, gate: str) -> None:
    values = {"kind": "slurm", "workers": 1, "threads": 1, "memory_limit": "1GiB", "slurm": {"cpus": 1, "gpus": 1}}
    with start_executor(parse(ExecutorConfig, values, where="test")) as executor:
        build(Path(workdir), Path(gate)).run(executor, NONE)


if __name__ == "__main__":
    import_module("tests.cluster.gated").main(*sys.argv[1:])  # under its own name, by which workers find the stage
