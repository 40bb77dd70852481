"""A finished run over a folder, a tar and Parquet, with everything in it that a listing tells: copies in all of them,
rejects, curated and held-out images and copies of both, captions and labels, and names that do harm."""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import curate
from curate.samples.bundled import photos_by_category

PHOTOS = [path for paths in photos_by_category().values() for path in paths[:2]][:20]
ODD = ('a\nb.jpg', 'quo"te, comma.jpg', "=cmd|x.jpg", "-rf.jpg", "Case.jpg", "case.jpg", "..b/..c.jpg", "Grüße 世界.jpg")
"""Names of files in the folder, each of another picture."""
BYTES = b"\xff\xfe.jpg"
"""A name that is no text."""


def jpeg(number: int, *, size: tuple[int, int] = (160, 120), quality: int = 92) -> bytes:
    """One of the bundled photographs, small; no two numbers are alike."""
    with Image.open(PHOTOS[number]) as file, io.BytesIO() as out:
        file.convert("RGB").resize(size).save(out, "JPEG", quality=quality)
        return out.getvalue()


def copy_of(number: int) -> bytes:
    """The same picture, smaller and in other bytes."""
    return jpeg(number, size=(120, 90), quality=75)


@dataclass(frozen=True)
class Made:
    """The run, and where its sources lie."""

    run: curate.Run
    root: Path


def write_sources(root: Path) -> dict[str, object]:
    """Pool (folder, tar, Parquet), curated and held-out images; the sources of a config."""
    for folder in ("photos/..b", "tars", "curated", "heldout"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(ODD):
        (root / "photos" / name).write_bytes(jpeg(number))
    Path(os.fsdecode(os.fsencode(root / "photos") + b"/" + BYTES)).write_bytes(jpeg(8))
    (root / "photos/case.txt").write_text("a caption,\nof two lines")
    (root / "photos/copy of a.jpg").write_bytes(copy_of(0))
    (root / "photos/same.jpg").write_bytes(jpeg(1))
    (root / "photos/broken.jpg").write_bytes(b"<html>gone</html>")
    (root / "photos/empty.jpg").write_bytes(b"")
    with tarfile.open(root / "tars/one.tar", "w") as tar:
        for name, data in (("x/0.jpg", jpeg(9)), ("x/0.txt", b"of the tar"), ("x/0.cls", b"7"), ("x/1.jpg", copy_of(2))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    pictures = [{"bytes": data, "path": None} for data in (jpeg(10), copy_of(9), jpeg(11), copy_of(12), copy_of(13))]
    table = pa.table({"image": pictures, "caption": ["p", None, "q", "r", "s"], "label": [0, 1, None, 1, 0]})
    pq.write_table(table, root / "rows.parquet")
    (root / "curated/c.jpg").write_bytes(jpeg(12))
    (root / "heldout/h.jpg").write_bytes(jpeg(13))
    pool = [{"name": name, "path": str(root / place)} for name, place in PLACES.items()]
    return {"pool": pool, "curated": str(root / "curated"), "heldout": str(root / "heldout")}


PLACES = {"photos": "photos", "tars": "tars", "rows": "rows.parquet"}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("answers")
    sources = write_sources(root)
    changes: dict[str, object] = {
        "rows_per_part": 4,
        "copies": {"verify": False, "borders": False, "crowds": "trust"},
        "clusters": {"levels": [4], "num_resamplings": 0},
        "screening": None,
    }
    run = curate.run("hierarchical", workdir=str(root / "run"), sources=sources, **changes)
    yield Made(run, root)
