"""The quick job on any folder: inspect, embed, remove near-duplicates, write what is left."""

from curate.engine.pipeline import Pipeline
from curate.pipelines.copies import CurationConfig, deduplicate_pool, write_shards
from curate.stages.selection.write_shards import WriteShards


class Dedup(CurationConfig):
    """The config of `recipe: dedup`."""

    write: WriteShards | None = WriteShards()
    """How the images that are kept are written as shards; null: the run ends with the verdicts on copies, and selects
    nothing."""


def dedup(p: Pipeline, cfg: Dedup) -> None:
    """Inspect, embed, deduplicate, select all that is kept, write shards."""
    pool = deduplicate_pool(p, cfg)
    if cfg.write is not None:
        chosen = p.add("selection", cfg.select, **pool.selectable)
        write_shards(p, cfg.write, selection=chosen, catalog=pool.catalog, images=pool.images)
