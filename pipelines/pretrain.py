"""Curation by the LVD-142M recipe, then DINOv2 pretraining on its shards, then k-NN beside the initialization."""

from curate.engine.pipeline import Pipeline
from curate.pipelines.lvd142m import Lvd142m, curate_pool
from curate.stages.training.evaluate import Evaluate
from curate.stages.training.pretrain import Pretrain


class PretrainConfig(Lvd142m):
    """The config of `recipe: pretrain`: that of lvd142m, and the training."""

    pretrain: Pretrain = Pretrain()
    """How the backbone is trained."""
    evaluate: Evaluate | None = None
    """What is measured on the export; null: nothing."""


def pretrain(p: Pipeline, cfg: PretrainConfig) -> None:
    """Curate as lvd142m does, pretrain on the shards, evaluate the export."""
    shards = curate_pool(p, cfg)
    if shards is None:
        raise cfg.field_error("write", "=null: the training reads the shards; leave it out")
    _check_bits(cfg)
    log = p.add("pretrain", cfg.pretrain, shards=shards)
    if cfg.evaluate is not None:
        p.add("internal/evaluation", cfg.evaluate, pretrain=log)


def _check_bits(cfg: PretrainConfig) -> None:
    """Raise ConfigError where the training would scale 16-bit pictures in another way than their sources do."""
    feed = cfg.pretrain.train.feed
    wanted = {source.significant_bits for source in (*cfg.sources.pool, *cfg.sources.curated)} - {"auto"}
    if wanted and feed.significant_bits not in wanted:
        text = (
            f"={feed.significant_bits}: the sources have {', '.join(map(str, sorted(wanted, key=str)))}; set it so too"
        )
        raise feed.field_error("significant_bits", text)
