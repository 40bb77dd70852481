"""Where the bundled pictures lie: photographs in a folder for each category, and frames of a few video scenes."""

from pathlib import Path
from typing import NamedTuple

SAMPLES = Path(__file__).resolve().parent
PHOTOS = SAMPLES / "photos"
FRAMES = SAMPLES / "frames"


class Photo(NamedTuple):
    """A bundled photograph."""

    category: str
    path: Path


def photos_by_category() -> dict[str, list[Path]]:
    """Every bundled photograph; categories and paths are sorted."""
    folders = sorted(path for path in PHOTOS.iterdir() if path.is_dir())
    return {folder.name: sorted(folder.glob("*.jpg")) for folder in folders}


def bundled_name(path: Path) -> str:
    """The name of a bundled picture in the truth and in ATTRIBUTION.csv: its path below this folder."""
    return path.relative_to(SAMPLES).as_posix()
