"""Shards of a training and labeled sets of an evaluation, filled by strangers: the limits of a run hold there too."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.hostile import pictures
from benchmarks.hostile.case import Case, Picture, good_pictures
from benchmarks.hostile.tables import IMAGE, good_table, parquet

EITHER, FAILS = frozenset({0, 1}), frozenset({1})
BAD = (
    "PPM with 4 MB of comments",
    "PPM in letters, a comment at each number",
    "JPEG of 5000 scans over 36 megapixels",
    "TIFF of 64 megapixels of float32",
    "large PNG RGBA16",
    "PNG 2^31-1 square",
    "JPEG2000 of 88 megapixels in 10 kB",
    "HTML",
    "empty",
)
"""Pictures that are met here too."""


def cases(seed: int) -> Iterator[Case]:
    """A picture among good ones, and files that are no shards."""
    chosen = {
        one.name: one
        for one in pictures.pictures(seed)
        if one.name in BAD or one.name.endswith("PNG RGB 2^31-1 square")
    }
    for name, picture in chosen.items():
        yield Case(
            f"{name}: train", partial(_train_on, picture, seed), exits=EITHER, said=("a.parquet", "does not decode")
        )
        yield Case(
            f"{name}: eval", partial(_evaluate, picture, seed), exits=EITHER, said=("bad.jpg", "does not decode")
        )
        yield Case(
            f"{name}: eval of Parquet",
            partial(_evaluate_table, picture, seed),
            exits=EITHER,
            said=("data.parquet row 15", "does not decode"),
        )
        # Its model shows nothing, which is told once the pictures are read: without a download there is no other.
        yield Case(f"{name}: visualize", partial(_visualize, picture), exits=EITHER)
    for name, put in _files(seed).items():
        yield Case(f"{name}: train", partial(_train_file, put), exits=FAILS, said=("shards",))
        yield Case(f"{name}: eval", partial(_evaluate_file, put), exits=FAILS, said=("shards",))


def _table_with(picture: Picture, seed: int) -> pa.Table:
    bad = pa.table({"image": pa.array([{"bytes": picture.make(), "path": "bad.jpg"}], IMAGE)})
    return pa.concat_tables([good_table(seed, 15), bad])


def _training(folder: Path) -> list[str]:
    steps = ["iterations=1", "batch_size=16", "checkpoint_every=1", "workers=0", "model.depth=1"]
    return ["train", "train/tiny", f"shards={folder / 'shards'}", f"output={folder / 'out'}", *steps]


def _train_on(picture: Picture, seed: int, folder: Path) -> list[list[str]]:
    (folder / "shards").mkdir()
    (folder / "shards" / "a.parquet").write_bytes(parquet(_table_with(picture, seed)))
    return [_training(folder)]


def _evaluation(data: Path, *more: str) -> list[str]:
    return ["eval", "lite0", "--data", str(data), "--measures", "knn", *more]


def _evaluate(picture: Picture, seed: int, folder: Path) -> list[list[str]]:
    found = list(good_pictures(seed, 11))
    for number, (name, data) in enumerate(found):
        place = folder / "data" / f"class-{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    (folder / "data" / "class-1" / "bad.jpg").write_bytes(picture.make())
    return [_evaluation(folder / "data")]


def _evaluate_table(picture: Picture, seed: int, folder: Path) -> list[list[str]]:
    table = _table_with(picture, seed)
    table = table.append_column("label", pa.array([number % 2 for number in range(len(table))]))
    (folder / "data.parquet").write_bytes(parquet(table))
    return [_evaluation(folder / "data.parquet", "--label", "label")]


def _visualize(picture: Picture, folder: Path) -> list[list[str]]:
    (folder / "bad.jpg").write_bytes(picture.make())
    return [["visualize", "lite0", str(folder / "bad.jpg"), "--output", str(folder / "views"), "--no-attention"]]


Put = Callable[[Path], object]


def _files(seed: int) -> dict[str, Put]:
    whole = parquet(good_table(seed))

    def data(content: bytes) -> Put:
        return lambda path: path.write_bytes(content)

    return {
        "pipe": os.mkfifo,
        "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "link to nothing": lambda path: path.symlink_to("nowhere"),
        "shard that is cut": data(whole[: len(whole) // 2]),
        "shard of garbage": data(b"PAR1" + bytes(1000) + b"PAR1"),
        "shard without images": lambda path: pq.write_table(pa.table({"label": [1, 2]}), path),
        "shard with images of text": lambda path: pq.write_table(
            pa.table({"image": ["a", "b"], "label": [1, 2]}), path
        ),
        "shard of no rows": lambda path: pq.write_table(
            good_table(seed).slice(0, 0).append_column("label", pa.array([], pa.int64())), path
        ),
    }


def _train_file(put: Put, folder: Path) -> list[list[str]]:
    (folder / "shards").mkdir()
    put(folder / "shards" / "a.parquet")
    return [_training(folder)]


def _evaluate_file(put: Put, folder: Path) -> list[list[str]]:
    (folder / "shards").mkdir()
    put(folder / "shards" / "a.parquet")
    return [_evaluation(folder / "shards", "--label", "label")]
