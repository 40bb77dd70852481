"""Files of results, a JSON object in each line, that a benchmark adds to and reads again: it can be killed anywhere."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file in order; none where there is no file, and none of a last line that a kill cut off."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line]


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Add an object, after removing what a kill left of a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        encoded = path.read_bytes()
        if not encoded.endswith(b"\n"):
            os.truncate(path, encoded.rfind(b"\n") + 1)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")
        file.flush()
        os.fsync(file.fileno())
