"""How fast a folder's disk is."""

import os
import tempfile
import time
from pathlib import Path

BLOCK = 1 << 22


def disk_rates(folder: Path | None = None, *, num_bytes: int) -> tuple[float, float]:
    """(written, read) bytes a second; reading comes from the cache of the system where it has one.

    Args:
        folder: None: that for temporary files.
        num_bytes: of a file without a name that is written and read, a multiple of 4 MiB.
    """
    block = os.urandom(BLOCK)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(num_bytes // BLOCK):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = num_bytes / (time.perf_counter() - start)
        start = time.perf_counter()
        file.seek(0)
        while file.read(BLOCK):
            pass
        return written, num_bytes / (time.perf_counter() - start)
