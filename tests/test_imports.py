"""The direction of imports, as `docs/architecture.md` tells it, over every file of the package and its recipes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BASE = {"command", "errors", "config", "counting", "filesystems", "interrupt", "logs", "memory", "opening", "progress"}
BASE |= {"late_files", "ranges", "sealed_json", "sealing", "shard_manifest", "surroundings", "text"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "tables": {"errors"},
    "text": {"errors", "opening"},
    "counting": set(),
    "opening": {"counting"},
    "command": set(),
    "config": {"command", "errors", "text"},
    "config_reference": {"config"},
    "memory": set(),
    "sealed_json": set(),
    "late_files": set(),
    "sealing": {"late_files"},
    "shard_manifest": set(),
    "signing": {"errors"},
    "progress": {"text"},
    "interrupt": {"text"},
    "logs": {"text"},
    "surroundings": set(),
    "retrying": {"errors"},
    "ranges": {"counting"},
    "filesystems": {"errors", "retrying", "counting", "ranges"},
    "locking": {"errors"},
    "registry": {"errors"},
    "decisions": BASE | {"locking", "sources"},
    "samples": BASE | {"ops"},
    "engine": BASE | {"tables", "locking"},
    "ops": BASE | {"tables"},
    "models": BASE | {"tables", "ops", "registry"},
    "sources": BASE | {"tables", "ops", "retrying", "registry"},
    "feed": BASE | {"tables", "ops", "retrying"},
    "trainer": BASE | {"ops", "models", "feed", "locking", "registry"},
    "evaluation": BASE | {"tables", "ops", "models", "trainer", "samples"},
    "stages": BASE | {"tables", "engine", "ops", "models", "sources", "trainer", "evaluation", "samples", "decisions"},
    "recipe": BASE | {"engine", "sources", "registry"},
    "pipelines": BASE | {"engine", "models", "sources", "stages", "recipe", "decisions"},
    "workdir": BASE | {"engine", "recipe", "locking", "decisions"},
    "verifying": BASE | {"engine", "models", "trainer", "workdir", "locking", "shard_check", "signing"},
    "signing_shards": BASE | {"signing"},
    "shard_check": BASE | {"tables", "signing"},
    "answers": BASE | {"tables", "engine", "ops", "sources", "stages"},
    "report": BASE | {"tables", "engine", "ops", "sources", "stages", "signing"},
    "review": BASE | {"tables", "engine", "ops", "sources", "stages", "report", "answers", "decisions"},
    "scale": BASE | {"tables", "engine", "ops", "models", "sources", "samples", "stages", "recipe"},
    "doctor": BASE | {"__init__", "engine", "models", "sources", "recipe", "scale"},
    "updating": BASE | {"engine", "recipe", "workdir", "report"},
    "sweeping": BASE | {"engine", "recipe", "workdir", "pipelines", "stages", "report", "updating"},
    "running": BASE | {"engine", "sources", "recipe", "workdir", "report", "updating"},
}
ANYTHING = {"__init__", "__main__", "api", "cli"}
"""The front door and the command line import whatever they call; nothing imports them."""
SEAMS = {
    "dask": "curate/engine/dask_clusters/",
    "distributed": "curate/engine/dask_clusters/",
    "dask_cuda": "curate/engine/dask_clusters/",
    "dask_jobqueue": "curate/engine/dask_clusters/",
    "faiss": "curate/ops/clusters/faiss_seam.py",
}
"""Libraries that one file, or one folder, alone may import."""
HEAVY = ("torch", "torchvision", "timm", "open_clip", "faiss", "dask", "distributed", "transformers", "scipy")


def files() -> list[Path]:
    """Every file of the package; `pipelines` and `configs` are links in it, and count where they lie."""
    found = [path for path in (ROOT / "curate").rglob("*.py") if (ROOT / "curate/pipelines") not in path.parents]
    return sorted([*found, *(ROOT / "pipelines").rglob("*.py")])


def unit_of(path: Path) -> str:
    """The module or package of curate that a file belongs to."""
    steps = path.relative_to(ROOT).with_suffix("").parts
    return steps[0] if steps[0] == "pipelines" else steps[1]


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_file_has_its_place_in_the_order() -> None:
    assert {unit_of(path) for path in files()} == ALLOWED.keys() | ANYTHING


def test_imports_point_one_way() -> None:
    wrong = []
    for path in files():
        unit = unit_of(path)
        if unit in ANYTHING:
            continue
        units = {name.split(".")[1] for name in imported(path) if name.startswith("curate.")}
        upwards = (units & (ALLOWED.keys() | ANYTHING)) - ALLOWED[unit] - {unit}
        wrong += [f"{path.relative_to(ROOT)} imports curate.{other}" for other in sorted(upwards)]
    assert wrong == []


def test_the_order_has_no_cycle() -> None:
    left = {unit: set(below) for unit, below in ALLOWED.items()}
    while left:
        free = {unit for unit, below in left.items() if not below & left.keys()}
        assert free, f"a cycle among {sorted(left)}"
        left = {unit: below for unit, below in left.items() if unit not in free}


def test_rooms_of_ops_do_not_know_each_other() -> None:
    wrong = []
    rooms = {path.name for path in (ROOT / "curate/ops").iterdir() if (path / "__init__.py").exists()}
    for room in rooms - {"images"}:
        for path in (ROOT / "curate/ops" / room).glob("*.py"):
            others = {name.split(".")[2] for name in imported(path) if name.startswith("curate.ops.")}
            wrong += [f"{path.relative_to(ROOT)}: {other}" for other in (others & rooms) - {room, "images"}]
    assert wrong == []


def test_only_their_seams_know_dask_and_faiss() -> None:
    wrong = []
    for path in files():
        place = path.relative_to(ROOT).as_posix()
        tops = {name.split(".")[0] for name in imported(path)}
        allowed = place == "curate/engine/threads.py"  # bounds the threads of every library that computes
        wrong += [
            (place, lib) for lib, seam in SEAMS.items() if lib in tops and not place.startswith(seam) and not allowed
        ]
    assert wrong == []


def test_nothing_in_the_package_knows_benchmarks_or_the_top_level_folders() -> None:
    for path in files():
        tops = {name.split(".")[0] for name in imported(path)}
        assert not tops & {"benchmarks", "pipelines", "configs", "tests"}, path


@pytest.mark.parametrize(
    "module",
    ["curate", "curate.cli", "curate.api", "curate.workdir", "curate.report.page", "curate.report.explain", "*stages"],
)
def test_light_modules_import_no_heavy_library(module: str) -> None:
    code = "import curate; from curate import Map, each, whole" if module == "curate" else f"import {module}"
    if module == "*stages":
        names = [p.relative_to(ROOT).with_suffix("") for p in files() if unit_of(p) in ("stages", "ops", "sources")]
        recipes = [f"curate.pipelines.{path.stem}" for path in (ROOT / "pipelines").glob("*.py")]
        code = "import " + ", ".join([*(".".join(name.parts) for name in names), *recipes])
    check = f"import sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr
