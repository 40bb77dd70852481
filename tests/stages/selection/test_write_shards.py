"""WriteShards: what is left out, and images of any length."""

import hashlib
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from curate.config import identity
from curate.engine.store import Table
from curate.errors import ConfigError
from curate.sources.config import Source
from curate.sources.reading import read_bytes
from curate.stages.images.catalog import SOURCE
from curate.stages.selection import write_shards
from curate.stages.selection.write_shards import WriteShards
from curate.tables import CATALOG, IMAGES, SELECTION
from tests.stages.planted import given_table

NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def selected(root: Path) -> dict[str, Table]:
    """A pool of four files, in two parts, all of which but d.jpg are selected."""
    rows = []
    for number, name in enumerate(NAMES):
        (root / name).write_bytes(name.encode() * 10)
        place = {"source": "pool", "role": "pool", "uri": str(root / name), "key": name}
        facts = {"sha256": hashlib.sha256(name.encode() * 10).digest(), "num_bytes": 50, "width": 8, "height": 8}
        chosen = {"clusters": [], "origins": [], "repeats": 1}
        rows.append({"image_id": (number // 2) << 32 | number % 2} | place | facts | chosen)
    source = Source(name="pool", path=str(root)).model_dump_json().encode()
    tables = {}
    for name, schema in (("catalog", CATALOG.with_metadata({SOURCE: source})), ("images", IMAGES)):
        tables[name] = given_table(root / "run", name, schema, [_only(rows[:2], schema), _only(rows[2:], schema)])
    chosen = [_only(rows[:2], SELECTION), _only(rows[2:3], SELECTION)]
    return tables | {"selection": given_table(root / "run", "selection", SELECTION, chosen)}


def _only(rows: list[dict[str, object]], schema: pa.Schema) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name in schema.names} for row in rows]


def written(stage: WriteShards, tables: dict[str, Table]) -> list[str]:
    pieces = [
        rows for part in (0, 1) for _, rows in stage.scatter(part, **{k: t.read(part) for k, t in tables.items()})
    ]
    return sorted(key for rows in pieces for key in rows["key"].to_pylist())


def test_removal_list_takes_hashes_in_any_case_keys_blank_lines_and_comments(tmp_path: Path) -> None:
    tables = selected(tmp_path)
    upper = hashlib.sha256(b"a.jpg" * 10).hexdigest().upper()
    (tmp_path / "remove.txt").write_text(f"# by request of the owner\n\n  {upper}  \nc.jpg\n")
    stage = WriteShards(num_shards=1, columns={}, removal_list=str(tmp_path / "remove.txt"))
    assert written(stage, tables) == ["b.jpg"]


def test_entries_that_match_nothing_in_any_part_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tables = selected(tmp_path)
    shards = given_table(tmp_path / "run", "shards", pa.schema([pa.field("n", pa.int64())]), [[{"n": 1}]])
    (tmp_path / "remove.txt").write_text("a.jpg\nc.jpg\nd.jpg\ntypo.jpg\n" + "f" * 64 + "\n")
    stage = WriteShards(removal_list=str(tmp_path / "remove.txt"))
    metrics = stage.summarize(shards, **tables)
    warning = f"write.removal_list: 2 of 5 entries match no image: {'f' * 64}, typo.jpg"
    assert (metrics["removed"], metrics["warning"]) == (2, warning)  # d.jpg is known, but was not selected
    assert warning in caplog.text
    (tmp_path / "remove.txt").write_text("c.jpg\n")
    assert stage.summarize(shards, **tables)["removed"] == 1
    assert "warning" not in stage.summarize(shards, **tables)


def test_warning_names_few_of_many_unknown_entries(tmp_path: Path) -> None:
    tables = selected(tmp_path)
    shards = given_table(tmp_path / "run", "shards", pa.schema([pa.field("n", pa.int64())]), [[{"n": 1}]])
    (tmp_path / "remove.txt").write_text("".join(f"{number}.png\n" for number in range(9)))
    warning = WriteShards(removal_list=str(tmp_path / "remove.txt")).summarize(shards, **tables)["warning"]
    assert warning.endswith("9 of 9 entries match no image: 0.png, 1.png, 2.png, 3.png, 4.png, ...")


def test_moved_removal_list_is_the_same_and_a_changed_one_is_not(tmp_path: Path) -> None:
    for name, text in (("a.txt", "x.jpg\n"), ("b.txt", "# moved\nx.jpg\n"), ("c.txt", "y.jpg\n")):
        (tmp_path / name).write_text(text)
    first, moved, changed = (WriteShards(removal_list=str(tmp_path / name)) for name in ("a.txt", "b.txt", "c.txt"))
    assert (identity(first), first.pins()) == (identity(moved), moved.pins())
    assert first.pins() != changed.pins()


def test_absent_removal_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"removal_list=.*absent\.txt: no such file"):
        WriteShards(removal_list=str(tmp_path / "absent.txt")).pins()


def test_images_longer_than_the_readers_default_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = selected(tmp_path)
    monkeypatch.setattr(write_shards, "read_bytes", partial(read_bytes, max_bytes=10))
    assert written(WriteShards(num_shards=1, columns={}), tables) == ["a.jpg", "b.jpg", "c.jpg"]
