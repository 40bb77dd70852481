"""The sweep over thresholds: each row is what its command then gives."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from curate.engine.freshness import Flags
from curate.engine.store import SWEEP, Store
from curate.recipe import check_config, load_config
from curate.report.sweep import Swept, by_key, write_sweep
from curate.running import run_config
from curate.stages.copies.deduplicate import DeduplicateFigures
from curate.sweeping import HELDOUT, POOL, sweep
from curate.workdir import open_record, open_tables, record


@pytest.fixture(scope="module")
def store(dedup_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A copy of the run, told as one of its own place."""
    workdir = tmp_path_factory.mktemp("sweep") / "run"
    shutil.copytree(dedup_run, workdir)
    store = Store(workdir)
    found = open_record(store)
    command = [word if not word.startswith("workdir=") else f"workdir={workdir}" for word in found.command or ()]
    config = check_config({**found.config, "workdir": str(workdir)}, where="run.json")
    record(store, found.recipe, config, list(found.tables), pins=found.pins, command=command)
    return store


@pytest.fixture(scope="module")
def rows(store: Store) -> list[Swept]:
    before = files(store)
    found = sweep(store)
    assert files(store) == before
    assert not (Path(store.root) / SWEEP).exists()
    return found


def files(store: Store) -> dict[str, bytes]:
    found = (path for path in Path(store.root).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in found if path.name not in (".lock", "sweep.html")}


def test_the_keys_of_the_config_are_tried_from_the_strictest_value_on(rows: list[Swept]) -> None:
    found = by_key(rows)
    assert list(found) == [POOL, HELDOUT]
    for key, now in ((POOL, "known"), (HELDOUT, None)):
        values = [row.key.value for row in found[key]]
        assert values[0] == now
        assert [row.key.now for row in found[key]] == [True] + [False] * (len(values) - 1)
        assert values[1:] == sorted(values[1:], reverse=True)
        assert values[-1] == 0.7  # from where on pairs are verified
    dropped, touching = (
        [getattr(row, name) for row in found[key][1:]] for key, name in ((POOL, "dropped"), (HELDOUT, "contaminated"))
    )
    assert dropped == sorted(dropped)
    assert touching == sorted(touching)
    assert dropped[0] < dropped[-1]


def test_a_threshold_at_which_all_that_is_verified_counts_gives_what_the_run_gave(
    rows: list[Swept], store: Store
) -> None:
    figures = DeduplicateFigures.of(store.table("duplicates"))
    for found in by_key(rows).values():
        for row in (found[0], found[-1]):
            assert (row.kept, row.dropped, row.contaminated) == (figures.kept, figures.duplicate, figures.benchmark)
            assert sum(row.evidence.values()) == row.dropped


def test_each_image_goes_first_at_one_value(rows: list[Swept]) -> None:
    for found in by_key(rows).values():
        shown = [example.image_id for row in found for example in row.examples]
        assert len(shown) == len(set(shown))
    assert any(row.examples for row in rows)


def test_page_and_console_end_with_the_command_that_applies_a_row(rows: list[Swept], store: Store) -> None:
    page = Path(write_sweep(open_tables(store), rows)).read_text()
    assert page.count("<img") > 4
    assert all(row.key.text in page for row in rows)
    assert "copies.threshold=0.99 --update" in page
    chosen = next(row for row in rows if row.key.value == 0.99)
    assert shlex.split(chosen.command)[-2:] == ["copies.threshold=0.99", "--update"]
    assert json.loads(json.dumps(chosen.as_json()))["value"] == 0.99
    assert chosen.cells() == (
        "0.99",
        *(str(n) for n in (chosen.kept, chosen.dropped, chosen.largest, chosen.contaminated)),
        "",
    )


def test_the_command_of_a_row_gives_the_numbers_of_the_row(rows: list[Swept], store: Store) -> None:
    """And the row of before leads back."""
    first = next(row for row in rows if row.key.value == "known")
    other = next(row for row in rows if row.key.name == POOL and row.kept != first.kept)
    for row in (other, first):
        words = shlex.split(row.command)
        assert words[:3] == ["curate", "run", "dedup"]
        run_config(load_config(words[2], [word for word in words[3:] if word != "--update"]), Flags(update=True))
        figures = DeduplicateFigures.of(store.table("duplicates"))
        assert (figures.kept, figures.duplicate, figures.benchmark) == (row.kept, row.dropped, row.contaminated)
        assert store.table("shards/data").num_rows() == row.kept + 6  # curated images
