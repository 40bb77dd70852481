"""The images cannot be built here; what can go stale without anyone noticing is checked."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_install_extras_that_exist(path: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r'"\.\[([\w,]+)\]"', path.read_text())
    assert set(named.split(",")) <= set(extras)
    assert path.suffix[1:] in named.split(",")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_a_user_without_rights_and_have_pinned_bases(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert "USER 1000:1000" in lines
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert all(re.search(r":\d+\.\d+", base) for base in bases)


def test_build_context_holds_all_that_the_package_is_made_of() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {pattern.split(".")[0] for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert kept >= packages | {"pyproject.toml", project["project"]["readme"], "LICENSE"}


def test_run_finds_the_scheduler_that_the_workers_join() -> None:
    services = compose()
    address = next(word for word in services["worker"]["entrypoint"] if word.startswith("tcp://"))
    host, port = address.removeprefix("tcp://").split(":")
    assert port in services[host]["entrypoint"]
    assert f"executor.address={address}" in services["curate"]["command"]
    assert services["worker"]["entrypoint"][-6:-2] == ["--nworkers", "1", "--nthreads", "1"]


def test_all_services_share_one_image_and_one_volume() -> None:
    services = compose().values()
    assert len({service["image"] for service in services}) == 1
    assert len({tuple(service["volumes"]) for service in services}) == 1
