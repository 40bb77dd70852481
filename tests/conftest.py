"""Property tests try the same examples in every run; HYPOTHESIS_PROFILE=default looks for new ones."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from curate import progress
from curate.cli.program import TABLES_MADE

settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's `&` lets all that it starts ignore Ctrl-C, which tests send, to wait for what comes of it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """A command that runs in this process chooses what is said: not for the tests after it."""
    yield
    progress.be_silent(False)
    for name in ("curate", TABLES_MADE):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def dedup_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool of 40 images, 6 curated and 8 held-out ones."""
    from curate.samples.pool import make_pool

    folder = tmp_path_factory.mktemp("dedup")
    make_pool(folder, num_images=40, seed=5, curated_each=1, num_heldout=8)
    return folder


@pytest.fixture(scope="session")
def dedup_run(dedup_pool: Path) -> Path:
    """A run of `dedup` on it, with parts of 25 images; copy it before you change it."""
    from curate.engine.freshness import Flags
    from curate.recipe import load_config
    from curate.running import run_config

    workdir = dedup_pool / "made/run"
    roles = [f"sources.{role}={dedup_pool / role}" for role in ("pool", "curated", "heldout")]
    given = [*roles, f"workdir={workdir}", "executor.threads=1", "rows_per_part=25"]
    run_config(load_config("dedup", given), Flags(), command=("dedup", *given))
    return workdir
