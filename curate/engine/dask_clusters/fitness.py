"""Whether a worker can do the driver's work: asked of each before, or as soon as, tasks are given to it.

`report` runs on the worker. It is sent by name, as tasks are, so a worker without this package fails here with the
error that a task would have met, and the driver can say which worker that is.
"""

import importlib
import importlib.metadata
import platform
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import curate
from curate.engine.dask_clusters.dask_log import DaskLog
from curate.engine.store import Store
from curate.errors import first_line

DISTRIBUTIONS = (
    *("dask", "distributed", "cloudpickle", "numpy", "scipy", "pyarrow", "fsspec", "torch", "torchvision", "timm"),
    *("open_clip_torch", "pillow", "opencv-python-headless", "pdqhash", "safetensors"),
)
"""Distributions of which workers and driver should have the same versions: what computes, reads and transports."""
FAISS = ("faiss-cpu", "faiss-gpu")
"""Any of them serves."""
NEEDED = {"torch", "faiss", "pyarrow", "numpy", "pillow"}
"""Without these no task runs."""

Versions = dict[str, str | None]
"""Version by name; None: not installed."""


@dataclass(frozen=True)
class Report:
    """What a worker says of itself."""

    versions: Versions
    sees_workdir: bool


def versions() -> Versions:
    """Versions of Python, of this package and of what it stands on, in this process."""
    found: Versions = {"python": platform.python_version(), "curate": curate.__version__}
    found |= {name: _version(name) for name in DISTRIBUTIONS}
    found["faiss"] = next(filter(None, map(_version, FAISS)), None)
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def report(root: str, token: str, log: str | None, dask_worker: Any = None) -> Report:
    """Look at the worker that this runs on, and set it up as the driver's own workers are.

    Args:
        root: the workdir.
        token: a file there that the driver has just written.
        log: file for what Dask says in this process; None: as the worker was started.
    """
    importlib.import_module("curate.engine.tasks")  # what tasks are made of
    _never_pause(dask_worker)
    if log is not None:
        DaskLog(Path(log)).take_over()
    try:
        sees = Store(root).read_bytes(token) is not None
    except OSError:
        sees = False
    return Report(versions(), sees)


def _never_pause(worker: Any) -> None:
    """Let a worker that runs full go on until its nanny ends it.

    Dask pauses a worker at 80 % of its memory, until what it holds is spilled to disk. Our workers hold nothing that
    could be: such a pause would have no end, and the run none either.
    """
    from distributed.core import Status

    memory = worker.memory_manager
    memory.memory_target_fraction = memory.memory_spill_fraction = memory.memory_pause_fraction = False
    if worker.status == Status.paused:
        worker.status = Status.running


def unfit(found: Mapping[str, Report | BaseException]) -> list[str]:
    """Why workers cannot be used, a sentence each; empty: all can.

    Args:
        found: by a worker's address, what `report` returned or raised there.
    """
    here = curate.__version__
    same = f"give it curate {here}, as the driver has, with all that it needs"
    problems = []
    for worker, one in found.items():
        if isinstance(one, BaseException):
            kind = "" if type(one) is Exception else f"{type(one).__name__}: "  # Dask has put the kind into the text
            problems.append(f"worker {worker}: {kind}{first_line(one)}; {same}")
        elif one.versions["curate"] != here:
            problems.append(f"worker {worker} has curate {one.versions['curate']}; {same}")
        elif absent := sorted(name for name in NEEDED if one.versions.get(name) is None):
            problems.append(f"worker {worker} has no {', no '.join(absent)}; {same}")
        elif not one.sees_workdir:
            problems.append(
                f"worker {worker} does not see what the driver writes to the workdir; every machine needs the same "
                "one under the same path (NFS, Lustre, an object store)"
            )
    return problems


def differing(found: Mapping[str, Report], here: Versions) -> list[str]:
    """Other versions than the driver's, a sentence for each; tables may then differ from those made elsewhere."""
    others: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for worker, one in found.items():
        for name, version in one.versions.items():
            if version != here.get(name):
                others[name, version].append(worker)
    return [
        f"{name} {version or 'missing'} on {workers[0]}{f' and {len(workers) - 1} more' if workers[1:] else ''}, "
        f"{here.get(name) or 'missing'} in the driver"
        for (name, version), workers in sorted(others.items(), key=str)
    ]
