"""Own embeddings in place of a backbone: the same clusters, verdicts and selection as where the model made them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import save_file
from torch import nn

from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.ops.vectors import VectorSpec, unpack
from curate.recipe import load_config
from curate.running import run_config
from curate.stages.images.embed import Embed
from curate.workdir import open_tables

ROLES = ("pool", "curated", "heldout")
WRITE = ["executor.threads=1", "rows_per_part=25", "write=null", "map=null"]


def run(name: str, pool: Path, workdir: Path, *more: str) -> Store:
    given = [*(f"sources.{role}={pool}/{role}" for role in ROLES), f"workdir={workdir}", *WRITE, *more]
    run_config(load_config(name, given), Flags(), command=(name, *given))
    return Store(str(workdir))


@pytest.fixture(scope="module")
def by_model(dedup_pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    more = ["embed={model: lite0, precision: fp32, dtype: float32}"]
    return run("semdedup", dedup_pool, tmp_path_factory.mktemp("model") / "run", *more)


def exported(store: Store, path: Path) -> str:
    """The vectors of the run as a Parquet file of keys and lists."""
    table, catalog = store.table("embeddings/clusters").read_all(), store.table("catalog").read_all()
    vectors, rows = unpack(table["vector"], VectorSpec.of(table.schema))
    named = [f"{catalog['source'][row]}/{catalog['key'][row]}" for row in rows.tolist()]
    order = np.random.default_rng(0).permutation(len(rows))
    pq.write_table(pa.table({"key": [named[i] for i in order], "embedding": vectors[order].tolist()}), path)
    return str(path)


def test_own_embeddings_give_what_the_model_gave(
    by_model: Store, dedup_pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = exported(by_model, tmp_path / "vectors.parquet")
    embedded: list[str] = []
    embed = Embed.embed

    def watched(self: Embed, pixels: list[np.ndarray]) -> np.ndarray:
        embedded.append(self.model)
        return embed(self, pixels)

    monkeypatch.setattr(Embed, "embed", watched)
    save_file(nn.Linear(1280, 1).state_dict(), tmp_path / "head.safetensors")
    (tmp_path / "head.safetensors.yaml").write_text("models: [lite0]\n")
    head: dict[str, Any] = {"name": "quality", "head": str(tmp_path / "head.safetensors"), "embed": "ssl"}
    own = f"embed={{table: {table}, dtype: float32, model: lite0}}"
    store = run("semdedup", dedup_pool, tmp_path / "run", own, f"screen={{heads: [{head}]}}", "embed.max_missing=1")
    assert set(embedded) == {"lite0-copy"}
    for name in ("internal/semdedup/verdicts", "selection"):
        ours, theirs = store.table(name).read_all(), by_model.table(name).read_all()
        assert ours["image_id"].to_pylist() == theirs["image_id"].to_pylist()
    verdict = store.table("internal/semdedup/verdicts").read_all()["verdict"].to_pylist()
    assert verdict == by_model.table("internal/semdedup/verdicts").read_all()["verdict"].to_pylist()
    scored = store.table("scores").read_all()["quality"].is_valid().to_numpy().sum()
    assert scored == len(pq.read_table(table))
    for path in (Path(table), tmp_path / "head.safetensors"):
        path.unlink()  # a finished run can be looked at without them
    assert "internal/scores/quality" in {one.name for one in open_tables(store).tables}
