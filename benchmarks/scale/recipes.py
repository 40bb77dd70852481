"""The recipes with the stages of `stages.py`, and their configs: those that are bundled, for faked pools."""

from pathlib import Path
from typing import Any

from benchmarks.scale.pool import Pool, make_source
from benchmarks.scale.stages import FakedEmbed, FakedExtractFeatures, FakedInspect, FakedRegisterPairs, backbone
from curate.config import Settings, read_yaml
from curate.engine.pipeline import Pipeline
from curate.pipelines import dedup as _dedup
from curate.pipelines import hierarchical as _hierarchical
from curate.pipelines import lvd142m as _lvd142m
from curate.pipelines.copies import Copies
from curate.recipe import RecipeConfig, check_config
from curate.sources.config import Source

RECIPES = ("hierarchical", "dedup", "lvd142m")
"""What can be measured."""


class FakedCopies(Copies):
    """How copies are found, among faked pictures."""

    embed: FakedEmbed
    features: FakedExtractFeatures = FakedExtractFeatures()
    registration: FakedRegisterPairs = FakedRegisterPairs()


class FakedRetrieval(_lvd142m.Retrieval):
    """How images are retrieved, among faked pictures."""

    embed: FakedEmbed


class FakedDedup(_dedup.Dedup):
    """The config of `dedup`."""

    inspect: FakedInspect = FakedInspect()
    copies: FakedCopies


class FakedHierarchical(_hierarchical.Hierarchical):
    """The config of `hierarchical`."""

    inspect: FakedInspect = FakedInspect()
    copies: FakedCopies
    embed: FakedEmbed


class FakedLvd142m(_lvd142m.Lvd142m):
    """The config of `lvd142m`."""

    inspect: FakedInspect = FakedInspect()
    copies: FakedCopies
    retrieval: FakedRetrieval


def dedup(p: Pipeline, cfg: FakedDedup) -> None:
    """As the recipe of that name."""
    _dedup.dedup(p, cfg)


def hierarchical(p: Pipeline, cfg: FakedHierarchical) -> None:
    """As the recipe of that name."""
    _hierarchical.hierarchical(p, cfg)


def lvd142m(p: Pipeline, cfg: FakedLvd142m) -> None:
    """As the recipe of that name."""
    _lvd142m.lvd142m(p, cfg)


class Scale(Settings):
    """How large the things of a faked run are."""

    dim: int = 64
    """Dimensions of the embeddings."""
    image_bytes: int = 4000
    """Bytes of an encoded image."""
    rows_per_part: int = 4096
    """Images of a part."""
    shard_bytes: int = 8 << 20
    """Bytes of a shard."""
    curated: float = 0.02
    """Curated images for each image of the pool, in recipes that ask for them."""
    heldout: float = 0.005
    """Held-out images for each image of the pool."""
    seed: int = 0

    def sizes(self, recipe: str, images: int) -> dict[str, int]:
        """Images by role."""
        shares = {"heldout": self.heldout} | ({"curated": self.curated} if recipe == "lvd142m" else {})
        return {"pool": images} | {role: max(1, round(share * images)) for role, share in shares.items()}


def make_config(recipe: str, images: int, folder: Path, scale: Scale, *, workers: int = 0) -> RecipeConfig:
    """Write the faked sources into `folder`, and give the config that runs a recipe over them.

    Args:
        folder: of sources and workdir; there are none yet.
        workers: processes of Dask; 0: all in one process.
    """
    sources = {
        role: [make_source(folder / role, _pool(role, count, images, scale)).model_dump(exclude_defaults=True)]
        for role, count in scale.sizes(recipe, images).items()
    }
    return check_config(_values(recipe, scale) | _run(folder, sources, workers), where=recipe)


def plan_config(recipe: str, scale: Scale) -> RecipeConfig:
    """The same config without any sources, to plan with."""
    nowhere = Source(name="pool", path="/none/pool.json").model_dump(exclude_defaults=True)
    return check_config(_values(recipe, scale) | _run(Path("/none"), _planned(nowhere), 0), where=recipe)


def _planned(pool: dict[str, Any]) -> dict[str, Any]:
    return {role: [pool | {"name": role}] for role in ("pool", "curated", "heldout")}


def _pool(role: str, count: int, images: int, scale: Scale) -> Pool:
    return Pool(role=role, images=count, pool_images=images, image_bytes=scale.image_bytes, seed=scale.seed)  # type: ignore[arg-type]


def _run(folder: Path, sources: dict[str, Any], workers: int) -> dict[str, Any]:
    kind = {"kind": "local", "workers": workers, "threads": 1} if workers else {"kind": "inprocess"}
    return {"workdir": str(folder / "run"), "sources": sources, "executor": kind}


def _values(recipe: str, scale: Scale) -> dict[str, Any]:
    """The bundled config, with faked networks and parts of the size that is wanted."""
    values = read_yaml(recipe)
    model = {"model": backbone(scale.dim)}
    values |= {"recipe": f"{__name__}:{recipe}", "rows_per_part": scale.rows_per_part, "seed": scale.seed}
    values |= {"write": {"shard_bytes": scale.shard_bytes}}
    values["copies"] = values["copies"] | {"embed": model | {"space": "copy"}}
    if recipe == "hierarchical":
        values["embed"] = model | {"space": "concept"}
    if recipe == "lvd142m":
        values["inspect"] = {}
        found = values["retrieval"]
        retrieve = found["retrieve"] | {"route": "both", "cluster": {"min_queries": 3}}
        faked = {"embed": model | {"space": "concept"}, "clusters": {"levels": "auto_flat"}, "retrieve": retrieve}
        values["retrieval"] = found | faked
    return values
