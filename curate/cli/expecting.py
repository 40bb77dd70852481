"""About how long the tables of a run take beside each other, for the time that the display of progress tells."""

import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

from curate.errors import CurateError

if TYPE_CHECKING:
    from curate.recipe import RecipeConfig

LEAST = 0.1
"""Seconds of a step that has next to nothing to do."""
ROLES = {"images": "pool", "curated": "curated", "heldout": "heldout"}
"""What the assumptions call the roles."""


def seconds_by_table(config: "RecipeConfig", *, anew: bool) -> Mapping[str, float]:
    """Seconds by table, by the laws of cost and the rates of a machine like this one; empty where they are not known.

    The catalog must be listed: its images are what there is to do.

    Args:
        anew: whether tables that are complete may be made again; else they take no time.
    """
    from curate.config import parse
    from curate.engine.cost import Assumptions
    from curate.engine.image_ids import Parts
    from curate.engine.store import Store
    from curate.scale import estimate
    from curate.scale.hardware import load_hardware

    try:
        store = Store(config.workdir)
        parts = Parts.of(store.table("catalog"))
        counts = {key: parts.num_images([role]) for key, role in ROLES.items()}
        given = parse(Assumptions, counts, where="progress")
        gpus = 1 if shutil.which("nvidia-smi") else 0  # the driver process need not load torch
        machines = estimate.machines(load_hardware("a100" if gpus else "cpu"), cores=os.cpu_count() or 1, gpus=gpus)
        found: dict[str, float] = {}
        for one in estimate.plan_scale(config, given, machines):
            first = one.table.partition(" + ")[0]  # of a pass over the images
            made = not anew and store.table(first).is_complete()
            found[first] = found.get(first, 0.0) + (0.0 if made else LEAST + one.seconds)
        return found
    except CurateError:  # a recipe of others may have no laws
        return {}
