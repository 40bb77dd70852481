"""Every error that `curate` raises on purpose: it says where, what was found, what is needed, what to do; and the texts
of other libraries' errors, made fit for tables."""

import re


class CurateError(Exception):
    """Something the user can act on; the command line prints it without a traceback."""


class ConfigError(CurateError):
    """A value, key or recipe of the configuration cannot be used."""


class NothingSelected(ConfigError):
    """No image is left to write; the tables that tell why are there."""


class SourceError(CurateError):
    """A source of images is missing, empty, unreadable or unsafe."""


class SourceUnavailable(SourceError):
    """A source could not be read at every attempt, by an error that may pass."""

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why or message


class SourceLost(SourceError):
    """A file that was listed is gone, or may not be read."""

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why or message


class SourceDamaged(SourceError):
    """An archive does not hold what was listed: it is damaged, or changed since."""


class TooManyUnavailable(CurateError):
    """More images could not be had this time than `sources.max_unavailable` allows. Every table is there without them,
    unless none could be had at all."""


class WorkdirError(CurateError):
    """The workdir belongs to another run, is in use, or cannot be written."""


class StaleTable(CurateError):
    """A table was made with another configuration; only a flag of the user's, `--update`, replaces it."""


class TableError(CurateError):
    """A table is absent, damaged, or does not fit the stage that reads it."""


class DamagedPart(TableError):
    """A part of a table does not hold the bytes that were written."""

    def __init__(self, message: str, table: str = "", part: int = 0) -> None:
        super().__init__(message)
        self.table, self.part = table, part


class TooManyRejects(CurateError):
    """More images were rejected than `max_reject_fraction` allows."""


class WorkerDied(CurateError):
    """Every process that a part was given to was killed."""


class ClusterError(CurateError):
    """The scheduler of a cluster is gone, no worker comes, or one cannot do the work."""


class WeightsError(CurateError):
    """A weight file is missing, has the wrong format, or does not fit the model."""


class TrainingDiverged(CurateError):
    """The loss of a training is no longer a number."""


class TrainingInterrupted(CurateError):
    """A training was told to stop by SIGTERM, and has written a checkpoint to go on from."""


class MissingExtra(CurateError):
    """A library of an optional extra is not installed."""

    def __init__(self, package: str, extra: str, text: str = "") -> None:
        """`text` takes the place of the usual sentence, where more than the extra is needed."""
        super().__init__(text or f"{package} is not installed; bring it with: {pip_install(extra)}")


def pip_install(extra: str) -> str:
    """The command that installs the package with one of its extras; on PyPI `curate` is another project's name."""
    return f"pip install 'curate-vision[{extra}]'"


def first_line(error: BaseException) -> str:
    """What a library's error says in its first line, or the kind of error where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


MAX_FOREIGN = 200
"""Characters of a library's text that are kept."""
_DIFFERING = (
    (re.compile(r"\bat 0x[0-9a-fA-F]+"), ""),  # <_io.BytesIO object at 0x7f3a...>
    (re.compile(r"\b0x[0-9a-fA-F]{6,}\b"), "an address"),
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>)\]]+"), "a URL"),  # may be signed, and belongs to one request
    (re.compile(r"([\'\"])(?:[A-Za-z]:)?[/\\\\][^\'\"]*\1"), "a path"),
    (re.compile(r"(?<![\w/])(?:[A-Za-z]:)?(?:[/\\\\][^\s/\\\\'\":,;<>()\[\]]+){2,}"), "a path"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "an id"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"), "a time"),
    (re.compile(r"\b\d+(?:\.\d+)? ?(?:ms|s|sec|secs|seconds?)\b"), "some time"),
    (re.compile(r"\b(thread|process|pid|task)(?:[-_ #]|\sid\s)?\d+\b", re.IGNORECASE), r"\1"),
)
"""What differs between two runs or two machines, and what stands for it."""


def foreign_text(error: BaseException) -> str:
    """What a library's error says, as it may enter a table: on one line, in valid UTF-8, equal in every run.

    Tables are compared by digest, so nothing may stay that belongs to one process or one machine: addresses of objects,
    numbers of threads and processes, times, URLs of one request, paths. Empty where the error says nothing.
    """
    text = str(error).encode("utf-8", "backslashreplace").decode()
    for found, instead in _DIFFERING:
        text = found.sub(instead, text)
    line = " ".join(text.split()).replace(" >", ">")
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:MAX_FOREIGN]
