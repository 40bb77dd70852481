"""A map of images: a point each, which shows its picture when it is pointed at or reached by the arrow keys.

Without its script the map is a plain drawing in the first of its colors. The pictures are small, and many lie in one
JPEG: a page of thousands of points holds a few of these sheets.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from curate.engine.show import Coloring, PointMap
from curate.ops.images.depth import SignificantBits
from curate.report.markup import Content, Markup, data_block, el
from curate.report.pictures import Pictures, by_part, decoded, encode
from curate.sources.read import Read

WIDTH, HEIGHT, MARGIN = 1000, 640, 18
"""Of the drawing."""
RADIUS = 5
TILE, COLUMNS = 96, 12
"""Pixels of a small picture, and how many are in a row of a sheet, which has as many rows."""
QUALITY = 60


def render_map(block: PointMap, pictures: Pictures) -> Markup:
    """The map with a switch of its colors, the picture of the point that is looked at, and the points as a list."""
    names = pictures.names(block.image_ids.tolist())
    told = [f"{names[image_id]} (image {image_id})" for image_id in block.image_ids.tolist()]
    values = {
        "sheets": [pictures.place(sheet) for sheet in _sheets(block.image_ids, pictures)],
        "tile": TILE,
        "columns": COLUMNS,
        "names": told,
        "colorings": [{"name": c.name, "labels": c.labels, "codes": c.codes.tolist()} for c in block.colorings],
    }
    look = el("div", el("i", class_="tile"), el("p", "Point at an image.", aria_live="polite"), class_="look")
    field = el("div", _drawing(block), look, class_="field")
    switch = el("div", class_="switch")
    return el("figure", switch, _legends(block), field, _listed(block, told), data_block(values), class_="map")


def _drawing(block: PointMap) -> Markup:
    """The points, in the first of their colors."""
    x, y = _places(block.x, WIDTH), _places(-block.y, HEIGHT)
    points = [
        el("circle", cx=cx, cy=cy, r=RADIUS, class_=f"c{code}" if code >= 0 else "c")
        for cx, cy, code in zip(x.tolist(), y.tolist(), block.colorings[0].codes.tolist(), strict=True)
    ]
    label = f"Map of {len(points)} images, those alike near each other; arrow keys go from point to point"
    return el("svg", points, viewBox=f"0 0 {WIDTH} {HEIGHT}", tabindex=0, role="application", aria_label=label)


def _legends(block: PointMap) -> list[Markup]:
    """What the colors mean, of which the first ones are seen."""
    return [
        el("div", _legend(coloring), class_="legend", hidden="" if place else None)
        for place, coloring in enumerate(block.colorings)
    ]


def _places(values: np.ndarray, size: int) -> np.ndarray:
    """(N,) pixels of coordinates. The farthest hundredth does not push all others together: it lies at the edge."""
    low, high = np.quantile(values, [0.005, 0.995]) if len(values) else (0.0, 1.0)
    share = np.clip((values - low) / ((high - low) or 1), 0, 1)
    return np.asarray(np.round(MARGIN + share * (size - 2 * MARGIN), 1))


def _legend(coloring: Coloring) -> Iterator[Markup]:
    numbers = np.bincount(coloring.codes[coloring.codes >= 0], minlength=len(coloring.labels)).tolist()
    for code, (label, number) in enumerate(zip(coloring.labels, numbers, strict=True)):
        yield el("span", el("i", class_=f"swatch c{code}"), f"{label}: {number:,}")
    others = int((coloring.codes < 0).sum())
    if others:
        yield el("span", el("i", class_="swatch c"), f"others: {others:,}")


def _listed(block: PointMap, told: list[str]) -> Markup:
    """What the points are, for those who cannot point."""
    head = el("tr", el("th", "image"), [el("th", coloring.name) for coloring in block.colorings])
    labels = [[*coloring.labels, "others"] for coloring in block.colorings]
    rows: list[Content] = []
    for row, name in enumerate(told):
        cells = [el("td", of[one.codes[row]]) for of, one in zip(labels, block.colorings, strict=True)]
        rows.append(el("tr", el("td", name), cells))
    table = el("table", el("thead", head), el("tbody", rows))
    return el("details", el("summary", "The points as a list"), el("div", table, class_="scroll tall"))


def _sheets(image_ids: np.ndarray, pictures: Pictures) -> Iterator[bytes]:
    """The small pictures in the order of the points, as JPEG."""
    tiles: dict[int, Image.Image | None] = {}
    for part, ids in by_part(image_ids.tolist()):
        tiles |= zip(ids.tolist(), pictures.each(part, ids, _tile), strict=True)
    for start in range(0, len(image_ids), COLUMNS * COLUMNS):
        sheet = Image.new("RGB", (TILE * COLUMNS, TILE * COLUMNS), (128, 128, 128))
        for place, image_id in enumerate(image_ids[start : start + COLUMNS * COLUMNS].tolist()):
            picture = tiles[image_id]
            if picture is not None:
                left, top = TILE * (place % COLUMNS), TILE * (place // COLUMNS)
                sheet.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
        yield encode(sheet, QUALITY)


def _tile(read: Read, bits: SignificantBits) -> Image.Image | None:
    picture, _ = decoded(read, TILE, bits)
    if picture is None:
        return None
    small = picture.copy()
    small.thumbnail((TILE, TILE))
    return small
