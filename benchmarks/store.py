"""Requests and bytes of a whole run on an object store, counted at the store, beside the same run on local disks.

The store is moto, an S3 of this machine in a process of its own, which writes down what it is asked. Three runs make
the tables of the quickstart without its training: everything on local disks, the sources on the store, and sources and
workdir on the store. Needed are the bytes of each image once for every pass that opens it, as the tables of the run
tell, and of tables what the local run reads of them.
"""

import http.client
import json
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pyarrow.compute as pc
import typer
import yaml

from benchmarks.figures import machine
from curate.cli.arguments import Json
from curate.config import read_yaml
from curate.counting import Counts
from curate.engine.store import Store
from curate.filesystems import open_filesystem
from curate.recipe import RecipeConfig, check_config, find_recipe
from curate.samples.pool import CURATED_CATEGORIES, make_pool
from curate.scale.estimate import size

ROLES = ("pool", "curated", "heldout")
BESIDE = 10 * len(CURATED_CATEGORIES) + 60
"""Curated and held-out images beside those of the pool."""
SOURCES, RUNS = "sources", "runs"
"""Buckets."""
TARS = "tars"
"""Folder of the images of the pool that lie in tars."""
CLIENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a client of S3 wants to know beside the address; moto takes anything."""
OTHERS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "http_proxy", "HTTP_PROXY")
"""What would lead it elsewhere."""
OPENED = {"images": None, "embeddings/retrieval": "vector", "internal/features/copy": "points", "selection": None}
"""Tables whose rows are images that were opened once, to the column that is null where one was not; None: all were.
Of `selection` the shards opened them."""
MOST_REQUESTS = 3.0
"""Requests an image that a run on the store may take."""
MOST_BYTES = 1.2
"""Times by which bytes that are read may exceed those that are needed."""
PLACES = ("local", "sources", "all")
"""Where the runs lie: nothing on the store, the sources, or the workdir too."""


class Asked(NamedTuple):
    """A request, as the store saw it."""

    kind: str
    """GET, HEAD, PUT, LIST, DELETE or POST."""
    path: str
    """`/bucket/key`."""
    num_bytes: int
    """Of an object that was sent or taken."""


@dataclass(frozen=True)
class Ran:
    """A finished run."""

    place: str
    images: int
    stages: dict[str, Counts]
    """By the tables of a step: what its tasks and the driver counted."""
    asked: list[Asked]
    """What the store saw; empty for a run that has nothing there."""
    needed_bytes: int
    """Of images, once for each pass that opens them."""

    @property
    def requests(self) -> float:
        """That the store saw, an image."""
        return len(self.asked) / self.images

    def kinds(self) -> dict[str, int]:
        """Requests by kind, the most frequent first."""
        found = [one.kind for one in self.asked]
        return dict(sorted(((kind, found.count(kind)) for kind in set(found)), key=lambda one: -one[1]))

    def read_bytes(self, bucket: str) -> int:
        """Bytes of objects that the store sent."""
        return sum(one.num_bytes for one in self.asked if one.kind == "GET" and one.path.startswith(f"/{bucket}/"))


def measure(num_images: int, places: Sequence[str], *, tars: bool = False, folder: Path | None = None) -> list[Ran]:
    """Runs over one pool of the bundled pictures.

    Args:
        num_images: of all sources together.
        places: some of `PLACES`.
        tars: pack half of the pool into tars of a hundred images.
        folder: where temporary folders go; None: where the system has them.
    """
    with tempfile.TemporaryDirectory(prefix="store-", dir=folder) as name, object_store() as (url, taken):
        here = Path(name)
        make_pool(here / "samples", num_images=num_images - BESIDE)
        if tars:
            pack_half(here / "samples")
        point_at(url)
        _upload(here / "samples")
        taken()
        ran = []
        for place in places:
            config = make_config(place, here, tars=tars)
            _run(config, here)
            asked = taken()
            ran.append(_look(place, config, num_images, asked))
            taken()
        return ran


def point_at(url: str) -> None:
    """Have this process, and those that it starts, ask the store at a URL and no other."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # a file system that was made before keeps its address
    os.environ.update(CLIENT | {"AWS_ENDPOINT_URL": url})
    for name in OTHERS:
        os.environ.pop(name, None)


def make_config(place: str, folder: Path, *, tars: bool = False) -> RecipeConfig:
    """The quickstart without its training."""
    values = {key: value for key, value in read_yaml("quickstart").items() if key not in ("pretrain", "evaluate")}
    root = f"{folder}/samples" if place == "local" else f"s3://{SOURCES}"
    sources: dict[str, Any] = {role: f"{root}/{role}" for role in ROLES}
    if tars:
        sources["pool"] = [{"name": name, "path": f"{root}/{name}"} for name in ("pool", TARS)]
    workdir = f"s3://{RUNS}/run" if place == "all" else f"{folder}/{place}"
    return check_config(values | {"recipe": "lvd142m", "workdir": workdir, "sources": sources}, where="quickstart")


def pack_half(folder: Path) -> None:
    """Move every other image of the pool into tars of a hundred."""
    (folder / TARS).mkdir()
    files = sorted((folder / "pool").iterdir())[::2]
    for first in range(0, len(files), 100):
        with tarfile.open(folder / TARS / f"{first:05d}.tar", "w") as tar:
            for file in files[first : first + 100]:
                tar.add(file, file.name)
                file.unlink()


def _upload(folder: Path) -> None:
    fs, _ = open_filesystem(f"s3://{SOURCES}")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.parent != folder:
            fs.pipe_file(f"{SOURCES}/{path.relative_to(folder)}", path.read_bytes())


def _run(config: RecipeConfig, folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    root = str(Path(__file__).parents[1])
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", "curate", "run", str(path)]
    ended = subprocess.run(command, capture_output=True, check=False, env=env)
    if ended.returncode:
        raise RuntimeError(f"curate run {path}: {ended.stderr.decode(errors='replace')[-2000:]}")


def _look(place: str, config: RecipeConfig, num_images: int, asked: list[Asked]) -> Ran:
    store = Store(config.workdir)
    stages = {}
    for step in find_recipe(config.recipe).outline(store, config).steps:
        first, *_, last = [*step.stages, *step.stages]
        made = store.table(first).complete_manifest()
        driver = store.table(last).complete_manifest().counted["driver"]
        tasks = Counts.sum(counts for phase, counts in made.counted.items() if phase != "driver")
        stages[first] = Counts.sum([tasks, driver])
    return Ran(place, num_images, stages, asked, _needed_bytes(store))


def _needed_bytes(store: Store) -> int:
    catalog = store.table("catalog").read_all(["image_id", "length"])
    lengths = dict(zip(catalog["image_id"].to_pylist(), catalog["length"].to_pylist(), strict=True))
    total = 0
    for name, column in OPENED.items():
        rows = store.table(name).read_all()
        rows = rows if column is None else rows.filter(pc.is_valid(rows[column]))
        total += sum(lengths[image_id] for image_id in rows["image_id"].to_pylist())
    return total


# -- the store ---------------------------------------------------------------------------------------------------------


@contextmanager
def object_store() -> Iterator[tuple[str, Callable[[], list[Asked]]]]:
    """An S3 with two buckets in a process of its own: its URL, and what gives and forgets what it was asked."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()

    def taken() -> list[Asked]:
        ours.send(None)
        return [Asked(*one) for one in ours.recv()]

    try:
        yield ours.recv(), taken
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    asked: list[Asked] = []
    inner = DomainDispatcherApplication(create_backend_app)

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            asked.append(_asked(environ, status, dict(headers)))
            return start(status, headers, *rest)

        answer: Iterable[bytes] = inner(environ, started)
        return answer

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    for bucket in (SOURCES, RUNS):
        asking = http.client.HTTPConnection("127.0.0.1", server.server_port)
        asking.request("PUT", f"/{bucket}")
        asking.getresponse().read()
        asking.close()
    pipe.send(url)
    while True:
        pipe.recv()
        pipe.send(asked.copy())
        asked.clear()


def _asked(environ: Mapping[str, Any], status: str, headers: Mapping[str, str]) -> Asked:
    kind, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].encode("latin-1").decode()
    if kind == "GET" and "/" not in path.strip("/"):
        return Asked("LIST", path, 0)
    if kind == "PUT":
        length = environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH") or environ.get("CONTENT_LENGTH")
    else:
        length = headers.get("Content-Length") if kind == "GET" and status.startswith("2") else 0
    return Asked(kind, path, int(length or 0))


# -- what is shown -----------------------------------------------------------------------------------------------------


def as_json(runs: Sequence[Ran]) -> str:
    """Everything that was counted, for programs."""
    found = [
        {
            "place": run.place,
            "images": run.images,
            "requests": len(run.asked),
            "requests_an_image": run.requests,
            "kinds": run.kinds(),
            "image_bytes": run.read_bytes(SOURCES),
            "needed_image_bytes": run.needed_bytes,
            "table_bytes": run.read_bytes(RUNS),
            "stages": {name: counts.as_json() for name, counts in run.stages.items()},
            "asked": [{"kind": kind, "folder": place, "requests": number} for (kind, place), number in _by_folder(run)],
        }
        for run in runs
    ]
    return json.dumps({"machine": machine(), "runs": found}, indent=2)


def _by_folder(run: Ran) -> list[tuple[tuple[str, str], int]]:
    return Counter((one.kind, one.path.rpartition("/")[0]) for one in run.asked).most_common()


def format_runs(runs: Sequence[Ran]) -> str:
    """By stage what each run took, then all together."""
    names = list(runs[0].stages)
    head = ["step", *(f"{run.place}: {what}" for run in runs for what in ("requests", "read"))]
    rows = [head]
    for name in names:
        counts = [run.stages[name] for run in runs]
        rows.append([name, *(cell for one in counts for cell in (f"{one.requests:,}", size(one.bytes_read)))])
    return "\n".join([*_aligned(rows), "", *map(_whole, runs)])


def _whole(run: Ran) -> str:
    if not run.asked:
        return f"{run.place}: {run.images:,} images, nothing on the store"
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in run.kinds().items())
    of_images = run.read_bytes(SOURCES) / run.needed_bytes
    text = (
        f"{run.place}: {len(run.asked):,} requests ({kinds}), {run.requests:.2f} an image (at most {MOST_REQUESTS:g}); "
        f"images: {size(run.read_bytes(SOURCES))} read, {of_images:.2f} times what is needed (at most {MOST_BYTES:g})"
    )
    return text + f"; tables: {size(run.read_bytes(RUNS))} read" * bool(run.read_bytes(RUNS))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def command(
    num_images: Annotated[int, typer.Option("-n", help="images, curated and held-out ones included")] = 2120,
    places: Annotated[list[str] | None, typer.Option(help=f"some of {', '.join(PLACES)}")] = None,
    tars: Annotated[bool, typer.Option(help="half of the pool in tars of a hundred")] = False,
    folder: Annotated[Path | None, typer.Option(help="where temporary folders go")] = None,
    json_: Json = False,
) -> None:
    """Requests and bytes of a run on an object store (moto), by stage and kind, beside the same run on local disks."""
    runs = measure(num_images, places or PLACES, tars=tars, folder=folder)
    print(as_json(runs) if json_ else format_runs(runs))
