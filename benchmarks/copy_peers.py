"""Other tools that find copies, each on a folder of pictures, in an environment that need not have ours.

`INTERPRETER copy_peers.py TOOL FOLDER OUT` writes the pairs of files that the tool takes for copies, as JSON. It ends
with UNAVAILABLE, and says why, where the tool is not installed. Nothing of ours is imported: the file is run by the
interpreter of the other tool.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

UNAVAILABLE = 3
"""Exit code where a tool is not installed."""
PDQ_BITS = 31
"""The distance that PDQ's authors publish for copies."""
BLOCK = 1024
"""Hashes that are compared with all others at once."""


def pdqhash(folder: Path) -> Iterator[tuple[str, str]]:
    """Facebook's PDQ in the package `pdqhash`: distances of at most 31 of 256 bits."""
    import numpy as np
    import pdqhash
    from PIL import Image

    names, hashes = sorted(path.name for path in folder.iterdir()), []
    for name in names:
        with Image.open(folder / name) as picture:
            bits, _ = pdqhash.compute(np.asarray(picture.convert("RGB")))
        hashes.append(np.where(bits, np.float32(1), np.float32(-1)))
    signs = np.stack(hashes)
    least = signs.shape[1] - 2 * PDQ_BITS
    for start in range(0, len(signs), BLOCK):
        rows, cols = np.nonzero(signs[start : start + BLOCK] @ signs.T >= least)
        for row, col in zip((rows + start).tolist(), cols.tolist(), strict=True):
            if row < col:
                yield names[row], names[col]


def imagededup(folder: Path) -> Iterator[tuple[str, str]]:
    """The perceptual hash of the package `imagededup` at its own default, 10 of 64 bits."""
    from imagededup.methods import PHash  # type: ignore[import-not-found]

    for name, others in PHash(verbose=False).find_duplicates(image_dir=folder).items():
        yield from ((name, other) for other in others if name < other)


TOOLS: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {"pdqhash": pdqhash, "imagededup": imagededup}


def main(tool: str, folder: str, out: str) -> None:
    """See the head of this file."""
    try:
        pairs = list(TOOLS[tool](Path(folder)))
    except ImportError as error:
        print(f"not installed: {error}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    Path(out).write_text(json.dumps(pairs), encoding="utf-8")


if __name__ == "__main__":
    # The folder of this file would come before the packages, and its `select.py` before Python's.
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    main(*sys.argv[1:])
