"""Every lower bound of pyproject.toml is the version that `make floors` tests, and it installs every extra."""

import re
import tomllib
from collections import defaultdict
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
FLOORS = "constraints/floors.txt"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]


def pinned(text: str) -> dict[str, tuple[Version, str]]:
    """Version and comment of each package in a file of constraints."""
    pins: dict[str, tuple[Version, str]] = {}
    for line in text.splitlines():
        pin, _, comment = line.partition("#")
        if pin.strip():
            name, version = pin.split("==")
            assert canonicalize_name(name) not in pins, f"{FLOORS} pins {name} twice"
            pins[canonicalize_name(name)] = Version(version.strip()), comment.strip()
    return pins


def bounds(requirements: list[str]) -> dict[str, set[str]]:
    """The specifiers of each package."""
    found = defaultdict(set)
    for requirement in map(Requirement, requirements):
        found[canonicalize_name(requirement.name)].add(str(requirement.specifier))
    return found


def faults(requirements: list[str], pins: dict[str, tuple[Version, str]]) -> list[str]:
    """What pyproject.toml and the pins do not say alike, with what to do."""
    told = []
    promised = bounds(requirements)
    for name, specifiers in sorted(promised.items()):
        match = re.fullmatch(r">=([^,|]+)", "|".join(specifiers))
        if match is None:
            told.append(
                f"{name}: pyproject.toml says {sorted(specifiers)}; needed is one >=VERSION wherever it is "
                f"named, and {name}==VERSION in {FLOORS}"
            )
        elif name not in pins:
            told.append(f"{name}: add {name}=={match[1]} to {FLOORS} and run `make floors`")
        elif pins[name][0] != Version(match[1]):
            told.append(
                f"{name}: pyproject.toml promises {match[1]}, {FLOORS} tests {pins[name][0]}; make them equal and run "
                "`make floors`"
            )
    for name, (version, comment) in pins.items():
        if name not in promised and not comment:
            told.append(f"{name}: pyproject.toml does not name it; say why {FLOORS} pins {version}, or remove the pin")
    return told


def test_every_lower_bound_is_the_version_that_is_tested() -> None:
    project = PYPROJECT["project"]
    requirements = [*PYPROJECT["build-system"]["requires"], *project["dependencies"]]
    requirements += [requirement for extra in EXTRAS.values() for requirement in extra]
    assert faults(requirements, pinned((ROOT / FLOORS).read_text())) == []


def test_a_bound_without_its_pin_and_a_pin_without_its_bound_are_told() -> None:
    pins = pinned("numpy==2.0.0  # why\ndask==2024.9.0\nclick==8.1.7\nprotobuf==4.0  # onnx needs it\n")
    assert faults(["numpy>=2.0", "dask[distributed]>=2024.9", "click>=8.1.7"], pins) == []
    told = faults(["numpy>=2.1", "Pillow>=11", "pillow>=11.3", "dask", "pillow-heif>=0.22"], pins)
    for start in (
        "click: pyproject.toml does not name it",
        "dask: pyproject.toml says ['']",
        "numpy: pyproject.toml promises 2.1, constraints/floors.txt tests 2.0.0",
        "pillow: pyproject.toml says ['>=11', '>=11.3']",
        "pillow-heif: add pillow-heif==0.22 to constraints/floors.txt",
    ):
        assert sum(line.startswith(start) for line in told) == 1
    assert len(told) == 5


def test_make_floors_installs_every_extra_that_needs_no_gpu() -> None:
    (line,) = re.findall(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(line.split(",")) == set(EXTRAS) - {"gpu"}, "name the new extra in EXTRAS of the Makefile"
