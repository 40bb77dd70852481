"""What a source holds and a run does not read: counted by reason, each reason with one example."""

from collections import Counter


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
    if reason.startswith("description without an image"):
        return number > max(1, num_images // 100)
    return reason.startswith(("description", "table of", "row of", "image without a row", "tar member", "sparse tar"))
