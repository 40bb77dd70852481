"""Whether balancing raises the share of junk, and what looking for it does: generated pictures among photographs."""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw

from benchmarks.figures import Figure, show
from curate.cli.arguments import Json
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.bundled import PHOTOS

SIDE = 256
NUM_CLUSTERS = 40
DRAWN = 0.4
"""Share of the pool that is drawn."""


def bench_junk(*, num_each: int = 20, num_photos: int = 338, seed: int = 0) -> list[Figure]:
    """Run the recipe `hierarchical` without and with looking for junk; every picture reaches the clusters.

    Args:
        num_each: pictures of each kind of junk.
        num_photos: bundled photographs at most.
    """
    with tempfile.TemporaryDirectory() as name:
        pool = write_pool(Path(name) / "pool", num_each=num_each, num_photos=num_photos, seed=seed)
        plain = _run(Path(name), "plain", "junk=null", seed=seed)
        searched = _run(Path(name), "searched", seed=seed)
        drawn = [_kinds(store, "selection") for store in (plain, searched)]
        found = [r["image_id"] for r in searched.table("internal/junk").read_all().to_pylist() if r["junk"]]
        kinds = Counter(_kind_of(searched)[image_id] for image_id in found)
    caught = sum(kinds.values()) - kinds["photo"]
    total = sum(pool.values()) - pool["photo"]
    shares = [1 - kept["photo"] / sum(kept.values()) for kept in (pool, *drawn)]
    note = ", ".join(f"{name} {kinds[name]} of {count}" for name, count in sorted(pool.items()))
    return [
        Figure("junk in the balanced draw", shares[2], "share", "without looking for it", shares[1], better="lower"),
        Figure("junk in the pool", shares[0], "share"),
        Figure("junk found", caught / max(1, total), "share", note=note),
        Figure("of what was found, junk", caught / max(1, sum(kinds.values())), "share"),
    ]


def write_pool(folder: Path, *, num_each: int, num_photos: int, seed: int) -> dict[str, int]:
    """JPEG files named by kind; how many of each there are."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    photos = sorted(PHOTOS.rglob("*.jpg"))[:num_photos]
    for number, path in enumerate(photos):
        (folder / f"photo_{number:04d}.jpg").write_bytes(path.read_bytes())
    for kind, make in KINDS.items():
        for number in range(num_each):
            make(rng).save(folder / f"{kind}_{number:04d}.jpg", quality=90)
    return {"photo": len(photos)} | dict.fromkeys(KINDS, num_each)


def _run(root: Path, name: str, *overrides: str, seed: int) -> Store:
    """Copies are not looked for, so that the pool's shares are known."""
    total = len(list((root / "pool").iterdir()))
    given = [f"sources.pool={root / 'pool'}", f"workdir={root / name}", f"seed={seed}"]
    given += ["copies.threshold=1", "copies.verify=false", "copies.hashes=false"]
    given += [f"clusters.levels=[{min(NUM_CLUSTERS, total // 4)}]", f"select.balance.target={round(DRAWN * total)}"]
    run_config(load_config("hierarchical", [*given, *overrides]), Flags())
    return Store(str(root / name))


def _kind_of(store: Store) -> dict[int, str]:
    rows = store.table("catalog").read_all(["image_id", "key"]).to_pylist()
    return {row["image_id"]: row["key"].split("_")[0] for row in rows}


def _kinds(store: Store, table: str) -> Counter[str]:
    kinds = _kind_of(store)
    return Counter(kinds[image_id] for image_id in store.table(table).read_all(["image_id"])["image_id"].to_pylist())


def _blots(rng: np.random.Generator) -> Image.Image:
    """Colored noise, smooth enough to pass the checks of a single image."""
    side = int(rng.integers(4, 40))
    noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _gradient(rng: np.random.Generator) -> Image.Image:
    shades = np.linspace(0, 255, SIDE)[:, None, None] * rng.random(3)
    picture = Image.fromarray(np.broadcast_to(shades, (SIDE, SIDE, 3)).astype(np.uint8))
    return picture.rotate(90 * int(rng.integers(0, 4)))


def _text(rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), tuple(int(v) for v in rng.integers(180, 256, 3)))
    draw = ImageDraw.Draw(picture)
    for y in range(5, SIDE - 6, int(rng.integers(9, 20))):
        draw.text((4, y), "".join(rng.choice(list("abcdefghij klmno"), 40)), fill=(0, 0, 0))
    return picture


KINDS: dict[str, Callable[[np.random.Generator], Image.Image]] = {"blots": _blots, "gradient": _gradient, "text": _text}
"""Pictures that no photograph is like, by their name."""


def command(
    num_each: Annotated[int, typer.Option("-n", help="generated pictures of each kind")] = 20,
    seed: Annotated[int, typer.Option(help="seed of pictures and run")] = 0,
    json_: Json = False,
) -> None:
    """Share of generated pictures in a pool of photographs, in a balanced draw, and in one without junk."""
    show(bench_junk(num_each=num_each, seed=seed), json_)
