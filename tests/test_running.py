"""The whole way on small pools: every recipe, resume after kill -9, Dask, bad input."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from benchmarks.bitflips import flip_bits
from curate.engine.freshness import Flags
from curate.engine.image_ids import Parts
from curate.engine.store import Store
from curate.errors import ConfigError, SourceError, StaleTable, TooManyRejects, WorkdirError
from curate.recipe import load_config
from curate.report.explain import explain
from curate.running import Outcome, report_is_behind, run_config
from curate.samples.bundled import PHOTOS
from curate.samples.pool import make_pool
from curate.tables import DUPLICATES
from curate.verifying import verify
from curate.workdir import open_record, open_tables
from tests.killing import Killing
from tests.report.test_flow import assert_adds_up

SMALL_TRAINING = [
    "pretrain.train.model.preset=tiny",
    "pretrain.train.model.depth=1",
    "pretrain.train.model.patch_size=16",
    "pretrain.train.model.num_registers=0",
    "pretrain.train.crops.global_size=32",
    "pretrain.train.crops.local_size=16",
    "pretrain.train.crops.num_local=2",
    "pretrain.train.objective.prototypes=32",
    "pretrain.train.objective.head_hidden=32",
    "pretrain.train.batch_size=4",
    "pretrain.train.iterations=3",
    "pretrain.train.workers=0",
]


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of 60 images, 12 curated and 8 held-out ones."""
    folder = tmp_path_factory.mktemp("samples")
    make_pool(folder, num_images=60, seed=3, curated_each=2, num_heldout=8)
    return folder


def overrides(samples: Path, workdir: Path, *more: str, threads: int = 1) -> list[str]:
    roles = [f"sources.{role}={samples / role}" for role in ("pool", "curated", "heldout")]
    return [*roles, f"workdir={workdir}", f"executor.threads={threads}", *more]


def run_recipe(name: str, samples: Path, workdir: Path, *more: str, flags: Flags = Flags()) -> Outcome:  # noqa: B008
    return run_config(load_config(f"configs/{name}.yaml", overrides(samples, workdir, *more)), flags)


def tables_of(workdir: Path) -> tuple[str, ...]:
    return open_record(Store(workdir)).tables


def figures(workdir: str | Path, table: str) -> dict[str, Any]:
    return Store(workdir).table(table).complete_manifest().figures


def parquet_hashes(workdir: Path) -> dict[str, str]:
    return {
        str(f.relative_to(workdir)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(workdir.rglob("part-*.parquet"))
    }


@pytest.fixture(scope="session")
def finished(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's recipe, made once with parts of 25 images."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    run_recipe("quickstart", samples, workdir, "rows_per_part=25", "evaluate=null", *SMALL_TRAINING)
    return workdir


def test_quickstart_makes_every_fixed_name(finished: Path) -> None:
    for table in ("catalog", "images", "duplicates", "selection"):
        assert list((finished / table).glob("part-*.parquet")), table
    assert list((finished / "shards" / "data").glob("*.parquet"))
    assert (finished / "report" / "index.html").stat().st_size > 10_000
    assert list(finished.rglob("*.safetensors"))


def test_what_is_left_and_what_was_kept_out_add_up(finished: Path) -> None:
    found = open_tables(Store(finished)).flow()
    assert_adds_up(found)
    assert [step.name for step in found if step.station] == ["listed", "usable", "not copies", "clean", "selected"]


def test_a_person_finds_few_names_in_a_workdir(finished: Path) -> None:
    """Ten of a curation, and the training beside them; working tables lie under one of them."""
    names = {path.name for path in finished.iterdir() if not path.name.startswith(".")}
    fixed = {"catalog", "images", "embeddings", "duplicates", "assignments", "selection", "shards"}
    assert names == fixed | {"internal", "report", "run.json", "pretrain"}
    assert len(names - {"pretrain"}) == 10


def test_duplicates_hold_every_accepted_pool_image_once(finished: Path) -> None:
    catalog, images, duplicates = (
        Store(finished).table(t).read_all().to_pandas() for t in ("catalog", "images", "duplicates")
    )
    merged = catalog.merge(images, on="image_id")
    accepted = merged[(merged["role"] == "pool") & merged["reject"].isna()]["image_id"]
    assert duplicates["image_id"].tolist() == accepted.tolist()
    smallest = duplicates.groupby("component_id")["image_id"].min()
    assert (smallest.index == smallest).all()
    assert Store(finished).table("duplicates").schema().names == DUPLICATES.names


def test_selection_holds_only_kept_and_curated_images(finished: Path) -> None:
    query = f"""
        select count(*) from '{finished}/selection/part-*.parquet' s
        left join '{finished}/duplicates/part-*.parquet' d using (image_id)
        join '{finished}/catalog/part-*.parquet' c using (image_id)
        where not (c.role = 'curated' or d.verdict = 'kept')"""
    assert duckdb.sql(query).fetchall() == [(0,)]


def test_duckdb_reads_every_table(finished: Path) -> None:
    for folder in {f.parent for f in finished.rglob("part-*.parquet")}:
        rows = duckdb.sql(f"select count(*) from '{folder}/part-*.parquet'").fetchall()[0][0]
        assert rows == json.loads((folder / "_table.json").read_text())["rows"]


def test_shards_hold_the_original_bytes_and_load_as_pictures(finished: Path, samples: Path) -> None:
    data = load_dataset("parquet", data_files=f"{finished}/shards/data/*.parquet", split="train")
    assert len(data) == Store(finished).table("selection").num_rows()
    assert all(isinstance(row["image"], Image.Image) for row in data.select(range(5)))
    for row in pq.read_table(finished / "shards/data").to_pylist():
        original = (samples / row["role"] / row["key"]).read_bytes()
        assert row["image"]["bytes"] == original
        assert hashlib.sha256(original).hexdigest() == row["sha256"]


def test_dataset_folder_loads_through_its_card(finished: Path) -> None:
    data = load_dataset(str(finished / "shards"), split="train")
    assert isinstance(data[0]["image"], Image.Image)


def test_every_table_of_a_finished_run_is_of_its_current_settings(finished: Path) -> None:
    found = open_tables(Store(finished))
    assert found.outdated == {}
    assert [one.name for one in found.tables] == list(tables_of(finished))
    assert not report_is_behind(Store(finished))


def test_second_run_finds_nothing_to_do(finished: Path, samples: Path) -> None:
    before = parquet_hashes(finished)
    again = run_recipe("quickstart", samples, finished, "rows_per_part=25", "evaluate=null", *SMALL_TRAINING)
    assert again.changed == []
    assert parquet_hashes(finished) == before


DRIVER = """
import sys
from curate import running
from curate.engine.freshness import Flags
from curate.recipe import load_config
if __name__ == "__main__":
    running.write_report = lambda store: sys.exit("the driver loaded torch" if "torch" in sys.modules else 0)
    running.run_config(load_config(sys.argv[1], sys.argv[2:]), Flags())
    sys.exit("no report was asked for")
"""
"""Ends where the tables are made: the report of a training shows what its backbone sees, which takes torch."""


def test_dask_and_in_process_give_equal_tables_and_a_driver_needs_no_torch(
    finished: Path, samples: Path, tmp_path: Path
) -> None:
    dask = ("executor.kind=local", "executor.workers=2")
    values = overrides(samples, tmp_path / "run", "rows_per_part=25", "evaluate=null", *SMALL_TRAINING, *dask)
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, "-W", "ignore", str(tmp_path / "driver.py"), "configs/quickstart.yaml", *values]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert parquet_hashes(tmp_path / "run") == parquet_hashes(finished)


ONE_OF_EACH_KIND = frozenset(
    (
        "images-run",
        "internal/centroids/copy-partial",
        "internal/candidates/near-scatter",
        "internal/candidates/near-run",
        "duplicates-combine",
        "selection-run",
    )
)


def test_workers_killed_in_every_kind_of_phase_leave_equal_tables(
    finished: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With CURATE_KILL_EVERYWHERE=1 a worker dies in every phase of every table; that takes two minutes."""
    everywhere = bool(os.environ.get("CURATE_KILL_EVERYWHERE"))
    (tmp_path / "killed").mkdir()
    killing = Killing(tmp_path / "killed", only=None if everywhere else ONE_OF_EACH_KIND)
    monkeypatch.setattr("curate.engine.dask_clusters.on_dask.perform", killing)
    dask = ("executor.kind=local", "executor.workers=2")
    run_recipe("quickstart", samples, tmp_path / "run", "rows_per_part=25", "evaluate=null", *SMALL_TRAINING, *dask)
    assert parquet_hashes(tmp_path / "run") == parquet_hashes(finished)
    if everywhere:
        made_in_pass = {"embeddings/copy", "internal/embeddings/luma"}
        beside = {"catalog", *made_in_pass}  # the driver makes the catalog
        assert {name.rpartition("-")[0] for name in killing.killed()} == {
            table.replace("/", "_") for table in set(tables_of(finished)) - beside
        }
    else:
        assert killing.killed() == {name.replace("/", "_") for name in ONE_OF_EACH_KIND}


def test_killed_run_resumes_to_equal_shards(finished: Path, samples: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    values = overrides(samples, workdir, "rows_per_part=25", "evaluate=null", *SMALL_TRAINING)
    command = [sys.executable, "-m", "curate", "run", "configs/quickstart.yaml", *values]
    reached = (
        "images/part-00001.parquet",
        "duplicates/_state",
        "embeddings/retrieval/part-00000.parquet",
        "shards/data/_pieces",
    )
    for place in reached:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while not (workdir / place).exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert process.poll() is None, f"finished before {place}"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert parquet_hashes(workdir) == parquet_hashes(finished)


def test_changed_setting_is_stale_and_deletes_nothing(finished: Path, samples: Path) -> None:
    before = parquet_hashes(finished)
    values = ("rows_per_part=25", "evaluate=null", *SMALL_TRAINING, "copies.judge.threshold=0.99")
    with pytest.raises(
        StaleTable, match=r"internal/neighbors/aligned was made with another configuration: threshold: .* -> 0.99"
    ):
        run_recipe("quickstart", samples, finished, *values)
    assert parquet_hashes(finished) == before


@pytest.mark.parametrize("name", ["dedup", "hierarchical", "semdedup"])
def test_other_recipes_reach_their_shards(name: str, samples: Path, tmp_path: Path) -> None:
    outcome = run_recipe(name, samples, tmp_path / "run")
    assert "shards/data" in outcome.changed
    assert_adds_up(open_tables(Store(tmp_path / "run")).flow())
    kept = figures(tmp_path / "run", "duplicates")["kept"]
    assert 0 < kept < Parts.of(Store(tmp_path / "run").table("catalog")).num_images(["pool"])
    routes = figures(tmp_path / "run", "selection")["routes"]
    assert routes["curated"] == 12
    if name == "semdedup":
        verdicts = figures(tmp_path / "run", "internal/semdedup/verdicts")
        assert verdicts["kept"] + verdicts["similar"] == kept
        kept = verdicts["kept"]
    if name == "hierarchical":
        junk = figures(tmp_path / "run", "internal/junk")["junk"]
        assert junk < kept // 8
        assert routes["balance"] == (kept - junk) * 3 // 4
    else:
        assert routes["kept"] == kept


def test_forty_images_are_enough_for_dedup_and_quickstart(tmp_path: Path) -> None:
    make_pool(tmp_path / "s", num_images=40, seed=5, curated_each=1, num_heldout=4)
    for name in ("dedup", "quickstart"):
        more = ("evaluate=null", *SMALL_TRAINING) if name == "quickstart" else ()
        run_recipe(name, tmp_path / "s", tmp_path / name, *more)
        assert Store(tmp_path / name).table("shards/data").num_rows() > 0


def test_forty_times_the_same_picture_ends_as_one(samples: Path, tmp_path: Path) -> None:
    one, other, seed = sorted((samples / "curated").rglob("*.jpg"))[:3]
    for folder, pictures in (("pool", [one] * 40 + [other]), ("curated", [seed])):
        (tmp_path / "s" / folder).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            shutil.copy(picture, tmp_path / "s" / folder / f"{number}.jpg")
    shutil.copytree(samples / "heldout", tmp_path / "s" / "heldout")
    run_recipe("quickstart", tmp_path / "s", tmp_path / "run", "evaluate=null", *SMALL_TRAINING)
    assert figures(tmp_path / "run", "duplicates")["kept"] == 2
    assert figures(tmp_path / "run", "internal/retrieved")["unique"] == 2


def test_own_columns_travel_to_the_shards(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        folder = tmp_path / "pool"
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
        (folder / f"{number}.json").write_text(
            json.dumps({"caption": f"number {number}", "score": number / 2, "key": "x"})
        )
    config = load_config("dedup", [f"sources.pool={tmp_path}/pool", f"workdir={tmp_path}/run"])
    run_config(config, Flags())
    rows = pq.read_table(tmp_path / "run/shards/data").to_pylist()
    told = {row["key"]: (row["caption"], row["score"], row["source_key"]) for row in rows}
    assert told == {f"{n}.jpg": (f"number {n}", n / 2, "x") for n in range(4)}


HOSTILE = {
    "half an emoji": (b'{"caption": "\\ud83d", "n": 1}', "not_unicode"),
    "600 levels": (b'{"caption": ' + b"[" * 600 + b"]" * 600 + b', "n": 2.5}', "too_deep"),
    "5000 digits": (b'{"caption": ' + b"1" * 5000 + b', "n": 9007199254740993}', "long_integer"),
    "no number": (b'{"caption": NaN, "n": 18446744073709551615}', "not_finite"),
    "latin-1": (b'{"caption": "gr\xf6\xdfe", "n": null}', "not_unicode"),
    "no JSON": (b"{", "invalid_json"),
    "names": (b'{"a\\u0000b": 1, "": 2, "n": true}', "unusable_name"),
    "fine": (b'{"caption": "fine", "n": -4}', None),
}
"""JSON beside a picture, and the kind of what is left out of it."""


def test_hostile_values_beside_pictures_of_a_list_from_windows_stop_nothing_and_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = sorted(PHOTOS.rglob("*.jpg"))[:: len(HOSTILE)]
    for photo, (name, (data, _)) in zip(photos, HOSTILE.items(), strict=False):
        shutil.copy(photo, tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.json").write_bytes(data)
    (tmp_path / "list.txt").write_bytes("\r\n".join(f"{name}.jpg" for name in HOSTILE).encode("utf-16"))
    caplog.set_level("WARNING", "curate")
    run_config(load_config("dedup", [f"sources.pool={tmp_path}/list.txt", f"workdir={tmp_path}/run"]), Flags())
    images = pq.read_table(tmp_path / "run/images", columns=["reject", "left_out"])
    assert images["reject"].null_count == len(HOSTILE)
    assert images["left_out"].to_pylist() == [kind and [kind] for _, kind in HOSTILE.values()]
    told = "left out of the own columns of 2 images: text that is not Unicode"
    assert [
        record
        for record in caplog.records
        if told in record.getMessage() and "half an emoji.jpg" in record.getMessage()
    ]
    assert told in (tmp_path / "run/report/index.html").read_text(encoding="utf-8")
    story = explain(open_tables(Store(tmp_path / "run")), "600 levels.jpg")
    assert "left out of its own columns: values nested deeper than 100 levels" in story
    rows = {row["key"]: row for row in pq.read_table(tmp_path / "run/shards/data").to_pylist()}
    found = [(rows[f"{name}.jpg"]["caption"], rows[f"{name}.jpg"]["n"]) for name in HOSTILE]
    numbers = ["1", "2.5", "9007199254740993", "18446744073709551615", None, None, "true", "-4"]
    assert found == [("fine" if name == "fine" else None, n) for name, n in zip(HOSTILE, numbers, strict=True)]


def test_takedown_drops_images_at_the_shards(finished: Path, samples: Path, tmp_path: Path) -> None:
    run_recipe("dedup", samples, tmp_path / "run")
    rows = pq.read_table(tmp_path / "run/shards/data").to_pylist()
    (tmp_path / "remove.txt").write_text(f"{rows[0]['sha256']}\n{rows[1]['key']}\n")
    removal = f"write.removal_list={tmp_path}/remove.txt"
    with pytest.raises(StaleTable, match="shards/data .*removal_list"):
        run_recipe("dedup", samples, tmp_path / "run", removal)
    outcome = run_recipe("dedup", samples, tmp_path / "run", removal, flags=Flags(frozenset({"shards/data"})))
    assert outcome.changed == ["shards/data", "shards/.rows", "internal/origins"]
    left = {row["sha256"] for row in pq.read_table(tmp_path / "run/shards/data").to_pylist()}
    assert left == {row["sha256"] for row in rows} - {rows[0]["sha256"], rows[1]["sha256"]}


def test_appended_images_leave_old_parts_alone(samples: Path, tmp_path: Path) -> None:
    make_pool(tmp_path / "s", num_images=40, seed=5, curated_each=1, num_heldout=4)
    run_recipe("dedup", tmp_path / "s", tmp_path / "run")
    before = parquet_hashes(tmp_path / "run")
    for number, path in enumerate(sorted((samples / "pool").glob("*.jpg"))[:10]):
        (tmp_path / "s" / "pool" / f"new{number}.jpg").write_bytes(path.read_bytes())
    assert run_recipe("dedup", tmp_path / "s", tmp_path / "run").changed == []  # the stored listing is trusted
    run_recipe("dedup", tmp_path / "s", tmp_path / "run", flags=Flags(rescan=True))
    after = parquet_hashes(tmp_path / "run")
    per_image = [name for name in before if name.startswith(("catalog/", "images/", "embeddings/", "internal/embed"))]
    assert {name: after[name] for name in per_image} == {name: before[name] for name in per_image}
    assert len([name for name in after if name.startswith("images/")]) == 4


def test_too_many_rejects_stop_the_run_and_keep_the_work(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    Image.effect_noise((64, 64), 40).resize((128, 128)).convert("RGB").save(tmp_path / "pool" / "a.png")
    for number in range(3):
        (tmp_path / "pool" / f"{number}.jpg").write_bytes(b"<html>gone</html>")
    values = [f"sources.pool={tmp_path}/pool", f"workdir={tmp_path}/run"]
    with pytest.raises(TooManyRejects, match=r"3 of 4 images were rejected \({'not_an_image': 3}\)"):
        run_config(load_config("dedup", values), Flags())
    outcome = run_config(load_config("dedup", [*values, "inspect.max_reject_fraction=0.8"]), Flags())
    assert "shards/data" in outcome.changed


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (["sources.pool={tmp}/absent"], SourceError, "absent"),
        (["sources.pool={tmp}/empty"], SourceError, "empty"),
        (["sources.pool={samples}/pool", "copies.embed.model=sscd"], Exception, "weights"),
        (["sources.pool={samples}/pool", "copies.embed.model=lite0"], ConfigError, "threshold"),
        (["sources.pool={samples}/pool", "copies.embed.modle=lite0"], ConfigError, "did you mean 'model'"),
    ],
)
def test_bad_input_is_told_before_anything_is_made(
    values: list[str], error: type[Exception], message: str, samples: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [value.format(tmp=tmp_path, samples=samples) for value in values]
    with pytest.raises(error, match=message):
        run_config(load_config("dedup", [f"workdir={tmp_path}/run", *filled]), Flags())
    assert not list(tmp_path.rglob("part-*.parquet"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("retrieval.clusters.levels=[5000]", "the first level can have at most"),
        ("retrieval.retrieve.sample.k=5000", r"sample.k=5000: \d+ pool images are left; set it to"),
        ("copies.fit_lists.num_lists=5000", "num_lists=5000: .* set it from 1 to"),
        ("copies.build_lists.num_probes=9", "num_probes=9: there are 1 lists"),
        ("select.balance.target=5000", "balance.target=5000: .* set it to"),
        ("write.num_shards=5000", "num_shards=5000: .* images are selected"),
    ],
)
def test_values_too_large_name_the_largest_valid_one(
    value: str, message: str, finished: Path, samples: Path, tmp_path: Path
) -> None:
    names = [table for table in tables_of(finished) if table != "catalog"]
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", str(finished), str(copy)], check=True)  # only what the value concerns is made again
    flags = Flags(frozenset(names) & _concerned(value))
    with pytest.raises(ConfigError, match=message):
        run_recipe(
            "quickstart", samples, copy, "rows_per_part=25", "evaluate=null", *SMALL_TRAINING, value, flags=flags
        )


def _concerned(value: str) -> set[str]:
    tables = {
        "retrieval.clusters": {f"internal/centroids/{name}" for name in ("cells", "leaves", "clusters")},
        "retrieval.retrieve": {
            f"internal/{name}" for name in ("retrieved", "truth/retrieval", "neighbors/retrieval", "nearest/ranked")
        },
        "copies.fit_lists": {"internal/centroids/copy", "internal/centroids/pdq"},
        "copies.build_lists": {"internal/candidates/near", "internal/neighbors/pdq"},
        "select": {"selection"},
        "write": {"shards/data"},
    }
    return next(names for start, names in tables.items() if value.startswith(start))


def test_workdir_of_another_run_is_refused(finished: Path, samples: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkdirError, match="holds a run of recipe 'pretrain', this one is 'dedup'"):
        run_recipe("dedup", samples, finished)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="not a workdir of curate.*mine.txt"):
        run_recipe("dedup", samples, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    old = tmp_path / "old"
    (old / "catalog").mkdir(parents=True)
    (old / "run.json").write_text('{"recipe": "dedup", "config": {}}')
    with pytest.raises(WorkdirError, match="made by another version of curate"):
        run_recipe("dedup", samples, old)
    assert sorted(path.name for path in old.iterdir()) == ["catalog", "run.json"]


def test_refused_run_leaves_the_record_of_the_last_one(finished: Path, samples: Path) -> None:
    before = (finished / "run.json").read_bytes()
    with pytest.raises(StaleTable):
        run_recipe("quickstart", samples, finished, "rows_per_part=25", "evaluate=null", *SMALL_TRAINING, "seed=99")
    assert (finished / "run.json").read_bytes() == before


def test_workdir_can_be_used_after_a_mistyped_source(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="typo"):
        run_recipe("dedup", samples, tmp_path / "run", f"sources.pool={tmp_path}/typo")
    assert "shards/data" in run_recipe("dedup", samples, tmp_path / "run").changed


def test_report_is_written_again_when_it_tells_of_older_tables(samples: Path, tmp_path: Path) -> None:
    run_recipe("dedup", samples, tmp_path / "run")
    page = tmp_path / "run" / "report" / "index.html"
    whole = page.read_bytes()
    page.unlink()
    (tmp_path / "run" / "report" / "made_of.json").unlink()  # as after a kill between the last table and the report
    assert run_recipe("dedup", samples, tmp_path / "run").changed == []
    assert len(page.read_bytes()) == len(whole)


def test_passwords_in_urls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a URL with a user name or password") as refused:
        load_config("dedup", ["sources.pool=https://me:secret@host/pool", f"workdir={tmp_path}/run"])
    assert "secret" not in str(refused.value)


def test_paths_are_taken_as_they_are_typed(tmp_path: Path) -> None:
    config = load_config("dedup", [f"sources.pool={tmp_path}/a #1", "workdir=2024"])
    assert config.sources.pool[0].path == f"{tmp_path}/a #1"
    assert config.workdir == str(Path.cwd() / "2024")


def test_command_line_prints_brackets_and_needs_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "curate", "run", "dedup", f"sources.pool={tmp_path}/[/x]", f"workdir={tmp_path}/w"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"{tmp_path}/[/x]" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_other_sources_are_stale(samples: Path, finished: Path) -> None:
    with pytest.raises(
        StaleTable,
        match="catalog was made with another configuration: source pool is now .*, where the image .* is not",
    ):
        run_recipe(
            "quickstart",
            samples,
            finished,
            "rows_per_part=25",
            "evaluate=null",
            *SMALL_TRAINING,
            f"sources.pool={samples}/heldout",
        )


def test_curated_images_that_resemble_heldout_ones_are_reported_and_dropped_on_demand(tmp_path: Path) -> None:
    make_pool(tmp_path / "s", num_images=40, seed=5, curated_each=1, num_heldout=4)
    leaked = sorted((tmp_path / "s" / "heldout").rglob("*.jpg"))[0]
    Image.open(leaked).save(tmp_path / "s" / "curated" / "leaked.jpg", quality=50)
    for drop in (False, True):
        workdir = tmp_path / str(drop)
        run_recipe("dedup", tmp_path / "s", workdir, f"select.drop_contaminated={drop}")
        store = Store(workdir)
        assert figures(store.root, "duplicates")["curated_heldout"] == 1
        assert figures(store.root, "selection")["routes"]["curated"] == (6 if drop else 7)
        keys = set(pq.read_table(workdir / "shards/data")["key"].to_pylist())
        assert ("leaked.jpg" in keys) is not drop


def _bytes(shards: pa.Table) -> list[bytes]:
    return [picture["bytes"] for picture in shards["image"].to_pylist()]


def test_tars_and_parquet_give_the_shards_of_the_folder_they_were_made_of(tmp_path: Path) -> None:
    make_pool(tmp_path / "s", num_images=40, seed=5, curated_each=1, num_heldout=4)
    files = sorted((tmp_path / "s" / "pool").glob("*.jpg"))
    with tarfile.open(tmp_path / "pool.tar", "w") as archive:
        for file in files:
            archive.add(file, arcname=file.name)
    pictures = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    pq.write_table(pa.table({"image": pictures, "label": list(range(len(files)))}), tmp_path / "pool.parquet")
    found = {}
    for name, path in (("folder", "s/pool"), ("tar", "pool.tar"), ("parquet", "pool.parquet")):
        config = load_config("dedup", [f"sources.pool={tmp_path / path}", f"workdir={tmp_path / name}"])
        run_config(config, Flags())
        found[name] = pq.read_table(tmp_path / name / "shards/data")
    names, pictures = found["folder"]["key"].to_pylist(), _bytes(found["folder"])
    for kind in ("tar", "parquet"):
        assert found[kind]["key"].to_pylist() == [f"pool.{kind}/{name}" for name in names]
        assert _bytes(found[kind]) == pictures
        for column in ("sha256", "image_id"):
            assert found[kind][column].to_pylist() == found["folder"][column].to_pylist(), (kind, column)
    told = dict(zip(names, found["parquet"]["label"].to_pylist(), strict=True))
    assert told == {file.name: n for n, file in enumerate(files) if file.name in told}


PAGES = {"log", "events", "index", "README", "SUMMARY", "croissant"}
"""What carries no digest: pages, texts, and a log of which checkpoints hold a checked copy."""


def everything(workdir: Path) -> dict[str, bytes]:
    return {f.relative_to(workdir).as_posix(): f.read_bytes() for f in workdir.rglob("*") if f.is_file()}


def test_a_flipped_bit_in_any_file_is_found_and_named(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    found = flip_bits(workdir, flips=5)
    assert found.missed == ()
    assert found.flips > 500
    kinds = {Path(name).name.split(".")[0] for name in found.unread}
    assert kinds == PAGES
    assert everything(workdir) == everything(finished)


def test_verify_reads_everything_and_names_what_is_wrong(finished: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    whole = verify(str(workdir))
    assert not whole.damaged
    assert {Path(name).name.split(".")[0] for name in whole.unchecked} <= PAGES
    locks = list(workdir.rglob(".lock"))
    assert len(whole.checked) + len(whole.unchecked) == len(everything(workdir)) - len(locks)
    shard, checkpoint = workdir / "shards/data/part-00000.parquet", next(workdir.rglob("checkpoint.json"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"2")
    (workdir / "catalog/part-00001.parquet").unlink()
    checkpoint.write_text("{}")
    (workdir / "run.json").write_bytes(b"")
    damaged = verify(str(workdir)).damaged
    names = {str(shard), str(workdir / "catalog/part-00001.parquet"), str(checkpoint.parent), str(workdir / "run.json")}
    assert damaged.keys() == names
    with pytest.raises(ConfigError, match="no file is there; give a workdir"):
        verify(str(tmp_path / "absent"))


@pytest.mark.parametrize("change", ["sources.pool=/absent", "sources.curated=http://127.0.0.1:9/list.txt"])
def test_a_source_that_is_not_there_costs_nothing_that_is(
    finished: Path, samples: Path, tmp_path: Path, change: str
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    before = everything(workdir)
    more = ["rows_per_part=25", "evaluate=null", *SMALL_TRAINING, change]
    with pytest.raises(SourceError):
        run_recipe("quickstart", samples, workdir, *more, flags=Flags(rebuild=frozenset({"all"})))
    assert everything(workdir) == before


def test_a_damaged_workdir_is_mended_by_the_next_run(
    finished: Path, samples: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workdir = tmp_path / "run[1] #%"
    shutil.copytree(finished, workdir)
    wanted = parquet_hashes(workdir)
    (workdir / "run.json").write_bytes(b"")
    (workdir / "report/made_of.json").write_bytes(b"null")
    with pytest.raises(WorkdirError, match=r"run.json: not written by curate, or damaged .*; where this is a workdir"):
        open_tables(Store(workdir))
    for name in ("catalog/part-00001", "images/part-00000"):
        path = workdir / f"{name}.parquet"
        path.write_bytes(path.read_bytes()[:-5] + b"x" + path.read_bytes()[-4:])
    shutil.rmtree(workdir / "duplicates")
    run_recipe("quickstart", samples, workdir, "rows_per_part=25", "evaluate=null", *SMALL_TRAINING)
    assert parquet_hashes(workdir) == wanted
    assert "run.json: not written by curate, or damaged" in caplog.text
    assert "images/part-00000.parquet: damaged" in caplog.text
    assert not verify(str(workdir)).damaged
