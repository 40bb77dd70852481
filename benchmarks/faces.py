"""Recall and precision of the face detector on faces that were marked by hand, and what the networks of screening cost.

The pictures are the bundled photographs, of which 6 show faces that a person can make out. `faces.csv` has a box for
each of these, and boxes within which a detection counts neither way: crowds of specks (`unclear`) and faces of stone
(`statue`). A face is found where a detection overlaps its box by a third of their union or more.
"""

import csv
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from PIL import Image

from benchmarks.figures import Figure, show
from curate.cli.arguments import Json
from curate.models.screening.faces import FaceFinder
from curate.models.screening.nudity import NudityScorer
from curate.models.screening.shipped import FACES, NUDITY, TEXT
from curate.models.screening.text import TextFinder
from curate.ops.images.decoding import decode_picture
from curate.ops.images.inspect import ImageLimits
from curate.ops.screening.looks import LOOKS, Pictured, measure_looks
from curate.samples.bundled import PHOTOS

MARKS = Path(__file__).with_name("faces.csv")
DECODE_SIDE = 256
"""Pixels of the short side that a first pass decodes, as `inspect.decode_side` is."""
SIDES = (192, 256, 384)
LEAST = (0.2, 0.3, 0.4, 0.5, 0.6)
OVERLAP = 1 / 3
"""Share of the union of a marked and a found box that they share at least."""


class Marks(NamedTuple):
    """What was marked in a picture, boxes in pixels."""

    faces: list[np.ndarray]
    ignored: list[np.ndarray]


class Counts(NamedTuple):
    """Of all pictures."""

    faces: int
    found: int
    detections: int
    """Those that count: of faces and of what is none."""


def read_marks(file: Path = MARKS) -> dict[str, Marks]:
    """By picture, relative to its folder, what was marked in it."""
    marks: dict[str, Marks] = defaultdict(lambda: Marks([], []))
    with file.open(newline="") as rows:
        for row in csv.DictReader(rows):
            box = np.array([float(row[side]) for side in ("left", "top", "right", "bottom")])
            (marks[row["picture"]].faces if row["kind"] == "face" else marks[row["picture"]].ignored).append(box)
    return dict(marks)


def count_found(found: Mapping[str, np.ndarray], marks: Mapping[str, Marks], *, least: float) -> Counts:
    """Compare detections with marks.

    Args:
        found: by picture, (N, 5) boxes in pixels and confidence, which falls.
        least: confidence from which on a detection counts.
    """
    faces = matched = detections = 0
    for name, boxes in found.items():
        mine = marks.get(name, Marks([], []))
        left = [box for box in boxes if box[4] >= least]
        faces += len(mine.faces)
        for face in mine.faces:
            overlaps = [_overlap(face, box) for box in left]
            if overlaps and max(overlaps) >= OVERLAP:
                del left[int(np.argmax(overlaps))]
                matched += 1
        detections += sum(not any(_is_centered_in(box, region) for region in mine.ignored) for box in left)
    return Counts(faces, matched, matched + detections)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the union of two boxes that they share."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(across, 0.0) * max(down, 0.0)
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def _is_centered_in(box: np.ndarray, region: np.ndarray) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return bool(region[0] <= x <= region[2] and region[1] <= y <= region[3])


def bench_faces(
    folder: Path = PHOTOS, marks: Path = MARKS, *, sides: Sequence[int] = SIDES, weights: str | None = None
) -> list[Figure]:
    """Recall and precision at each side and confidence, then CPU time of each network that is installed.

    Raises:
        MissingExtra: the package of the face detector is not installed.
    """
    wanted, finder = read_marks(marks), FaceFinder(FACES.find(weights))
    pictures = {path.relative_to(folder).as_posix(): _decoded(path) for path in sorted(folder.rglob("*.jpg"))}
    figures: list[Figure] = []
    for side in sides:
        start = time.process_time()
        found = {name: finder.find(picture, side=side, least=min(LEAST)) for name, picture in pictures.items()}
        spent = (time.process_time() - start) / len(pictures)
        for name, boxes in found.items():
            width, height = pictures[name].size
            found[name] = boxes * (width, height, width, height, 1)
        figures += _quality(found, wanted, side)
        figures.append(Figure(f"faces at {side} pixels", 1000 * spent, "CPU ms an image", better="lower"))
    return [*figures, *_costs(folder, list(pictures.values()))]


def _decoded(path: Path) -> Image.Image:
    return decode_picture(path.read_bytes(), min_side=DECODE_SIDE)


def _quality(found: Mapping[str, np.ndarray], marks: Mapping[str, Marks], side: int) -> Iterator[Figure]:
    for least in LEAST:
        counts = count_found(found, marks, least=least)
        where = f"at {side} pixels, confidence {least:g}"
        recall, precision = counts.found / counts.faces, counts.found / max(1, counts.detections)
        yield Figure(f"recall {where}", recall, "share", note=f"{counts.found} of {counts.faces} faces")
        yield Figure(f"precision {where}", precision, "share", note=f"{counts.found} of {counts.detections} detections")


def _costs(folder: Path, pictures: Sequence[Image.Image]) -> Iterator[Figure]:
    """CPU time an image of decoding and of all else that looks at pictures."""
    data = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
    limits = ImageLimits()
    yield _cost("decoding", lambda one: decode_picture(one, min_side=DECODE_SIDE, bounds=limits.bounds), data)
    yield _cost("looks", lambda one: measure_looks(Pictured(one, one.width, one.height, b""), list(LOOKS)), pictures)
    if NUDITY.is_there():
        yield _cost("nudity", NudityScorer(NUDITY.find()).score, pictures)
    if TEXT.is_there():
        finder = TextFinder(TEXT.find())
        yield _cost("text at 384 pixels", lambda one: finder.share(one, side=384), pictures)


def _cost(name: str, call: Callable[[Any], Any], given: Sequence[Any]) -> Figure:
    start = time.process_time()
    for one in given:
        call(one)
    return Figure(name, 1000 * (time.process_time() - start) / len(given), "CPU ms an image", better="lower")


def command(
    pictures: Annotated[Path, typer.Option(help="folder of JPEG files")] = PHOTOS,
    marks: Annotated[Path, typer.Option(help="CSV file of boxes: picture,left,top,right,bottom,kind")] = MARKS,
    weights: Annotated[str | None, typer.Option(help="ONNX file of the detector")] = None,
    json_: Json = False,
) -> None:
    """Recall and precision of the face detector on marked faces, and CPU time of the networks of screening."""
    show(bench_faces(pictures, marks, weights=weights), json_)
