"""Heads and examples on the whole way: equal pictures are found, rules take what they say, and cost no picture."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.incremental import looking
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.ops.vectors import VectorSpec, unpack
from curate.recipe import load_config
from curate.report.explain import explain
from curate.running import Outcome, declare, run_config
from curate.workdir import open_tables


def run(pool: Path, workdir: Path, screen: dict[str, Any]) -> Outcome:
    given = [f"sources.pool={pool}/pool", f"workdir={workdir}", "executor.threads=1", "rows_per_part=25"]
    given += ["copies.embed.precision=fp32", f"screen={screen}", "write=null"]
    return run_config(load_config("dedup", given), Flags(update=True), command=("dedup", *given))


def columns(workdir: Path, table: str, *names: str) -> list[list[Any]]:
    rows = Store(str(workdir)).table(table).read_all()
    return [rows[name].to_pylist() for name in names]


def test_heads_and_examples_score_every_image_and_rules_take_them(dedup_pool: Path, tmp_path: Path) -> None:
    workdir, examples = tmp_path / "run", tmp_path / "examples"
    torch.manual_seed(0)
    module = nn.Linear(1280, 1)
    save_file(module.state_dict(), tmp_path / "head.safetensors")
    (tmp_path / "head.safetensors.yaml").write_text("models: [lite0-copy]\ndoc: of nothing\n")
    chosen = sorted((dedup_pool / "pool").rglob("*.jpg"))[:2]
    examples.mkdir()
    for number, path in enumerate(chosen):
        shutil.copy(path, examples / f"{number}.jpg")
    head = {"name": "quality", "head": str(tmp_path / "head.safetensors"), "embed": "copy"}
    unlike = {"name": "logos", "source": str(examples), "above": 0.999}
    other = {"name": "other", "source": str(examples), "above": -1, "embed": {"model": "luma24", "device": "cpu"}}
    screen: dict[str, Any] = {"heads": [head], "unlike": [unlike], "like": [other]}
    run(dedup_pool, workdir, screen)

    ids, quality, logos, reject = columns(workdir, "scores", "image_id", "quality", "logos", "reject")
    table = Store(str(workdir)).table("embeddings/copy").read_all()
    vectors, rows = unpack(table["vector"], VectorSpec.of(table.schema))
    expected = module(torch.from_numpy(vectors.astype(np.float32))).detach().numpy()[:, 0]
    np.testing.assert_allclose([quality[row] for row in rows], expected, atol=1e-3)
    (uris,) = columns(workdir, "catalog", "uri")
    for path in chosen:
        assert logos[uris.index(str(path))] > 0.999
        assert reject[uris.index(str(path))] == "logos"
    assert "cosine 1.0000 to the example 0.jpg" in explain(open_tables(Store(str(workdir))), str(chosen[0]))

    bound = float(np.median(expected))
    with looking() as looked:
        outcome = run(dedup_pool, workdir, screen | {"unlike": [], "drop": {"quality": {"above": bound}}})
    assert not looked
    assert "internal/scores/quality" not in outcome.changed
    quality, reject = columns(workdir, "scores", "quality", "reject")
    usable = [value is not None for value in quality]
    assert [value == "quality" for value in reject] == [known and quality[i] > bound for i, known in enumerate(usable)]
    assert 0 < sum(value == "quality" for value in reject) < len(ids)


def test_rules_stand_before_the_search_for_copies_so_that_a_wrong_one_is_told_soon(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    given = [f"sources.pool={tmp_path}/pool", f"workdir={tmp_path}/run", "screen.where=stars > 3"]
    config = load_config("dedup", given)
    names = list(declare(config, Store(config.workdir)).names)
    assert names.index("internal/columns") < names.index("scores") < names.index("internal/candidates/near")
