"""Errors that pass: a pool on a web server and an object store, nearly a third of which fails, run twice.

Of the images that fail, some recover after two requests, as a busy server does; the others are away for the whole of
the first run. Every kind of error that fsspec and S3 hide is among them. The second run is the same command. What it
ends with is compared with a run at which nothing failed, table by table, by the digests of their rows.
"""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.faulty import STORE, FaultyServer, FaultyStore, draw_picture, register_store
from benchmarks.figures import Figure, show
from curate.cli.arguments import Json
from curate.engine.freshness import Flags
from curate.engine.open_rows import OpenRows, find_open
from curate.engine.store import Store
from curate.errors import TooManyUnavailable
from curate.recipe import RecipeConfig, load_config
from curate.running import declare, run_config

WEB_FAULTS = ("503", "429 0", "refused")
STORE_FAULTS = ("403", "503", "expired", "refused")
BRIEF = 2
"""Requests for which a fault lasts that passes within the run."""
COMPARED = ("catalog", "images", "embeddings/copy", "duplicates")
"""Tables whose digests are compared."""


@dataclass
class Pool:
    """Pictures on a server, on one that is down at first, and in a store; and which of them fail."""

    web: dict[str, bytes] = field(default_factory=dict)
    down: dict[str, bytes] = field(default_factory=dict)
    """On a server that answers from the second run on."""
    store: dict[str, bytes] = field(default_factory=dict)
    web_faults: dict[str, list[str]] = field(default_factory=dict)
    store_faults: dict[str, list[str]] = field(default_factory=dict)
    away: int = 0
    """Images that fail for all of the first run."""

    @classmethod
    def make(cls, num_images: int, *, share: float, seed: int) -> "Pool":
        """Half of the pictures on the web, half in the store; `share` of them fails, in turns by all kinds."""
        pool, rng = cls(), np.random.default_rng(seed)
        failing = np.flatnonzero(rng.permutation(num_images) < round(share * num_images))
        kinds = dict(zip(failing.tolist(), range(len(failing)), strict=True))
        for number, data in enumerate(draw_picture(rng) for _ in range(num_images)):
            turn = kinds.get(number)
            pool._place(number, data, on_web=number % 2 == 0, turn=turn)
        return pool

    def _place(self, number: int, data: bytes, *, on_web: bool, turn: int | None) -> None:
        name, faults = f"{number:05d}.jpg", WEB_FAULTS if on_web else STORE_FAULTS
        fault = "" if turn is None else faults[turn // 2 % len(faults)]
        lasting = turn is not None and (turn % 3 > 0 or (on_web and fault == "refused"))
        self.away += lasting
        planned = [f"{fault}*"] if lasting else [fault] * BRIEF
        if not on_web:
            self.store[f"bucket/{name}"] = data
            self.store_faults |= {f"bucket/{name}": planned} if fault else {}
        elif fault == "refused":
            self.down[f"/{name}"] = data
        else:
            self.web[f"/{name}"] = data
            self.web_faults |= {f"/{name}": planned} if fault else {}


def bench_unavailable(
    num_images: int, *, share: float = 0.3, seed: int = 0, workdir: Path | None = None
) -> list[Figure]:
    """Run `dedup` on a failing pool twice, and once on the same pool without a failure.

    Args:
        share: of the images that fail, 0..1.
        workdir: an empty folder; None: a temporary one.
    """
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        root, pool = workdir or Path(temporary), Pool.make(num_images, share=share, seed=seed)
        store, web, down = register_store(), FaultyServer(pool.web, pool.web_faults), FaultyServer(pool.down)
        store.objects.update(pool.store)
        store.faults.update(pool.store_faults)
        address = stack.enter_context(web.serve())
        with down.serve() as reserved:
            port = int(reserved.rsplit(":", 1)[1])
        urls = [*(f"{address}{path}" for path in pool.web), *(f"{reserved}{path}" for path in pool.down)]
        (root / "urls.txt").write_text("\n".join(sorted(urls)) + "\n")

        first, seconds, raised = _run(root, "run")
        asked = _requests(web, down)
        for faults in (pool.web_faults, store.faults):
            faults.clear()
        stack.enter_context(down.serve(port))
        second, again, _ = _run(root, "run")
        asked_again = _requests(web, down) - asked
        full = _run(root, "never")[1]
        images = Store(str(root / "run")).table("images").read_all(["reject"])["reject"]
        equal = sum(_digests(root / "run", name) == _digests(root / "never", name) for name in COMPARED)
    return [
        Figure("open after the first run", first.images, "images", "planned", pool.away, note=first.describe()),
        Figure("first run ends with exit status 3", int(raised), "of 1"),
        Figure("open after the second run", second.images, "images"),
        Figure("not accepted after the second run", len(images) - images.null_count, "images"),
        Figure("requests of the first run", asked, "", "images", num_images, better="lower"),
        Figure(
            "requests of the second run",
            asked_again,
            "",
            "open before",
            first.images,
            better="lower",
            note="the report's pictures among them",
        ),
        Figure("first run", seconds, "s", "without a failure", full, better="lower"),
        Figure("second run", again, "s", "without a failure", full, better="lower"),
        Figure("tables equal to a run without a failure", equal, f"of {len(COMPARED)}"),
    ]


def _run(root: Path, name: str) -> tuple[OpenRows, float, bool]:
    """What is open, seconds, and whether it was too much."""
    start = time.perf_counter()
    config = _config(root, name)
    try:
        found, raised = run_config(config, Flags()).unavailable, False
    except TooManyUnavailable:
        found, raised = find_open(declare(config, Store(config.workdir))), True
    return found, time.perf_counter() - start, raised


def _config(root: Path, name: str) -> RecipeConfig:
    sources = (
        f"[{{name: web, path: {root}/urls.txt, private_addresses: true}}, {{name: store, path: '{STORE}://bucket'}}]"
    )
    waits = ["sources.network.first_wait=0.02", "executor.threads=1", "write=null"]
    return load_config("dedup", [f"sources.pool={sources}", f"workdir={root}/{name}", *waits])


def _requests(*servers: FaultyServer) -> int:
    return sum(server.requests.total() for server in servers) + FaultyStore.requests.total()


def _digests(workdir: Path, name: str) -> list[str]:
    return [part.content for part in Store(str(workdir)).table(name).parts()]


def command(
    num_images: Annotated[int, typer.Option("-n", help="images of the pool")] = 500,
    share: Annotated[float, typer.Option(help="share of the images that fail")] = 0.3,
    seed: Annotated[int, typer.Option(help="seed of the pool and of what fails")] = 0,
    json_: Json = False,
) -> None:
    """A pool that fails for a while (503, 429, refused, S3 403): what is open after one run, and lost after two."""
    show(bench_unavailable(num_images, share=share, seed=seed), json_)
