"""Every error that `curate` raises on purpose: it says where, what was found, what is needed, what to do."""


class CurateError(Exception):
    """Something the user can act on; the command line prints it without a traceback."""


class ConfigError(CurateError):
    """A value, key or recipe of the configuration cannot be used."""


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
    """A table was made with another configuration; only a flag of the user's rebuilds it."""


class TableError(CurateError):
    """A table is absent, damaged, or does not fit the stage that reads it."""


class TooManyRejects(CurateError):
    """More images were rejected than `max_reject_fraction` allows."""


class WorkerDied(CurateError):
    """Every process that a part was given to was killed."""


class WeightsError(CurateError):
    """A weight file is missing, has the wrong format, or does not fit the model."""


class TrainingDiverged(CurateError):
    """The loss of a training is no longer a number."""


class TrainingInterrupted(CurateError):
    """A training was told to stop by SIGTERM, and has written a checkpoint to go on from."""


class MissingExtra(CurateError):
    """A library of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; bring it with: {pip_install(extra)}")


def pip_install(extra: str) -> str:
    """The command that installs the package with one of its extras; on PyPI `curate` is another project's name."""
    return f"pip install 'curate-vision[{extra}]'"


def first_line(error: BaseException) -> str:
    """What a library's error says in its first line, or the kind of error where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
