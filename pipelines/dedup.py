"""The quick job on any folder: inspect, embed, remove near-duplicates, write what is left."""

from curate.engine.pipeline import Pipeline
from curate.pipelines.copies import CurationConfig, deduplicate_pool, draw_map, write_shards
from curate.stages.selection.write_shards import WriteShards


class Dedup(CurationConfig):
    """The config of `recipe: dedup`."""

    write: WriteShards | None = WriteShards()
    """How the images that are kept are written as shards; null: the run ends with the verdicts on copies, and selects
    nothing."""


def dedup(p: Pipeline, cfg: Dedup) -> None:
    """Inspect, embed, deduplicate, select all that is kept, write shards."""
    pool = deduplicate_pool(p, cfg)
    chosen = None if cfg.write is None else p.add("selection", cfg.select, **pool.selectable)
    draw_map(p, cfg.map, pool, embeddings=pool.embeddings, selection=chosen)
    if cfg.write is not None and chosen is not None:
        write_shards(p, cfg.write, selection=chosen, catalog=pool.catalog, images=pool.images, blurs=pool.blurs)
