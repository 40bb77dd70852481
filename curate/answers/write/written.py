"""What became of the images of a data set, counted while it is written."""

from dataclasses import dataclass

from curate.progress import Advance


@dataclass
class Written:
    """Counts of images."""

    images: int = 0
    """In the data set."""
    lost: int = 0
    """Not in it, since they are gone, have changed or cannot be had now; the log names each."""
    linked: int = 0
    """Of those in it, those that are links to files of the source."""


@dataclass
class Count:
    """Counts, and shows progress."""

    advance: Advance
    found: Written

    def have(self, number: int = 1) -> None:
        """So many more images are in the data set."""
        self.found.images += number
        self.advance(number)

    def lose(self, number: int = 1) -> None:
        """So many more are not."""
        self.found.lost += number
        self.advance(number)
