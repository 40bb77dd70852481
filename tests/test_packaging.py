"""The wheel brings `curate` alone, and works outside the checkout, also beside a user's own `configs`."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.stages.images.test_pictures import write_photos

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files, as a release is."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    packed = subprocess.run(["tar", "c", "--null", "-T", "-"], cwd=ROOT, input=tracked, capture_output=True, check=True)
    (folder / "source").mkdir()
    subprocess.run(["tar", "x"], cwd=folder / "source", input=packed.stdout, check=True)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder / "source")], check=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds the wheel, to come first on the search path."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-index", "--quiet", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return folder


def test_wheel_brings_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.startswith("curate_vision-")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"curate", "curate_vision"}
    recipes = {f"curate/pipelines/{path.name}" for path in (ROOT / "pipelines").glob("*.py")}
    configs = {f"curate/configs/{p.relative_to(ROOT / 'configs')}" for p in (ROOT / "configs").rglob("*.yaml")}
    pictures = {
        f"curate/samples/{p.relative_to(ROOT / 'curate/samples')}" for p in (ROOT / "curate/samples").rglob("*.jpg")
    }
    others = {
        "curate/py.typed",
        "curate/report/style.css",
        *(f"curate/review/{name}" for name in ("page.html", "review.css", "review.js", "icon.png")),
        "curate/samples/ATTRIBUTION.csv",
        "curate/samples/mnist5k.npz",
    }
    assert recipes | configs | pictures | others <= set(names)
    assert not [name for name in names if "benchmarks" in name or name.startswith(("tests", "docs"))]


def call(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from curate.cli import main; sys.argv[0] = 'curate'; main()"
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command: Sequence[str] = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_commands_work_beside_a_package_called_configs(site: Path, tmp_path: Path) -> None:
    for name in ("configs", "pipelines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not yours')")
    write_photos(tmp_path / "pool", 12)
    ran = call(site, tmp_path, "run", "dedup", "sources.pool=pool", "workdir=out")
    assert ran.returncode == 0, ran.stderr
    where = call(site, tmp_path, "status", "out")
    assert "shards/data" in where.stdout
    given = ["shards=out/shards/data", "output=trained", "iterations=2", "batch_size=4", "workers=0"]
    trained = call(site, tmp_path, "train", "train/tiny", *given)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "trained/backbone.safetensors").is_file()
    used = subprocess.run(
        [sys.executable, "-c", "import curate; print(curate.__file__)"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert Path(used.stdout.strip()).is_relative_to(site)


def test_every_bundled_config_is_found_by_its_name(site: Path, tmp_path: Path) -> None:
    code = "from curate.config import find_config; print(find_config('train/tiny')); print(find_config('dedup'))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [Path(line) for line in ran.stdout.splitlines()]
    assert len(found) == 2, ran.stderr
    assert all(path.is_relative_to(site) and yaml.safe_load(path.read_text()) for path in found)
