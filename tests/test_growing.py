"""A workdir whose pool and purpose grow: each run reads and embeds what is new, and ends as one from nothing would."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.incremental import LOOSER, looking
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import StaleTable, WorkdirError
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.pool import make_pool
from curate.stages.images.embed import Embed
from curate.workdir import open_record, open_tables

TUNED = [f"internal/{name}/pdq" for name in ("truth", "neighbors", "trusted")]


class Killed(BaseException):
    """Ends a run as a kill would, as far as the workdir can tell."""


def run(
    recipe: str, workdir: Path, pool: Path, *more: str, rebuild: list[str] | None = None, update: bool = False
) -> dict[str, int]:
    """Returns how many images were looked at, and for what."""
    values = [f"sources.pool={pool}", f"workdir={workdir}", "executor.threads=1", "rows_per_part=20", *more]
    with looking() as looked:
        run_config(load_config(recipe, values), Flags(rebuild=frozenset(rebuild or ()), update=update))
    return {key: count for key, count in looked.items() if count}


def parts(workdir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(workdir)): path.read_bytes() for path in sorted(workdir.rglob("part-*.parquet"))}


def kept(workdir: Path) -> set[int]:
    rows = Store(workdir).table("duplicates").read_all(["image_id", "verdict"]).to_pylist()
    return {row["image_id"] for row in rows if row["verdict"] == "kept"}


def run_killed(monkeypatch: pytest.MonkeyPatch, batches: int, *args: Any, **options: Any) -> None:
    """As `run`, but killed at a batch of the second pass."""
    embed, left = Embed.embed, [batches]

    def fragile(stage: Embed, pixels: list[Any]) -> Any:
        left[0] -= stage.model == "lite0"
        if left[0] < 0:
            raise Killed
        return embed(stage, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(Embed, "embed", fragile)
        with pytest.raises(Killed):
            run(*args, **options)


def test_run_that_grows_reads_and_embeds_what_is_new_and_ends_with_the_bytes_of_a_run_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pool(tmp_path / "s", num_images=40, seed=5, num_heldout=4)
    pool, root, heldout = tmp_path / "s/pool", tmp_path / "run", f"sources.heldout={tmp_path}/s/heldout"
    num_heldout = sum(1 for file in (tmp_path / "s/heldout").rglob("*") if file.is_file())
    first = run("dedup", root, pool)
    assert first["inspect"] == 40

    added = run("dedup", root, pool, heldout)
    assert added["inspect"] == num_heldout
    assert "lite0" not in added

    with pytest.raises(StaleTable, match=r"^selection was made with another configuration: balance(.|\n)*--update"):
        run("hierarchical", root, pool, heldout)
    assert open_record(Store(root)).recipe == "dedup"
    run_killed(monkeypatch, 1, "hierarchical", root, pool, heldout, rebuild=["selection"])
    assert open_record(Store(root)).recipe == "hierarchical"
    assert run("hierarchical", root, pool, heldout, rebuild=["selection"]).keys() == {"lite0"}

    before = kept(root)
    assert run("hierarchical", root, pool, heldout, LOOSER, rebuild=TUNED) == {"lite0": len(kept(root) - before)}
    fewer = kept(root)
    assert len(fewer) < len(before)
    run_killed(monkeypatch, 0, "hierarchical", root, pool, heldout, rebuild=TUNED)
    assert run("hierarchical", root, pool, heldout) == {"lite0": len(before - fewer)}
    assert kept(root) == before

    run("hierarchical", tmp_path / "fresh", pool, heldout)
    grown, fresh = parts(root), parts(tmp_path / "fresh")
    assert {name for name in fresh if grown.get(name) != fresh[name]} == set()
    assert grown.keys() == fresh.keys()

    moved = tmp_path / "elsewhere"
    shutil.move(pool, moved)
    assert run("hierarchical", root, moved, heldout) == {}
    after = parts(root)
    assert {name for name in grown if after[name] != grown[name]} == {
        "catalog/part-00000.parquet",
        "catalog/part-00001.parquet",
    }
    assert not open_tables(Store(root)).outdated
    shutil.rmtree(root / "shards")  # whose pictures are then read where they lie now
    run("hierarchical", root, moved, heldout)
    assert parts(root / "shards") == parts(tmp_path / "fresh/shards")
    with pytest.raises(
        WorkdirError,
        match=r"holds a run of recipe 'hierarchical', this one is 'dedup', which .*run again with --update",
    ):
        run("dedup", root, moved, heldout)


def test_a_workdir_goes_on_by_any_recipe_and_back_and_embeds_each_image_once(tmp_path: Path) -> None:
    make_pool(tmp_path / "s", num_images=40, seed=5, curated_each=1, num_heldout=4)
    pool, root = tmp_path / "s/pool", tmp_path / "run"
    curated = f"sources.curated={tmp_path}/s/curated"
    run("dedup", root, pool)
    alone, stay = parts(root), len(kept(root))
    assert run("hierarchical", root, pool, update=True) == {"lite0": stay}
    balanced = parts(root)
    assert run("semdedup", root, pool, update=True) == {}
    assert open_record(Store(root)).recipe == "semdedup"
    assert not open_tables(Store(root)).outdated
    assert run("dedup", root, pool, update=True) == {}
    after = parts(root)
    assert {name for name in alone if after[name] != alone[name]} == set()
    assert run("hierarchical", root, pool, update=True) == {}
    after = parts(root)
    assert {name for name in balanced if after[name] != balanced[name]} == set()

    copies = ("hashes=true", "borders=true", "verify=auto", "crowds=judge", "embed={model: lite0-copy}")
    alike = [*(f"copies.{one}" for one in copies), "inspect.decode_side=256", "sources.heldout=[]"]
    small = [
        "retrieval.embed.model=lite0",
        "retrieval.clusters.levels=auto_flat",
        "retrieval.retrieve.cluster={per_cluster: auto, max_per_set: auto}",
    ]
    looked = run("lvd142m", root, pool, curated, *alike, *small, update=True)
    assert looked["inspect"] == 6
    assert looked["lite0"] == stay + 6
    back = run("dedup", root, pool, curated, update=True)
    assert back == {}
