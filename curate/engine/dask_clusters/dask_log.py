"""What Dask says goes to a file: a run that ends well says nothing of it, one that fails says where it is."""

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

SPOKEN = ("distributed.nanny.memory", "distributed.worker.memory")
"""Dask's loggers whose warnings are a user's concern: a worker that ran full was started again."""


class DaskLog(logging.Handler):
    """A file for what Dask logs in this process; not a stream handler, whose level Dask's clusters change."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = logging.FileHandler(path, delay=True)
        self._file.setFormatter(logging.Formatter("%(asctime)s %(process)d %(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; say it aloud where it concerns the user."""
        self._file.emit(record)
        if record.name in SPOKEN and record.levelno >= logging.WARNING:
            logger.warning("%s", record.getMessage())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def take_over(self) -> None:
        """Take what Dask logs in this process, in place of whatever did so far."""
        import distributed  # noqa: F401  # sets up its loggers when it is first imported

        dask = logging.getLogger("distributed")
        dask.handlers, dask.propagate = [self], False
        dask.setLevel(logging.INFO)
