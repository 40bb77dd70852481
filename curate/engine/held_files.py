"""Small files of a remote workdir that this process has published, held while nobody else writes there.

The steps of a run pass their results through files: a part is written, its footer is looked at when the table is
complete, and each later step reads it again. Workers on many machines need that. A run in one process over a small pool
does not: most of its requests fetch kilobytes that it sent a moment ago, each in the time of a megabyte. So whatever it
publishes is held too, as long as it is small, the oldest let go first, and a read of it is none of the store's.

Nothing is taken to be there because it is held: what a listing does not show is gone, and what it shows with another
length was replaced by someone.
"""

import threading
from collections import OrderedDict
from pathlib import Path

FILE_BYTES = 1 << 20
"""Bytes of a file at most: more take as long as a request."""
ALL_BYTES = 64 << 20
"""Bytes of all files at most."""


class HeldFiles:
    """The files by path; for any thread."""

    def __init__(self, *, file_bytes: int = FILE_BYTES, all_bytes: int = ALL_BYTES) -> None:
        self._file_bytes, self._all_bytes = file_bytes, all_bytes
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def get(self, path: str) -> bytes | None:
        """The bytes of a file; None: it is not held."""
        with self._lock:
            if path in self._files:
                self._files.move_to_end(path)
            return self._files.get(path)

    def hold(self, path: str, file: Path) -> None:
        """Hold what a local file has, which was published under `path`."""
        if file.stat().st_size > self._file_bytes:
            return
        data = file.read_bytes()
        with self._lock:
            self._drop(path)
            self._files[path] = data
            self._num_bytes += len(data)
            while self._num_bytes > self._all_bytes:
                self._drop(next(iter(self._files)))

    def forget(self, path: str) -> None:
        """Let go of a file, or of all in a folder."""
        with self._lock:
            for known in [known for known in self._files if known == path or known.startswith(f"{path}/")]:
                self._drop(known)

    def compare(self, path: str, num_bytes: int) -> None:
        """Let go of a file that is listed with another length."""
        with self._lock:
            if len(self._files.get(path, b"")) != num_bytes:
                self._drop(path)

    def _drop(self, path: str) -> None:
        self._num_bytes -= len(self._files.pop(path, b""))
