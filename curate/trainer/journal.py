"""The log of a run: one JSON object a line, and TensorBoard where it is installed."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Row = dict[str, float]


class Journal:
    """Appends rows to `log.jsonl`; on resume the rows after the checkpoint are dropped, since they come again."""

    def __init__(self, folder: Path, *, start: int) -> None:
        self.path = folder / "log.jsonl"
        self.rows = [row for row in read_log(self.path) if row["step"] <= start]
        rewritten = self.path.with_suffix(".writing")
        rewritten.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        rewritten.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = _open_board(folder / "tensorboard", start)

    def write(self, row: Row) -> None:
        """Append `row`; its `step` counts the iterations done."""
        self.rows.append(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Flush and close both logs."""
        self._file.close()
        if self._board is not None:
            self._board.close()


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
