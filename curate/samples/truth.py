"""The truth of a generated pool: `truth.csv` says of every file what it shows and which file it was made from."""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from curate.errors import ConfigError
from curate.text import read_text

NEAR_KINDS = ("near_jpeg", "near_rescale", "near_crop", "near_flip", "near_text", "near_colour")
"""Kinds of files that show the same picture as their original, changed a little."""
JUNK_KINDS = (
    "junk_uniform",
    "junk_noise",
    "junk_tiny",
    "junk_truncated",
    "junk_text",
    "junk_empty",
    "junk_aspect",
)
"""Kinds of files that a curation should reject."""
COPY_KINDS = (*NEAR_KINDS, "exact_copy", "heldout_copy")
"""Kinds that show the very picture they were made from."""


@dataclass(frozen=True, order=True)
class TruthRow:
    """One file of a generated pool; paths are relative to the folder of the pool, the source's to the bundled files."""

    file: str
    category: str
    kind: str
    copy_of: str
    """File that it was made from; empty: none."""
    source: str
    """Bundled picture that it shows; empty: none."""

    @property
    def is_copy(self) -> bool:
        """Whether it shows the very picture that it was made from."""
        return self.kind in COPY_KINDS

    @property
    def subject(self) -> str:
        """The photograph it shows, or the scene of a video frame."""
        return self.category if self.kind == "frame" else self.source


TRUTH_COLUMNS = tuple(field.name for field in fields(TruthRow))


def write_truth(path: Path, rows: Iterable[TruthRow]) -> None:
    """Write the rows in order of their files."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TRUTH_COLUMNS)
        writer.writerows(map(astuple, sorted(rows)))


def read_truth(path: Path) -> dict[str, TruthRow]:
    """The rows by file.

    Raises:
        ConfigError: no such file, it is no text, or columns are missing.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the truth.csv that the pool generator wrote")
    with io.StringIO(read_text(path)) as lines:
        reader = csv.DictReader(lines)
        missing = set(TRUTH_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise ConfigError(f"{path}: lacks the columns {', '.join(sorted(missing))}; is it a truth.csv?")
        return {row["file"]: TruthRow(**{name: row[name] for name in TRUTH_COLUMNS}) for row in reader}
