"""The log of a run: one JSON object a line, TensorBoard where it is installed, Weights & Biases on request."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from curate.errors import MissingExtra

Row = dict[str, float]


class Journal:
    """Appends rows to `log.jsonl`; on resume the rows after the checkpoint are dropped, since they come again."""

    def __init__(self, folder: Path, *, start: int, wandb: str | None = None) -> None:
        """`wandb`: project of Weights & Biases that gets the rows too; None: none.

        Raises:
            MissingExtra: wandb is asked for, but not installed.
        """
        self.path = folder / "log.jsonl"
        self.rows = [row for row in read_log(self.path) if row["step"] <= start]
        rewritten = self.path.with_suffix(".writing")
        rewritten.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
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

    def close(self) -> None:
        """Nothing is open."""


def read_log(path: Path) -> list[Row]:
    """The rows of a log; a last line that a crash cut short is left out. No file: no rows."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # only lines that were ended
    return [json.loads(line) for line in lines]


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
