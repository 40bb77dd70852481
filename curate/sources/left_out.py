"""What a source holds and a run does not read: counted by reason, each reason with one example."""

# ruff: noqa: PTH120
# Paths are bytes here, which pathlib does not take: a name need not be text.

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from curate.sources.limits import MAX_NAME_BYTES, MAX_SIDECAR_BYTES, shortened
from curate.sources.uri import decode_uri, encode_uri

UNMATCHED = "description without an image"
TOO_LONG = f"description longer than {MAX_SIDECAR_BYTES >> 20} MiB"
LINK_OUT = "description that is a link out of the source"
UNREADABLE_TABLE = "table of descriptions that cannot be read"
UNMATCHED_ROW = "row of a table of descriptions without an image"
NO_ROW = "image without a row in its table of descriptions"
LONG_KEY = f"name longer than {MAX_NAME_BYTES} bytes"
LONG_PATH = f"path longer than {MAX_NAME_BYTES} bytes in a row of a Parquet file, which is called by its number instead"
OUTSIDE = "path or link that leads out of the source and of its `roots`"
UNSAFE, LINK, SPARSE, DEVICE, LONG_NAME, SIZES = REFUSED_MEMBERS = (
    "tar member with an unsafe name",
    "tar member that is a link",
    "sparse tar member",
    "tar member that is a device or pipe",
    f"tar member with a name longer than {MAX_NAME_BYTES} bytes",
    "tar member of which two headers tell different sizes",
)
LOSSES = (
    *(TOO_LONG, LINK_OUT, UNREADABLE_TABLE, UNMATCHED_ROW, NO_ROW, LONG_KEY, LONG_PATH, OUTSIDE),
    *REFUSED_MEMBERS,
)
"""Reasons of which a person should know."""


class LeftOut(Counter[str]):
    """Files, members and rows that were left out, by reason; `example` names the first of each."""

    def __init__(self) -> None:
        super().__init__()
        self.example: dict[str, str] = {}
        self.outside: bytes | None = None
        """A folder in which files lie that only `roots` would allow; None: there were none."""
        self.once: set[tuple[str, str]] = set()
        """(reason, name) of what several tasks may meet, and that counts once."""

    def pack(self) -> dict[str, Any]:
        """As a value for JSON."""
        outside = None if self.outside is None else encode_uri(self.outside)
        counts = {reason: [number, self.example.get(reason)] for reason, number in self.items()}
        return {"counts": counts, "outside": outside, "once": sorted(self.once)}

    def take(self) -> dict[str, Any]:
        """What `pack` gives; from now on nothing is counted."""
        packed = self.pack()
        self.clear()
        self.example.clear()
        self.once.clear()
        self.outside = None
        return packed

    def add(self, packed: Mapping[str, Any]) -> None:
        """Add what `pack` gave for files that come later in the listing."""
        twice = Counter(reason for reason, name in map(tuple, packed["once"]) if (reason, name) in self.once)
        self.once.update(map(tuple, packed["once"]))
        for reason, (number, example) in packed["counts"].items():
            if number > twice[reason]:
                leave_out(self, reason, example or "", number - twice[reason])
        if packed["outside"] is not None:
            self.leave_outside(decode_uri(packed["outside"]))

    def leave_outside(self, folder: bytes) -> None:
        """Note that something in a folder would need `roots`."""
        common = os.path.commonpath([self.outside or folder, folder])
        self.outside = common if common.strip(b"/") else self.outside  # not all of the machine


def leave_out(counts: Counter[str], reason: str, name: str, number: int = 1) -> None:
    """Count what is left out under a reason; a `LeftOut` keeps the first name as its example."""
    counts[reason] += number
    if isinstance(counts, LeftOut):
        counts.example.setdefault(reason, shortened(name))


def leave_outside(counts: Counter[str], name: str, path: bytes) -> None:
    """Count a local path that leads out of its source."""
    leave_out(counts, OUTSIDE, name)
    if isinstance(counts, LeftOut):
        counts.leave_outside(os.path.dirname(os.path.realpath(path)))


def count_all(counts: Counter[str], more: LeftOut) -> None:
    """Add what was left out of files that come later in the listing."""
    if isinstance(counts, LeftOut):
        counts.add(more.pack())
    else:
        counts.update(more)


def leave_out_once(counts: Counter[str], reason: str, name: str) -> None:
    """Count what several tasks may meet: a `LeftOut` counts it once."""
    if isinstance(counts, LeftOut):
        if (reason, name) in counts.once:
            return
        counts.once.add((reason, name))
    leave_out(counts, reason, name)


def is_loss(reason: str, number: int, *, num_images: int) -> bool:
    """Whether a person should know: data were refused, or descriptions do not fit the images of their source.

    A few descriptions without an image, as a `README.txt` seems to be one, are no loss.
    """
    return reason in LOSSES or (reason == UNMATCHED and number > max(1, num_images // 100))
