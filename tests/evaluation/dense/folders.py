"""Tiny folders in the layouts of public sets."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32


def picture(path: Path, seed: int, *, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """Write a picture whose left part, of a random width, is bright; (H, W) bool, where that is."""
    rng = np.random.default_rng(seed)
    width, height = size
    bright = np.arange(width)[None, :].repeat(height, axis=0) < rng.integers(width // 4, 3 * width // 4)
    pixels = np.where(bright[..., None], 200, 60) + rng.integers(-20, 20, (height, width, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)
    return bright


def indices(path: Path, values: np.ndarray) -> None:
    """Write (H, W) indices as a PNG with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), mode="P")
    image.putpalette([value for number in range(256) for value in (number, 0, 255 - number)])
    image.save(path)


def write_ade(root: Path) -> Path:
    for half, num in (("training", 8), ("validation", 3)):
        for number in range(num):
            bright = picture(root / f"images/{half}/ADE_{number:04d}.jpg", number)
            indices(root / f"annotations/{half}/ADE_{number:04d}.png", np.where(bright, 5, 2))
    return root


def write_voc(root: Path) -> Path:
    names = [f"2007_{number:06d}" for number in range(9)]
    for number, name in enumerate(names):
        bright = picture(root / f"JPEGImages/{name}.jpg", number)
        labels = np.where(bright, 15, 0)
        labels[:, 0] = 255
        indices(root / f"SegmentationClass/{name}.png", labels)
        box = f"<xmin>1</xmin><ymin>1</ymin><xmax>{bright[0].sum()}</xmax><ymax>{SIDE}</ymax>"
        path = root / f"Annotations/{name}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"<annotation><object><name>person</name><bndbox>{box}</bndbox></object></annotation>")
    for name, chosen in {
        "Segmentation/train": names[:6],
        "Segmentation/val": names[6:],
        "Main/trainval": names,
    }.items():
        path = root / f"ImageSets/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(chosen))
    return root


def write_davis(root: Path) -> Path:
    for clip in ("bear", "camel"):
        for number in range(4):
            bright = picture(root / f"JPEGImages/480p/{clip}/{number:05d}.jpg", 7, size=(48, SIDE))
            indices(root / f"Annotations/480p/{clip}/{number:05d}.png", np.where(bright, 1, 0))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("bear\ncamel\n")
    return root


def write_nyu(root: Path) -> Path:
    for half, num in (("train", 8), ("test", 3)):
        lines = []
        for number in range(num):
            bright = picture(root / f"{half}/rgb_{number:05d}.jpg", number)
            depth = np.where(bright, 2000, 5000).astype(np.uint16)
            depth[0] = 0
            Image.fromarray(depth).save(root / f"{half}/sync_depth_{number:05d}.png")
            lines.append(f"/{half}/rgb_{number:05d}.jpg /{half}/sync_depth_{number:05d}.png 518.8579")
        (root / f"nyu_{half}.txt").write_text("\n".join([*lines, f"/{half}/rgb_00000.jpg None 518.8579"]))
    return root
