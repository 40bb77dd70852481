"""Which curated and held-out images could be used: whatever speaks of them says of how many of how many it does."""

from collections.abc import Mapping
from dataclasses import dataclass

from curate.engine.finished import Finished, ImagePlace
from curate.engine.numbers import count, plural
from curate.stages.images.inspect import Inspect, InspectFigures

ROLE_WORDS = {"curated": "curated", "heldout": "held-out"}


@dataclass(frozen=True)
class Usable:
    """The images of a role, and which of them could not be had or decoded."""

    role: str
    listed: int
    """Images in the catalog."""
    rejected: Mapping[str, int]
    """Reason to images that could not be used, the most frequent first."""
    names: tuple[str, ...]
    """Keys of the first of these."""

    @classmethod
    def of(cls, run: Finished, role: str) -> "Usable | None":
        """Of a run; None: it lists no image of the role, or has not inspected them."""
        found, listed = run.only(Inspect), run.parts.num_images([role])
        if found is None or listed == 0:
            return None
        lost = InspectFigures.of(found[1]).lost.get(role)
        if lost is None:
            return cls(role, listed, {}, ())
        names = tuple(_printable(run.place(image_id).row["key"]) for image_id in lost.first)
        return cls(role, listed, lost.reasons, names)

    @property
    def lost(self) -> int:
        """Images that could not be used."""
        return sum(self.rejected.values())

    @property
    def used(self) -> str:
        """How many could be used, such as `7 of 10 held-out images`."""
        return f"{count(self.listed - self.lost)} of {plural(self.listed, f'{ROLE_WORDS[self.role]} image')}"

    @property
    def why(self) -> str:
        """Why the others could not, such as `2 corrupt, 1 empty: a.png, b.png, c.png`."""
        reasons = ", ".join(f"{count(number)} {reason.replace('_', ' ')}" for reason, number in self.rejected.items())
        more = ", ..." if self.lost > len(self.names) else ""
        return f"{reasons}: {', '.join(self.names)}{more}" if self.names else reasons


def is_rejected(run: Finished, image: ImagePlace) -> bool:
    """Whether an image could not be used; False where nothing has inspected it."""
    found = run.only(Inspect)
    return found is not None and run.rows_of(image, found[1])[0]["reject"] is not None


def _printable(text: str) -> str:
    """A name from outside on one line, without control characters."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
