"""Where the modules of `curate.ops` stand to each other, and what they cost to import."""

import subprocess
import sys
from pathlib import Path

import pytest

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


HEAVY = ("torch", "timm", "open_clip", "faiss", "scipy", "dask", "distributed", "transformers", "threadpoolctl")


@pytest.mark.parametrize("room", [*ROOMS, "."])
def test_importing_ops_loads_no_heavy_library(room: str) -> None:
    names = [
        ".".join(("curate", "ops", *path.relative_to(OPS).with_suffix("").parts)).removesuffix(".__init__")
        for path in sorted((OPS / room).glob("*.py"))
    ]
    code = f"import sys, {', '.join(names)}\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == []
