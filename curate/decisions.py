"""What a person decided about images: `decisions.csv`, which a run applies and never changes.

A line is `image,decision,other,note`. `image` and `other` name images as removal lists do (see `sources/entries.py`).
What a line means:

- `keep`: the image stays, whatever the copies say, and enters the selection beyond all draws and caps. Of images that
  resemble held-out ones, one that is named comes back; report and card then say so.
- `drop`: the image goes, and is never selected. Of the rest of its group the one stays that the rule prefers.
- `represent`: of its group this image stays, in place of the one that the rule would choose. Of a group that resembles
  held-out images none does; beside a curated image, which stays anyway, it stays too.
- `not-copies`: `image` and `other` are no copies of each other. Where other images tie the two together, both stay, and
  each of these others goes for the one that it resembles more. Without an `other`, the image is a copy of none, and no
  others are copies through it. An `other` may be held out, or curated. Equal bytes are copies in any case.

About one image the last of the lines `keep`, `drop`, `represent` and `not-copies` without `other` counts, and about one
pair the last line. No decision makes a picture readable: one that was rejected stays out. Of curated images `drop`
leaves one out, and `keep` keeps one that `select.drop_contaminated` would leave out.

The file is written by people, by `curate review`, and by both. It is read strictly, since a line that is skipped looks
like one that was applied. It is replaced as a whole, in one step: whoever reads meets the file before or after, never
half of it. On a file system of this machine a lock lets one writer in at a time, of whatever process; object stores
have no locks, so that there one process may write.
"""

import contextlib
import csv
import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fsspec.implementations.local import LocalFileSystem

from curate.errors import ConfigError, WorkdirError
from curate.filesystems import Explained, open_filesystem
from curate.locking import waiting
from curate.opening import NotRegularFile, read_regular
from curate.sources.entries import normalize_entry
from curate.text import decode_text, encoding_of, visible_line

Kind = Literal["keep", "drop", "not-copies", "represent"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FILE = "decisions.csv"
"""Name of the file in a workdir."""
COLUMNS = ("image", "decision", "other", "note")
NEEDED = COLUMNS[:2]
"""Columns that must be there."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the file."""

    image: str
    """SHA-256, key, uri or SOURCE/KEY."""
    decision: Kind
    other: str = ""
    """The other image of a pair, of `not-copies` alone; empty: all of its group."""
    note: str = ""
    """Whatever the person wants to remember."""

    def __post_init__(self) -> None:
        """Refuse (ValueError) what no line can say."""
        if self.decision not in KINDS:
            raise ValueError(f"decision {visible_line(self.decision)!r}; known are: {', '.join(KINDS)}")
        if not self.image:
            raise ValueError("image is empty; give its sha256, key, uri or SOURCE/KEY")
        if self.image != self.image.strip() or self.other != self.other.strip():
            raise ValueError("image or other begins or ends with a space; give its sha256")
        if self.other and self.decision != "not-copies":
            raise ValueError(f"{self.decision} is about one image; leave `other` empty")

    @property
    def about(self) -> tuple[str, str]:
        """The image or the pair, the same in whatever order and spelling it is given: of two lines the later counts."""
        image = normalize_entry(self.image)
        other = normalize_entry(self.other) if self.other else ""
        return (other, image) if "" < other < image else (image, other)


def read_decisions(path: str | Path) -> list[Decision]:
    """The decisions of a file, each about another image or pair; none where there is no file.

    Args:
        path: of a local file, or a URL.

    Raises:
        ConfigError: the file is no such table, or a line says nothing that is known; the text names file and line.
    """
    return last_ones(_Place(path).read()[0])


def read_bytes(path: str | Path) -> bytes | None:
    """The file as it is, for `parse_decisions`; None: there is none."""
    return _Place(path).read_bytes()


def append_decisions(path: str | Path, decisions: Iterable[Decision]) -> None:
    """Add decisions to a file, made where there is none; each replaces what the file says about the image or pair.

    Raises:
        ConfigError: as of `read_decisions`; the file stays as it is.
        WorkdirError: it cannot be written.
    """
    _change(path, lambda before: last_ones([*before, *decisions]))


def forget_decisions(path: str | Path, decisions: Iterable[Decision]) -> None:
    """Remove what a file says about the images and pairs of decisions, whatever it decides of them.

    Raises:
        ConfigError: as of `read_decisions`; the file stays as it is.
        WorkdirError: it cannot be written.
    """
    gone = {decision.about for decision in decisions}
    _change(path, lambda before: [one for one in last_ones(before) if one.about not in gone])


def last_ones(decisions: Iterable[Decision]) -> list[Decision]:
    """The last decision about each image or pair, in the order in which these came."""
    found: dict[tuple[str, str], Decision] = {}
    for decision in decisions:
        found.pop(decision.about, None)
        found[decision.about] = decision
    return list(found.values())


def parse_decisions(data: bytes, *, where: str) -> list[Decision]:
    """All lines of a file, those that later ones replace among them.

    Args:
        where: the file, for errors.

    Raises:
        ConfigError: as of `read_decisions`.
    """
    try:
        # As in lists without a byte order mark: names need not be text, and tables spell them so.
        text = decode_text(data, errors="strict" if encoding_of(data)[1] else "backslashreplace")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{where}: begins with the mark of {error.encoding}, but is none; save it as UTF-8"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ConfigError(f"{where}: line {line} holds a NUL byte; save it as UTF-8")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    places: dict[str, int] | None = None
    found: list[Decision] = []
    end = 0
    while True:
        line, row = end + 1, None  # a quoted name may go over several lines
        try:
            row = next(rows, None)
            if row is None:
                return found
            end = rows.line_num
            if not any(row):
                continue
            if places is None:
                places = _header(row)
            else:
                found.append(_decision(row, places))
        except (csv.Error, ValueError) as error:
            raise ConfigError(f"{where}: line {line}: {error}") from error


def _header(row: list[str]) -> dict[str, int]:
    """The place of each column."""
    names = [name.strip() for name in row]
    unknown = [visible_line(name) for name in names if name not in COLUMNS]
    missing = [name for name in NEEDED if name not in names]
    if unknown or missing or len(set(names)) < len(names):
        found = f"no column of these: {', '.join(unknown)}" if unknown else "not each of these columns once"
        raise ValueError(f"{found}; the first line must be `{','.join(COLUMNS)}`, with commas")
    return {name: place for place, name in enumerate(names)}


def _decision(row: list[str], places: dict[str, int]) -> Decision:
    if len(row) > len(places):
        raise ValueError(f"{len(row)} fields, the first line has {len(places)}; put names with commas in quotes")
    given = {name: row[place].strip() for name, place in places.items() if place < len(row)}
    return Decision(given.get("image", ""), given.get("decision", ""), given.get("other", ""), given.get("note", ""))  # type: ignore[arg-type]


def _written(decisions: Iterable[Decision], *, marked: bool) -> bytes:
    """The file; `marked`: with the byte order mark without which some programs take UTF-8 for something else."""
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(COLUMNS)
    for one in decisions:
        row = (one.image, one.decision, one.other, one.note)
        (quoted if "\r" in "".join(row) else plain).writerow(row)  # which it would not quote
    return text.getvalue().encode("utf-8-sig" if marked else "utf-8", "backslashreplace")


# -- the file ----------------------------------------------------------------------------------------------------------

_writing = threading.Lock()
"""Held by the thread that changes a file of an object store."""


def _change(path: str | Path, change: Callable[[list[Decision]], list[Decision]]) -> None:
    place = _Place(path)
    with place.alone():
        before, marked = place.read()
        after = change(before)
        if after != before:
            place.write(_written(after, marked=marked))


class _Place:
    """Where the file lies."""

    def __init__(self, path: str | Path) -> None:
        self.shown = str(path)
        fs, inner = open_filesystem(self.shown, error=WorkdirError)
        self.local = Path(inner).resolve() if isinstance(fs, LocalFileSystem) else None  # a link stays one
        self._fs, self._inner = Explained(fs, self.shown), inner

    def read(self) -> tuple[list[Decision], bool]:
        """All lines, and whether the file begins with a byte order mark; no lines where there is no file."""
        data = self.read_bytes()
        return ([], False) if data is None else (parse_decisions(data, where=self.shown), encoding_of(data)[1] > 0)

    def read_bytes(self) -> bytes | None:
        """The file; None: there is none."""
        try:
            return self._fs.cat_file(self._inner) if self.local is None else read_regular(self.local)
        except NotRegularFile as error:
            raise ConfigError(f"{self.shown}: {error.strerror}; give a CSV file") from error
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{self.shown}: cannot be read: {error.strerror or error}") from error

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within, no one else writes who asks in this way."""
        if self.local is None:
            with _writing:
                yield
            return
        with waiting(self._beside("lock")):
            yield

    def write(self, data: bytes) -> None:
        """Replace the file in one step; called by whoever holds it alone."""
        if self.local is None:
            self._fs.pipe_file(self._inner, data)
            return
        new = self._beside("new")  # one name, so that a killed process leaves one file, which the next one writes over
        try:
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.local)
        except OSError as error:
            raise WorkdirError(f"{self.shown}: cannot be written: {error.strerror or error}") from error

    def _beside(self, ending: str) -> Path:
        assert self.local is not None
        return self.local.with_name(f".{self.local.name}.{ending}")
