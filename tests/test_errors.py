import tomllib
from pathlib import Path

from curate.errors import MissingExtra, pip_install

ROOT = Path(__file__).parent.parent


def test_missing_extra_is_installed_by_the_name_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in project["optional-dependencies"]:
        assert pip_install(extra) == f"pip install '{project['name']}[{extra}]'"
    assert str(MissingExtra("faiss", "gpu")).endswith(f"bring it with: {pip_install('gpu')}")


def test_pip_line_is_spelled_in_one_place() -> None:
    files = [path for folder in ("curate", "pipelines", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    spelled = [path.relative_to(ROOT).as_posix() for path in files if "pip install 'curate" in path.read_text()]
    assert spelled == ["curate/errors.py"]
