"""Listed pictures on the whole way: they go, with their copies where asked, and other lists cost no picture."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.incremental import looking
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.recipe import load_config
from curate.report.explain import explain
from curate.running import Outcome, run_config
from curate.workdir import open_tables
from tests.stages.screening.test_match_lists import flipped

AFTER = {"internal/scores/listed", "scores", "duplicates", "selection", "internal/map", "shards/data"}
"""What other lists may change, besides what is read of the selection."""


def run(pool: Path, workdir: Path, lists: list[dict[str, Any]]) -> Outcome:
    given = [f"sources.{role}={pool}/{role}" for role in ("pool", "curated", "heldout")]
    given += [f"workdir={workdir}", "executor.threads=1", "rows_per_part=25", f"screen={{lists: {lists}}}"]
    return run_config(load_config("dedup", given), Flags(update=True), command=("dedup", *given))


def rows(workdir: Path, table: str) -> list[dict[str, Any]]:
    return Store(str(workdir)).table(table).read_all().to_pylist()


def test_listed_pictures_go_and_other_lists_cost_no_picture(dedup_pool: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    run(dedup_pool, workdir, [_list(tmp_path, "a", ["00" * 16])])
    kept = [row["image_id"] for row in rows(workdir, "duplicates") if row["verdict"] == "kept"]
    images = {row["image_id"]: row for row in rows(workdir, "images")}
    dropped = [row for row in rows(workdir, "duplicates") if row["verdict"] == "duplicate"]
    crowd = next(row for row in dropped if row["partner_id"] in kept)
    alone, group = [one for one in kept if one != crowd["partner_id"]][:2], crowd["partner_id"]
    catalog = {row["image_id"]: row["uri"] for row in rows(workdir, "catalog")}
    md5 = hashlib.md5(Path(catalog[alone[0]]).read_bytes()).hexdigest()
    near = flipped(np.frombuffer(images[alone[1]]["pdq"], np.uint8), 9)
    lists = [
        _list(tmp_path, "copies", [images[group]["sha256"].hex()], kind="sha256", with_copies=True),
        _list(tmp_path, "a", [md5, f"pdq:{near}"]),
    ]
    with looking() as looked:
        outcome = run(dedup_pool, workdir, lists)
    assert not looked
    assert set(outcome.changed) >= AFTER
    assert not {"images", "embeddings/copy", "internal/digests"} & set(outcome.changed)

    verdicts = {row["image_id"]: row for row in rows(workdir, "duplicates")}
    assert [verdicts[one]["verdict"] for one in (*alone, group, crowd["image_id"])] == ["screened"] * 4
    reasons = {row["image_id"]: (row["reject"], row["rule"]) for row in rows(workdir, "scores") if row["reject"]}
    named = {alone[0]: ("listed", "a"), alone[1]: ("listed", "a"), group: ("listed", "copies")}
    assert reasons.items() >= named.items()  # copies of the second one are near its hash, too
    selected = {row["image_id"] for row in rows(workdir, "selection")}
    assert not selected & {*alone, group, crowd["image_id"]}

    finished = open_tables(Store(str(workdir)))
    assert "on the list a by pdq, 9 bits off" in explain(finished, str(alone[1]))
    for one in lists:
        Path(one["path"]).unlink()  # a finished run can be looked at without them
    assert "on the list copies by sha256" in explain(open_tables(Store(str(workdir))), str(group))
    files = [path for path in workdir.rglob("*.*") if path.suffix in (".json", ".html", ".md")]
    told = "\n".join(path.read_text(errors="ignore") for path in files)
    assert md5 not in told
    assert near not in told


def _list(folder: Path, name: str, lines: list[str], **more: Any) -> dict[str, Any]:
    path = folder / f"{name}.txt"
    path.write_text("\n".join(lines))
    return {"name": name, "path": str(path), **more}
