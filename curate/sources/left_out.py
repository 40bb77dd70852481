"""What a source holds and a run does not read: counted by reason, each reason with one example."""

from collections import Counter

from curate.sources.sidecars import MAX_SIDECAR_BYTES

UNMATCHED = "description without an image"
TOO_LONG = f"description longer than {MAX_SIDECAR_BYTES >> 20} MiB"
LINK_OUT = "description that is a link out of the source"
UNREADABLE_TABLE = "table of descriptions that cannot be read"
UNMATCHED_ROW = "row of a table of descriptions without an image"
NO_ROW = "image without a row in its table of descriptions"
UNSAFE, LINK, SPARSE, DEVICE = REFUSED_MEMBERS = (
    "tar member with an unsafe name",
    "tar member that is a link",
    "sparse tar member",
    "tar member that is a device or pipe",
)
LOSSES = (TOO_LONG, LINK_OUT, UNREADABLE_TABLE, UNMATCHED_ROW, NO_ROW, *REFUSED_MEMBERS)
"""Reasons of which a person should know."""


class LeftOut(Counter[str]):
    """Files, members and rows that were left out, by reason; `example` names the first of each."""

    def __init__(self) -> None:
        super().__init__()
        self.example: dict[str, str] = {}


def leave_out(counts: Counter[str], reason: str, name: str, number: int = 1) -> None:
    """Count what is left out under a reason; a `LeftOut` keeps the first name as its example."""
    counts[reason] += number
    if isinstance(counts, LeftOut):
        counts.example.setdefault(reason, name)


def is_loss(reason: str, number: int, *, num_images: int) -> bool:
    """Whether a person should know: data were refused, or descriptions do not fit the images of their source.

    A few descriptions without an image, as a `README.txt` seems to be one, are no loss.
    """
    return reason in LOSSES or (reason == UNMATCHED and number > max(1, num_images // 100))
