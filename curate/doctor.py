"""What `curate doctor` finds: whether this machine, and the sources and weights of a config, are fit for a run.

A run that fails after hours because a folder cannot be read, or a weight file is not there, could have said so at
once. Each check looks at what a run would use, by the code that the run would use, and tells what to do.
"""

import contextlib
import importlib.metadata
import importlib.util
import itertools
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import curate
from curate.config import Settings
from curate.engine.numbers import plural, size
from curate.errors import CurateError, first_line, pip_install
from curate.memory import machine_memory
from curate.recipe import RecipeConfig
from curate.scale.disk import disk_rates
from curate.text import visible_line

State = Literal["ok", "warn", "fail"]
"""ok; warn: a run works, but something may be missed; fail: a run would stop."""

LIBRARIES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "pyarrow": "pyarrow",
    "Pillow": "pillow",
    "OpenCV": "opencv-python-headless",
    "Dask": "dask",
    "numpy": "numpy",
}
"""What every run needs, by the name of the package in the registry."""
EXTRAS = {
    "s3": "s3fs",
    "gcs": "gcsfs",
    "azure": "adlfs",
    "http": "aiohttp",
    "formats": "pillow_heif",
    "huggingface": "transformers",
    "onnx": "onnxruntime",
    "report": "tensorboard",
    "slurm": "dask_jobqueue",
}
"""Extras, and a module that each brings."""
ON_HUB = ("dinov2", "dinov3", "timm/", "open_clip/")
"""Beginnings of the models whose weights a run fetches by itself where the hub can be reached."""
LISTED = 100
"""Images of each source that are listed."""
DISK_BYTES = 1 << 26
"""Bytes written and read to measure a disk."""
LEAST_DISK = 1 << 30
LEAST_MEMORY = 2 << 30
"""Bytes below which a warning is given."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    """What was looked at: `memory`, `sources.pool`."""
    state: State
    text: str
    """What was found."""
    advice: str = ""
    """What to do; empty: nothing."""


def examine(config: RecipeConfig | None = None) -> Iterator[Finding]:
    """Look at everything, one thing after the other.

    Args:
        config: of the run that is meant; None: the machine alone, and the current folder.
    """
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("versions", _versions),
        ("pictures", _pictures),
        ("faiss", _faiss),
        ("processor", _processor),
        ("GPU", _gpu),
        ("memory", lambda: _memory(config)),
        ("workdir", lambda: _disk("." if config is None else config.workdir)),
        ("extras", _extras),
    ]
    if config is not None:
        checks += [("weights", lambda: _weights(config)), ("sources", lambda: _sources(config))]
    for topic, check in checks:
        try:
            yield from check()
        except (CurateError, OSError, ImportError) as error:
            yield Finding(topic, "fail", first_line(error))


def _versions() -> Iterator[Finding]:
    yield Finding("curate", "ok", f"{curate.__version__}, in {Path(curate.__file__).parent}")
    state: State = "ok" if sys.version_info >= (3, 11) else "fail"
    yield Finding("Python", state, platform.python_version(), "" if state == "ok" else "install Python 3.11 or newer")
    found = {name: _version(package) for name, package in LIBRARIES.items()}
    known = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    missing = [LIBRARIES[name] for name, version in found.items() if version is None]
    yield Finding("libraries", "ok", known)
    if missing:
        yield Finding("libraries", "fail", f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _pictures() -> Iterator[Finding]:
    from PIL import features

    pillow = {"JPEG": "jpg", "PNG": "zlib", "WebP": "webp", "TIFF": "libtiff", "JPEG 2000": "jpg_2000", "AVIF": "avif"}
    there = [name for name, feature in pillow.items() if feature in features.get_supported()]
    there += [name for name, module in (("HEIC", "pillow_heif"), ("JPEG XL", "pillow_jxl")) if _is_installed(module)]
    yield Finding("pictures", "ok", f"read: {', '.join(there)}")
    missing = [name for name in pillow if name not in there]
    if missing:
        text = f"this build of Pillow does not read {', '.join(missing)}"
        yield Finding("pictures", "warn", text, "install Pillow from PyPI, whose wheels read them")
    if "HEIC" not in there or "JPEG XL" not in there:
        yield Finding("pictures", "warn", "HEIC or JPEG XL are not read", pip_install("formats"))


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _faiss() -> Iterator[Finding]:
    found = {name: version for name in ("faiss-cpu", "faiss-gpu") if (version := _version(name)) is not None}
    told = ", ".join(f"{name} {version}" for name, version in found.items())
    if not _is_installed("faiss"):
        yield Finding("faiss", "fail", "not installed", pip_install("cpu"))
    elif len(found) > 1:
        yield Finding("faiss", "fail", f"both {told} are installed", "pip uninstall both, then install one of them")
    else:
        yield Finding("faiss", "ok", told or "installed")


def _processor() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name, flags = platform.machine(), set[str]()
    with contextlib.suppress(OSError):
        facts = Path("/proc/cpuinfo").read_text(errors="replace")
        name = next(iter(re.findall(r"model name\s*: (.*)", facts)), name)
        flags = set(next(iter(re.findall(r"flags\s*: (.*)", facts)), "").split())
    wide = [word for flag, word in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags]
    text = f"{name}, {plural(usable, 'core')}{f', {wide[0]}' if wide else ''}"
    if platform.machine() == "x86_64" and flags and not wide:
        yield Finding("processor", "warn", f"{text}; no AVX2", "searches and models run several times slower here")
    else:
        yield Finding("processor", "ok", text)


def _gpu() -> Iterator[Finding]:
    import torch

    from curate.models.device import resolve_device

    if resolve_device().type == "cuda":
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            yield Finding("GPU", "ok", f"{facts.name}, {size(facts.total_memory)}, CUDA {torch.version.cuda}")
        if _version("faiss-gpu") is None:
            yield Finding("GPU", "warn", "faiss runs on the processor alone", pip_install("gpu"))
    elif shutil.which("nvidia-smi") is not None:
        text = f"there seems to be one, but torch {torch.__version__} cannot use it"
        yield Finding("GPU", "warn", text, "install the torch of your CUDA driver, see pytorch.org")
    else:
        yield Finding("GPU", "ok", "none; models run on the processor")


def _memory(config: RecipeConfig | None) -> Iterator[Finding]:
    there = machine_memory()
    executor = None if config is None else config.executor
    workers = 1 if executor is None or executor.kind != "local" else executor.workers or 2
    needed = LEAST_MEMORY if executor is None else 2 * workers * executor.task_bytes
    if there < needed:
        advice = "use fewer executor.workers or a smaller executor.task_memory" if executor else ""
        yield Finding("memory", "warn", f"{size(there)}; a run wants about {size(needed)}", advice)
    else:
        yield Finding("memory", "ok", size(there))


def _disk(workdir: str) -> Iterator[Finding]:
    """Space and speed of the place that the tables go to, and whether it may be written."""
    from curate.engine.store import Store

    store = Store(workdir)
    if not store.is_local:
        store.fs.exists(store.path)
        yield Finding("workdir", "ok", f"{store.root}: can be reached; the local disk of workers is not looked at")
        return
    folder = Path(store.path).absolute()
    place = next(one for one in (folder, *folder.parents) if one.exists())
    where = str(folder) if place == folder else f"{folder} (to be made in {place})"
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("workdir", "fail", f"{where}: may not be written", "choose another one with --workdir")
        return
    free = shutil.disk_usage(place).free
    if free < LEAST_DISK:
        advice = "make room, or choose another workdir with --workdir"
        yield Finding("workdir", "warn", f"{where}: {size(free)} free", advice)
        if free < 2 * DISK_BYTES:
            return
    write, read = disk_rates(place, num_bytes=DISK_BYTES)
    yield Finding("workdir", "ok", f"{where}: {size(free)} free, writes {size(write)}/s, reads {size(read)}/s")


def _extras() -> Iterator[Finding]:
    there = [extra for extra, module in EXTRAS.items() if _is_installed(module)]
    others = [extra for extra in EXTRAS if extra not in there]
    text = f"installed: {', '.join(there) or 'none'}; not installed: {', '.join(others) or 'none'}"
    yield Finding("extras", "ok", text, f"where one is wanted: {pip_install(others[0])}" if others else "")


def _weights(config: RecipeConfig) -> Iterator[Finding]:
    """The weights of every model that the config names."""
    from curate.models.backbones.load import describe

    for key, model, weights in _models_in(config, ""):
        try:
            info = describe(model, weights)
        except CurateError as error:
            yield Finding(key, "fail", first_line(error))
            continue
        if info.weights_present:
            place = info.weights or info.package or "nothing to load"
            yield Finding(key, "ok", f"{model}: {place}")
            continue
        fetched = weights is None and model.startswith(ON_HUB) and not os.environ.get("HF_HUB_OFFLINE")
        url = weights is not None and "://" in weights
        text = (
            "not on this machine; fetched when the run begins, where the network allows" if fetched or url else "absent"
        )
        yield Finding(key, "warn" if fetched or url else "fail", f"{model}: {text}", info.how_to_get)


def _models_in(settings: Settings, place: str) -> Iterator[tuple[str, str, str | None]]:
    """(key, model, weights) of all that embeds, in the order of the config."""
    fields = type(settings).model_fields
    named: Any = settings
    if {"model", "weights"} <= fields.keys() and named.model:
        yield place, named.model, named.weights
    for name in fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _models_in(value, f"{place}.{name}" if place else name)


def _sources(config: RecipeConfig) -> Iterator[Finding]:
    """The first images of every source, listed, and one of them read."""
    from curate.sources.listing import list_source
    from curate.sources.secrets import strip_text
    from curate.sources.uri import decode_uri, is_remote

    with config.sources.network.used():
        for role, source in config.sources.by_role():
            key = f"sources.{role}" if source.name == role else f"sources.{role} {source.name}"
            place = strip_text(source.path)
            start = time.perf_counter()
            try:
                found = list(itertools.islice(list_source(source), LISTED))
            except (CurateError, OSError) as error:
                yield Finding(key, "fail", strip_text(first_line(error)))
                continue
            took = time.perf_counter() - start
            locked = [
                one.uri for one in found if not is_remote(one.uri) and not os.access(decode_uri(one.uri), os.R_OK)
            ]
            if locked:
                first = f"{plural(len(locked), 'file')} of the first {len(found)}"
                text = f"{first} may not be read: {visible_line(locked[0])}"
                yield Finding(key, "fail", text, "give the user who runs this the right to read them")
                continue
            more = "the first " if len(found) == LISTED else ""
            yield Finding(key, "ok", f"{place}: {more}{plural(len(found), 'image')} listed in {took:.1f} s")
