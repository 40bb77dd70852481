"""A DINOv3 ViT from its training to the shards of a run that it embeds, and to the libraries that read its export."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import timm
import torch
from transformers import AutoModel

from curate.config import parse
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.models.convert.convert import convert
from curate.models.convert.source import load_source
from curate.models.files.header import timm_equivalent
from curate.ops.vectors import VectorSpec, unpack
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.bundled import photos_by_category
from curate.trainer.config import TrainConfig
from curate.trainer.train import train
from tests.feed.shards import row, write_shard

TINY: dict[str, Any] = {
    "model": {"preset": "dinov3_tiny", "depth": 2, "drop_path": 0.0, "layer_scale": 1.0, "local_norm": True},
    "crops": {"global_size": 64, "local_size": 32, "num_local": 2},
    "objective": {"kind": "dinov3", "prototypes": 32, "head_hidden": 64, "head_bottleneck": 32},
    "optimizer": {"base_lr": 4e-3, "patch_embed_lr": 1.0},
    "batch_size": 16,
    "iterations": 8,
    "checkpoint_every": 8,
    "log_every": 1,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
}


@pytest.fixture(scope="module")
def photos() -> list[Path]:
    """Two of each kind that comes with the package."""
    return list(itertools.chain.from_iterable(paths[:2] for paths in photos_by_category().values()))


@pytest.fixture(scope="module")
def trained(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write_shard(folder / "shards" / "a.parquet", [row(i, encoded=path.read_bytes()) for i, path in enumerate(photos)])
    values = {**TINY, "shards": str(folder / "shards"), "output": str(folder / "run")}
    log = train(parse(TrainConfig, values, where="test")).log
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["feature_std"] > 0.3  # of 1: it has not collapsed
    return folder / "run"


def test_a_run_that_a_dinov3_of_ones_own_embeds_ends_in_shards(
    photos: list[Path], trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "pool").mkdir()
    for number, path in enumerate(photos):
        shutil.copy(path, tmp_path / "pool" / f"{number}.jpg")
    given = [f"sources.pool={tmp_path}/pool", f"workdir={tmp_path}/run", f"embed.model={trained}", "embed.device=cpu"]
    given += ["executor.threads=1", "map=null", "clusters.levels=[8]", "clusters.points_per_centroid=[]"]
    run_config(load_config("hierarchical", given), Flags(), command=("hierarchical", *given))
    store = Store(str(tmp_path / "run"))
    vectors, _ = unpack((table := store.table("embeddings/clusters").read_all())["vector"], VectorSpec.of(table.schema))
    assert vectors.shape[1] == 192
    assert (vectors @ vectors.T).mean() < 0.95
    written = pq.read_table(tmp_path / "run" / "shards" / "data")
    assert written.num_rows == store.table("selection").num_rows() >= len(photos) // 2


@torch.no_grad()
def test_its_export_computes_the_same_in_transformers_and_timm(trained: Path, tmp_path: Path) -> None:
    """Whatever local crops were normalized by, which only a training reads."""
    ours = load_source(str(trained)).network
    assert ours.config.local_norm  # type: ignore[union-attr]
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    made = {
        to: convert(str(trained), to, output=tmp_path / name).path
        for to, name in (("hub", "hub.pth"), ("timm", "timm.safetensors"), ("huggingface", "folder"))
    }
    for path in made.values():
        torch.testing.assert_close(load_source(str(path)).network(x), ours(x), rtol=1e-5, atol=1e-5)
    theirs = AutoModel.from_pretrained(made["huggingface"]).eval()
    assert type(theirs).__name__ == "DINOv3ViTModel"
    torch.testing.assert_close(theirs(x).pooler_output, ours(x), rtol=1e-5, atol=1e-5)
    name, kwargs = timm_equivalent(ours.config)
    overlay = {"file": str(made["timm"])}
    in_timm = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs).eval()
    torch.testing.assert_close(in_timm(x), ours(x), rtol=1e-5, atol=1e-5)
