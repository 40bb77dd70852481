"""What a workdir says of its run, and which workdirs are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from curate.engine.store import Store
from curate.errors import ConfigError, TableError, WorkdirError
from curate.recipe import RecipeConfig, load_config
from curate.workdir import RUN, claim, open_record, open_tables, record

TABLES = ["catalog", "images"]


def config(workdir: Path) -> RecipeConfig:
    return load_config("dedup", [f"sources.pool={workdir}", f"workdir={workdir}"])


def recorded(workdir: Path, **changes: Any) -> Store:
    """A workdir whose run has just begun, its record changed."""
    store = Store(workdir)
    record(store, "dedup", config(workdir), TABLES)
    store.write_json(RUN, store.read_json(RUN) | changes)
    return store


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = open_record(recorded(tmp_path))
    assert (found.recipe, found.tables) == ("dedup", ("catalog", "images"))
    assert found.config == config(tmp_path).model_dump(mode="json")


@pytest.mark.parametrize("layout", [None, 1, 99])
def test_workdirs_of_another_version_are_refused_and_stay_as_they_are(tmp_path: Path, layout: int | None) -> None:
    """The first versions wrote no number."""
    store = recorded(tmp_path)
    written = {"recipe": "dedup", "config": {}} | ({} if layout is None else {"layout": layout})
    store.write_json(RUN, written)
    for look in (lambda: claim(store, "dedup", TABLES), lambda: open_record(store), lambda: open_tables(store)):
        with pytest.raises(WorkdirError, match="made by another version of curate.*choose another workdir"):
            look()
    assert store.read_json(RUN) == written


@pytest.mark.parametrize("damage", [{"tables": 3}, {"config": None}, {"more": 1}])
def test_a_damaged_record_is_told(tmp_path: Path, damage: dict[str, Any]) -> None:
    with pytest.raises(WorkdirError, match=r"run\.json: not written by curate, or damaged"):
        open_record(recorded(tmp_path, **damage))


def test_only_new_workdirs_and_those_that_grow_into_the_recipe_are_claimed(tmp_path: Path) -> None:
    claim(Store(tmp_path / "absent"), "dedup", TABLES)
    (tmp_path / ".lock").touch()
    claim(Store(tmp_path), "dedup", TABLES)  # a run that was refused leaves its lock
    store = recorded(tmp_path, tables=[*TABLES, "internal/lists"])
    claim(store, "dedup", [])
    claim(store, "semdedup", [*TABLES, "selection"])
    with pytest.raises(WorkdirError, match="run of recipe 'dedup', this one is 'mine', which does not make its table"):
        claim(store, "mine", ["catalog", "selection", "internal/lists"])
    with pytest.raises(
        WorkdirError, match="does not make its tables catalog, a, b and 2 more; run again with --update"
    ):
        claim(recorded(tmp_path, tables=["catalog", *"abcd"]), "mine", ["images"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").touch()
    with pytest.raises(WorkdirError, match=r"not empty, and not a workdir of curate \(mine.txt\)"):
        claim(Store(tmp_path / "other"), "dedup", TABLES)


def test_folders_without_a_run_and_runs_without_a_table_are_errors(tmp_path: Path) -> None:
    with pytest.raises(
        WorkdirError, match="no run of curate here; make one with `.*curate run dedup --pool FOLDER --workdir"
    ):
        open_record(Store(tmp_path / "absent"))
    with pytest.raises(TableError, match="holds no finished table"):
        open_tables(recorded(tmp_path / "begun"))


def test_a_config_that_is_not_valid_any_more_says_what_to_do(tmp_path: Path) -> None:
    store = recorded(tmp_path)
    changed = open_record(store).config | {"gone": 1}
    with pytest.raises(ConfigError, match=r"gone: unknown key(.|\n)*run its config again"):
        open_tables(recorded(tmp_path, config=changed))


def test_looking_at_a_workdir_runs_no_code_that_came_with_it(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("raise RuntimeError('was run')")
    recipe = f"{tmp_path}/theirs.py:recipe"
    with pytest.raises(WorkdirError, match="its recipe is code in the workdir itself"):
        open_tables(recorded(tmp_path, recipe=recipe, config={"recipe": recipe}))


@pytest.mark.parametrize("data", [b"", b"null", b"{", b"\xff\x00", b"[1]", b"3", b'{"recipe": "dedup"', b"[" * 100_000])
def test_a_damaged_record_is_written_anew_where_tables_lie_beside_it(tmp_path: Path, data: bytes) -> None:
    store = recorded(tmp_path)
    (tmp_path / RUN).write_bytes(data)
    with pytest.raises(WorkdirError, match=r"run.json: not written by curate, or damaged .*; where this is a workdir"):
        claim(store, "dedup", TABLES)
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog/_table.json").write_bytes(b"{}")
    assert "damaged" in (claim(store, "dedup", TABLES) or "")
    (tmp_path / RUN).unlink()
    assert "is gone; it is written anew" in (claim(store, "dedup", TABLES) or "")
    record(store, "dedup", config(tmp_path), ["catalog"])
    assert claim(store, "dedup", TABLES) is None


def test_records_of_the_version_without_digests_are_read(tmp_path: Path) -> None:
    store = recorded(tmp_path)
    values = store.read_json(RUN) | {"layout": 2}
    (tmp_path / RUN).write_text(json.dumps(values))
    assert open_record(store).layout == 2


def test_every_bit_of_a_record_counts(tmp_path: Path) -> None:
    store = recorded(tmp_path)
    whole = (tmp_path / RUN).read_bytes()
    for place in range(0, len(whole), 3):
        (tmp_path / RUN).write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(WorkdirError, match="run.json: not written by curate, or damaged"):
            open_record(store)
