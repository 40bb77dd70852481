"""From the maps that a face detector of the CenterNet kind gives to boxes of faces, and boxes that blurring covers.

Such a network has no anchors: one map says how likely a face is centered at each of its cells, and others how large it
is there and where in the cell its center lies. Neighboring cells see the same face, so of boxes that overlap the most
likely one stays.

Source: Xu et al. 2019, CenterFace, arXiv:1911.03599, sections 3.1 and 3.2.
"""

import numpy as np

STRIDE = 4
"""Pixels of a cell of the maps."""
MAX_OVERLAP = 0.3
"""Share of two boxes' union that their intersection may be."""
MAX_FACES = 1000
"""Most boxes of a picture that are looked at, the most likely ones."""


def decode_faces(
    heat: np.ndarray, scales: np.ndarray, offsets: np.ndarray, *, size: tuple[int, int], least: float
) -> np.ndarray:
    """Boxes of the faces in a picture.

    Args:
        heat: (h, w) float32, how likely a face is centered in each cell, 0..1.
        scales: (2, h, w) float32, logarithm of its height and width in cells.
        offsets: (2, h, w) float32, place of the center in the cell, down and right, in cells.
        size: width and height of the picture that the network saw, in pixels; boxes end there.
        least: confidence below which there is no face.

    Returns:
        (N, 5) float32: left, top, right, bottom as shares of width and height, 0..1, and the confidence, which falls.
    """
    rows, columns = np.nonzero(heat > least)
    found = heat[rows, columns]
    order = np.lexsort((columns, rows, -found))[:MAX_FACES]
    rows, columns, found = rows[order], columns[order], found[order]
    with np.errstate(over="ignore"):  # what a broken network says ends at the picture's sides too
        heights, widths = np.exp(scales[:, rows, columns]) * STRIDE
    middle_y = (rows + offsets[0, rows, columns] + 0.5) * STRIDE
    middle_x = (columns + offsets[1, rows, columns] + 0.5) * STRIDE
    width, height = size
    left, right = (np.clip(middle_x + sign * widths / 2, 0, width) / width for sign in (-1, 1))
    top, bottom = (np.clip(middle_y + sign * heights / 2, 0, height) / height for sign in (-1, 1))
    boxes = np.stack([left, top, right, bottom, found], axis=1).astype(np.float32)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    return boxes[_apart(boxes)]


def _apart(boxes: np.ndarray) -> list[int]:
    """Places of the boxes that no better one overlaps; boxes come in order of confidence."""
    left, top, right, bottom = boxes[:, :4].T
    areas = (right - left) * (bottom - top)
    kept: list[int] = []
    free = np.ones(len(boxes), bool)
    for place in range(len(boxes)):
        if not free[place]:
            continue
        kept.append(place)
        across = np.minimum(right, right[place]) - np.maximum(left, left[place])
        down = np.minimum(bottom, bottom[place]) - np.maximum(top, top[place])
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        free &= shared < MAX_OVERLAP * (areas + areas[place] - shared)
    return kept
