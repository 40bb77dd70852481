"""From a messy pool of images to a curated Parquet data set, to a pretrained backbone.

    import curate

    run = curate.run("dedup", workdir="runs/mine", sources={"pool": "photos"})
    run.tables["duplicates"].to_pandas()
    curate.load_backbone("lite0").embed(["a.jpg", "b.jpg"])

Importing this package costs no torch: names are loaded when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.api import CopyGroup, Run, Summary, find_copies, load_backbone, open_run, run, train
    from curate.engine.cost import Assumptions, Demand, Shape
    from curate.engine.figures import Figures
    from curate.engine.finished import Finished, ImagePlace
    from curate.engine.pipeline import Pipeline, Ref
    from curate.engine.stage import Fold, IteratedFold, Map, Scan, SharedMap, Shuffle, each, whole
    from curate.engine.table import Table
    from curate.recipe import RecipeConfig
    from curate.stages.images.pictures import PictureStage

__version__ = "0.1.0"

_HOMES = {
    "curate.api": ("CopyGroup", "Run", "Summary", "find_copies", "load_backbone", "open_run", "run", "train"),
    "curate.engine.cost": ("Assumptions", "Demand", "Shape"),
    "curate.engine.figures": ("Figures",),
    "curate.engine.finished": ("Finished", "ImagePlace"),
    "curate.engine.pipeline": ("Pipeline", "Ref"),
    "curate.engine.stage": ("Fold", "IteratedFold", "Map", "Scan", "SharedMap", "Shuffle", "each", "whole"),
    "curate.engine.table": ("Table",),
    "curate.recipe": ("RecipeConfig",),
    "curate.stages.images.pictures": ("PictureStage",),
}
"""Module to the names that it gives to this package."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Assumptions",
    "CopyGroup",
    "Demand",
    "Figures",
    "Finished",
    "Fold",
    "ImagePlace",
    "IteratedFold",
    "Map",
    "PictureStage",
    "Pipeline",
    "RecipeConfig",
    "Ref",
    "Run",
    "Scan",
    "Shape",
    "SharedMap",
    "Shuffle",
    "Summary",
    "Table",
    "each",
    "find_copies",
    "load_backbone",
    "open_run",
    "run",
    "train",
    "whole",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'curate' has no attribute {name!r}")
    found = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
