"""Files that a curation should reject, each kind for a reason of its own."""

import numpy as np
from PIL import Image

from curate.samples.edits import encode_jpeg


def make_junk(kind: str, picture: Image.Image, rng: np.random.Generator) -> bytes:
    """A file of one of `JUNK_KINDS`; some kinds are made from the picture."""
    if kind == "junk_uniform":
        width, height = (int(v) for v in rng.integers(64, 400, 2))
        red, green, blue = (int(v) for v in rng.integers(0, 256, 3))
        return encode_jpeg(Image.new("RGB", (width, height), (red, green, blue)), 85)
    if kind == "junk_noise":
        height, width = (int(v) for v in rng.integers(64, 300, 2))
        return encode_jpeg(Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)), 60)
    if kind == "junk_tiny":
        side = int(rng.integers(1, 32))
        return encode_jpeg(picture.resize((side, max(1, side * picture.height // picture.width))), 85)
    if kind == "junk_truncated":
        data = encode_jpeg(picture, 85)
        return data[: int(len(data) * rng.uniform(0.02, 0.7))]
    if kind == "junk_text":
        page = b"<html><head><title>404 Not Found</title></head><body>gone %d</body></html>\n"
        return page % rng.integers(0, 10**9)
    if kind == "junk_empty":
        return b""
    return _make_strip(picture, rng)


def _make_strip(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """A picture of an extreme aspect, lying or standing."""
    width, height = picture.size
    if rng.random() < 0.5:
        lying = picture.crop((0, height // 2, width, height // 2 + max(8, height // 12)))
        return encode_jpeg(lying.resize((width * 2, 24)), 85)
    standing = picture.crop((width // 2, 0, width // 2 + max(8, width // 12), height))
    return encode_jpeg(standing.resize((24, height * 2)), 85)
