"""Where the modules of `curate.ops` stand to each other."""

from pathlib import Path

import curate.ops
from tests.test_imports import imported

OPS = Path(curate.ops.__file__).parent
FILES = sorted(OPS.rglob("*.py"))
ROOMS = sorted(path.name for path in OPS.iterdir() if (path / "__init__.py").exists())


def test_a_room_imports_no_other_room_but_images() -> None:
    wrong = []
    for path in FILES:
        own = path.relative_to(OPS).parts[0]
        for name in imported(path):
            room = name.removeprefix("curate.ops.").split(".")[0]
            if name.startswith("curate.ops.") and room in ROOMS and room not in {own, "images"}:
                wrong.append(f"{path.relative_to(OPS)} imports {name}")
    assert len(ROOMS) > 1
    assert wrong == []
