"""What leaves a run, shards and card, tells neither where files lay on a machine nor columns without end."""

import json
import logging
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.recipe import load_config
from curate.running import run_config
from curate.stages.selection import own_columns, write_shards
from curate.workdir import open_tables
from tests.feed.shards import png


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's folder of four pictures with columns, three of which he lists by their absolute paths."""
    home = tmp_path / "home/anna"
    (home / "pool").mkdir(parents=True)
    for number in range(4):
        (home / f"pool/{number}.png").write_bytes(png(number, size=(96, 96)))
        own = {"caption": "c", "label": number} | {f"own{number}-{k}": k for k in range(5)}
        (home / f"pool/{number}.json").write_text(json.dumps(own))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/list.txt").write_text("".join(f"{home}/pool/{number}.png\n" for number in range(4)))
    (tmp_path / "lists/removed.txt").write_text(f"{home}/pool/3.png\n{home}/pool/gone.png\n/else/where/gone.png\n")
    return home


def test_shards_and_card_hold_no_path_of_this_machine_and_the_columns_of_most_images(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (own_columns, write_shards):
        monkeypatch.setattr(module, "MAX_COLUMNS", 3)
    root = home.parent.parent
    given = [
        f"sources.pool={{path: {root}/lists/list.txt, roots: [{home}]}}",
        f"workdir={root}/run",
        f"write.removal_list={root}/lists/removed.txt",
        "copies.verify=false",
    ]
    with caplog.at_level(logging.WARNING):
        run_config(load_config("dedup", given), Flags())

    shards = root / "run/shards"
    published = {str(path.relative_to(shards)): path for path in sorted(shards.rglob("*")) if path.is_file()}
    rows = [f"{table}/part-00000.parquet" for table in (".rows", "data")]
    told = {"README.md", "SUMMARY.md", "croissant.json", "manifest.json", ".rows/_table.json", "data/_table.json"}
    assert published.keys() == {*rows, *told}
    lists, table = (pq.read_table(published[name]) for name in rows)
    texts = [published[name].read_text() for name in sorted(told)]
    texts += [str(given) for one in (lists, table) for given in (one.to_pydict(), one.schema.metadata)]
    for secret in (str(root), "anna", "list.txt", "removed.txt"):
        assert not [text for text in texts if secret in text]
    assert sorted(table["key"].to_pylist()) == ["pool/0.png", "pool/1.png", "pool/2.png"]
    assert [image["path"] for image in table["image"].to_pylist()] == table["key"].to_pylist()
    assert json.loads(published["data/_table.json"].read_text())["figures"]["removal"]["entries"].keys() == {
        ".../3.png",
        ".../gone.png",
        ".../gone.png (2)",
    }

    assert "own columns of the sources are left out, such as 'own0-1': at most 3 are kept" in caplog.text
    assert table.column_names[-3:] == ["caption", "label", "own0-0"]
    run = open_tables(Store(f"{root}/run"))
    found = run.only(write_shards.WriteShards)
    assert found is not None
    assert any("3 own columns of the sources, as many as shards take" in text for text in found[0].warn(found[1], run))
