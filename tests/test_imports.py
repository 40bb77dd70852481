"""The direction of imports, as the README's layout table tells it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "tables": {"errors"},
    "config": {"errors"},
    "locking": {"errors"},
    "progress": set(),
    "retrying": {"errors"},
    "registry": {"errors"},
    "engine": {"errors", "config", "progress"},
    "ops": {"errors", "tables", "config"},
    "sources": {"errors", "registry", "tables", "config", "ops", "retrying"},
    "models": {"errors", "registry", "tables", "config", "progress", "ops"},
    "stages": {"errors", "tables", "config", "progress", "engine", "ops", "sources", "models"},
    "workdir": {"errors", "engine"},
    "recipe": {"errors", "config", "engine", "sources"},
    "feed": {"errors", "tables", "config", "progress", "ops", "retrying"},
    "trainer": {"errors", "config", "locking", "registry", "progress", "models", "ops", "feed"},
    "evaluation": {"errors", "tables", "config", "ops", "models", "trainer", "progress", "samples"},
    "report": {
        "errors",
        "tables",
        "config",
        "workdir",
        "engine",
        "ops",
        "sources",
        "models",
        "stages",
        "progress",
        "evaluation",
    },
    "samples": {"errors", "ops"},
}
"""Package or module of curate to the ones it may import; run, cli and bench may import everything."""


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def files(name: str) -> list[Path]:
    module = ROOT / "curate" / f"{name}.py"
    return [module] if module.exists() else sorted((ROOT / "curate" / name).rglob("*.py"))


def test_imports_point_one_way() -> None:
    wrong = []
    for name, allowed in ALLOWED.items():
        assert files(name), name
        for path in files(name):
            parts = {n.split(".")[1] for n in imported(path) if n.startswith("curate.") and n.count(".") >= 1}
            known = {p for p in parts if files(p)}
            wrong += [f"{path.relative_to(ROOT)} imports curate.{p}" for p in sorted(known - allowed - {name})]
    assert wrong == []


def test_only_their_seams_know_dask_and_faiss() -> None:
    for path in sorted((ROOT / "curate").rglob("*.py")) + sorted((ROOT / "pipelines").rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        tops = {name.split(".")[0] for name in imported(path)}
        assert place == "curate/engine/executors.py" or not tops & {
            "dask",
            "distributed",
            "dask_cuda",
            "dask_jobqueue",
        }, place
        assert place.startswith(("curate/ops/", "curate/engine/threads.py")) or "faiss" not in tops, place


def test_recipes_are_reached_through_the_registry_alone() -> None:
    for path in sorted((ROOT / "curate").rglob("*.py")):
        assert not any(n.split(".")[0] == "pipelines" for n in imported(path)), path
