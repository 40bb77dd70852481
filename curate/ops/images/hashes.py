"""PDQ perceptual hashes: 256 bits an image, and the hashes of its mirrored and turned copies without the image."""

import numpy as np
from PIL import Image

HASH_BYTES = 32
"""Bytes of a hash."""
GRID = 16
"""PDQ keeps the signs of 16 x 16 DCT coefficients (against their median)."""
THUMBNAIL = 64
"""PDQ's DCT works on 64 x 64 luma."""

MATCH_BITS = 40
"""Hamming distance up to which two pictures are copies, in whichever orientation is closest. Looser than the usual 31,
since the variants of `dihedral` are a few bits off; on the bundled photographs different pictures come as near as 44
(two planets on black)."""

DIHEDRAL = (
    "identity",
    "flip_left_right",
    "flip_top_bottom",
    "rotate_180",
    "transpose",
    "rotate_90",
    "rotate_270",
    "transverse",
)
"""Order of the variants of `dihedral`; the names, in lower case, are those of `PIL.Image.Transpose`."""


def pdq(picture: Image.Image) -> tuple[bytes, int]:
    """The PDQ hash of an RGB picture.

    The picture is brought to 64 x 64 by Pillow's antialiased bilinear filter instead of PDQ's own box filters.
    That releases the GIL, costs a fraction, makes the hash of a mirrored picture follow from the bits, and moves
    fewer bits when a picture was rescaled; the price is a mean distance of 14 of 256 bits to hashes that other
    tools make of the same picture at 512 x 512.

    Returns:
        The 256 bits, packed into 32 bytes, and PDQ's quality, 0 (flat) to 100.

    Source: Facebook ThreatExchange, "PDQ hash", 2019.
    """
    import pdqhash

    small = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    bits, quality = pdqhash.compute(np.asarray(small))
    return np.packbits(bits.astype(np.uint8)).tobytes(), int(quality)


def dihedral(hashes: np.ndarray) -> np.ndarray:
    """The hashes of the eight mirrored and turned copies of each picture, from its stored hash alone.

    Mirroring negates the DCT coefficients of odd frequency, transposing swaps the axes. A negated coefficient
    is a complemented bit, but for those between the median and its negative: about 5 of 256 bits differ from
    the hash of the mirrored picture, far below any threshold in use.

    Args:
        hashes: (N, 32) uint8.

    Returns:
        (N, 8, 32) uint8, variants in the order of DIHEDRAL.
    """
    bits = np.unpackbits(hashes, axis=1).reshape(-1, GRID, GRID)
    odd = np.arange(GRID) % 2 == 1
    columns = np.broadcast_to(odd, (GRID, GRID))  # horizontal frequency
    rows = columns.T
    upright = [bits, bits ^ columns, bits ^ rows, bits ^ (rows ^ columns)]
    turned = [variant.transpose(0, 2, 1) for variant in upright]
    variants = np.stack(upright + turned, axis=1)  # (N, 8, 16, 16)
    return np.packbits(variants.reshape(len(bits), 8, GRID * GRID), axis=2)


def bits_to_cosine(bits: int) -> float:
    """The cosine of two hashes at this Hamming distance, taken as vectors of 256 values +1 and -1."""
    return 1 - 2 * bits / (8 * HASH_BYTES)
