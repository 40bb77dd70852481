"""The log of a run: one JSON object a line, TensorBoard where it is installed, Weights & Biases on request."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from curate.errors import MissingExtra, WorkdirError

Row = dict[str, float]
LOG = "log.jsonl"
"""Name of the log in the folder of a run, and of its copy in a checkpoint."""


class Journal:
    """Appends rows to `log.jsonl`; on resume the rows after the checkpoint are dropped, since they come again."""

    def __init__(self, folder: Path, *, start: int, wandb: str | None = None, kept: Path | None = None) -> None:
        """The log of a run that goes on after iteration `start`.

        Args:
            wandb: project of Weights & Biases that gets the rows too; None: none.
            kept: copy of the log in the checkpoint, which comes first where it is there: it has been checked.

        Raises:
            MissingExtra: wandb is asked for, but not installed.
            WorkdirError: the log is damaged, and the checkpoint, of an earlier version, has no copy of it.
        """
        self.path = folder / LOG
        before = kept if kept is not None and kept.exists() else self.path
        self.rows = [row for row in read_log(before) if row["step"] <= start] if start else []
        rewritten = self.path.with_suffix(".writing")
        write_log(rewritten, self.rows)
        rewritten.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = _open_board(folder / "tensorboard", start)
        self._wandb = None if wandb is None else _open_wandb(wandb, folder)

    def write(self, row: Row) -> None:
        """Append `row`; its `step` counts the iterations done."""
        self.rows.append(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        step, figures = int(row["step"]), {name: value for name, value in row.items() if name != "step"}
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(figures, step=step)

    def amend(self, figures: Row) -> None:
        """Add figures to the last row, which a signal had cut short."""
        if not figures:
            return
        self.rows[-1] = self.rows[-1] | figures
        self._file.close()
        write_log(self.path, self.rows)
        self._file = self.path.open("a", encoding="utf-8")
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, int(self.rows[-1]["step"]))

    def note(self, step: int, text: str) -> None:
        """A text for people beside the figures, where a board is open."""
        if self._board is not None:
            self._board.add_text("warnings", text, step)

    def close(self) -> None:
        """Flush and close all logs."""
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


class SilentJournal:
    """The journal of the ranks that write nothing."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def write(self, row: Row) -> None:
        """Nothing: rank 0 writes."""

    def amend(self, figures: Row) -> None:
        """Nothing: rank 0 writes."""

    def note(self, step: int, text: str) -> None:
        """Nothing: rank 0 writes."""

    def close(self) -> None:
        """Nothing is open."""


def read_log(path: Path) -> list[Row]:
    """The rows of a log; a last line that a crash cut short is left out. No file: no rows.

    Raises:
        WorkdirError: a line is none that was written.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # only lines that were ended
    return [_parse_row(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1)]


def _parse_row(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line.decode())
        if isinstance(row, dict) and all(isinstance(row.get(name), int | float) for name in ("step", *row)):
            return row
    except (ValueError, RecursionError):
        pass
    raise WorkdirError(f"{where}: damaged; remove the file, and the run goes on with a log that begins there")


def write_log(path: Path, rows: list[Row]) -> None:
    """Write rows as a log."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _open_board(folder: Path, start: int) -> Any:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=start + 1)


def _open_wandb(project: str, folder: Path) -> Any:
    if find_spec("wandb") is None:
        raise MissingExtra("wandb", "wandb")
    import wandb

    # One run of theirs for one of ours, also after it was killed; no key is kept here: wandb reads its own.
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return wandb.init(project=project, dir=str(folder), id=name, resume="allow", name=folder.name)
