"""What a hostile input is: bytes, the command that meets them, and what a user may then see."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.faulty import draw_picture

ACCEPTED = "accepted"
"""Stands for no reject reason."""
DAMAGED = frozenset({"truncated", "corrupt"})
"""An image format whose data are not whole."""
REFUSED = DAMAGED | {"not_an_image", "unsupported", "too_large", "too_small", "extreme_aspect", "too_slow"}
"""No picture comes of it."""
ANY = REFUSED | {ACCEPTED, "uniform", "noise", "empty"}
"""Some verdict, in time and within memory; which one depends on where a byte fell."""
GOOD = frozenset({ACCEPTED})
GONE = frozenset({"unreadable", "unavailable"})
"""Listed, and cannot be had."""
NUM_GOOD = 4
"""Pictures without fault beside each input of its own run."""


@dataclass(frozen=True)
class Picture:
    """A hostile file among pictures."""

    name: str
    make: Callable[[], bytes]
    verdicts: frozenset[str]
    """Those that are right: reject reasons, or `accepted`."""
    alone: bool = False
    """Whether it gets a run of its own, since it may take long."""

    @property
    def key(self) -> str:
        """Its name as a file."""
        return "".join(letter if letter.isalnum() or letter in "+-." else "_" for letter in self.name) + ".jpg"


@dataclass(frozen=True)
class Case:
    """A hostile input that commands of `curate` meet."""

    name: str
    make: Callable[[Path], Sequence[Sequence[str]]]
    """Writes it into a folder and returns the arguments of the commands, in order."""
    exits: frozenset[int] = frozenset({0})
    """Exit statuses of the last command that are right."""
    said: tuple[str, ...] = ()
    """What its messages must contain where it fails."""
    verdicts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By key, of a run that succeeds: the verdicts that are right."""
    absent: frozenset[str] = frozenset()
    """Keys that must not be listed."""
    good: int | None = 0
    """Pictures without fault, whose last step of the key begins with `good`: all of them are kept where it succeeds;
    None: those that are listed, however many."""
    accepted: int | None = None
    """Images that are accepted in all; None: whatever."""
    rest: frozenset[str] | None = None
    """Verdicts that are right for all others; None: any."""
    secret: str = ""
    """What no table and no message may contain."""
    untouched: Callable[[], bool] = lambda: True
    """Whether nothing happened that must not, such as a request or a file."""
    check: Callable[[Path], str] = lambda folder: ""
    """What else is wrong afterwards; empty: nothing."""
    inputs: int = 1


def rng_of(seed: int, name: str) -> np.random.Generator:
    """Numbers of an input that do not depend on the other inputs."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def good_pictures(seed: int, number: int = NUM_GOOD) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of JPEG files without fault, no two alike."""
    rng = rng_of(seed, "good")
    for place in range(number):
        yield f"good-{place}.jpg", draw_picture(rng)


def put_good(folder: Path, seed: int, number: int = NUM_GOOD) -> None:
    """Write good pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in good_pictures(seed, number):
        (folder / name).write_bytes(data)


SETTINGS = ("inspect.max_reject_fraction=1", "executor.threads=1", "sources.max_unavailable=1")
"""What every run is told: to go on with what is left."""
LIGHT = ("copies.hashes=false", "copies.verify=false", "copies.borders=false", "copies.crowds=trust")
"""What makes a run of few good pictures cheap: copies are searched for in one way alone."""


def run(folder: Path, source: str | Path, *settings: str, light: bool = True) -> list[str]:
    """The arguments of a run of `dedup` over a source, shards and report included."""
    given = [*SETTINGS, *(LIGHT if light else ()), *settings]
    return ["run", "dedup", f"sources.pool={source}", f"workdir={folder / 'run'}", *given]
