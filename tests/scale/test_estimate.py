"""Plans: laws beside a real run, every stage of the bundled recipes, and what more machines do."""

from pathlib import Path

import pytest

from curate.engine.cost import Assumptions, Demand
from curate.engine.freshness import Flags
from curate.engine.image_ids import Parts
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.pool import make_pool
from curate.scale.estimate import Machines, cells, duration, machines, plan_scale, size, total
from curate.scale.hardware import load_hardware
from curate.tables import ROLES

SOURCES = ("sources.pool=/none/pool", "sources.curated=/none/curated", "sources.heldout=/none/heldout")
PROFILES = ("v100", "a100", "h100", "cpu")
UNKNOWN = {"Pretrain", "Evaluate"}
"""Training is no part of the plan."""


def on(profile: str = "a100", *, cores: int = 0, gpus: int = 8) -> Machines:
    return machines(load_hardware(profile), cores=cores, gpus=gpus)


@pytest.mark.parametrize("name", ["dedup", "hierarchical", "semdedup", "lvd142m", "quickstart"])
def test_every_stage_of_the_recipes_has_a_law_and_grows_with_the_images(name: str) -> None:
    config = load_config(name, [*SOURCES, "workdir=/none/w"])
    few, many = (plan_scale(config, Assumptions(images=n, curated=10**5, heldout=10**5), on()) for n in (10**7, 10**8))
    without = [e.stage for e in few if "not estimated" in e.note]
    assert set(without) <= UNKNOWN
    assert all(a.seconds <= b.seconds for a, b in zip(few, many, strict=True))
    growth = total(many, on()).seconds / total(few, on()).seconds
    assert 8 < growth < (30 if name == "dedup" else 110)  # leaves that grow with the images: quadratic
    assert not Path("/none").exists()


def test_measured_thresholds_cost_little_beside_the_search() -> None:
    given = Assumptions(images=10**8)
    auto = plan_scale(load_config("dedup", [*SOURCES, "workdir=/none/w", "copies.threshold=auto"]), given, on())
    assert not [e.stage for e in auto if e.note == "not estimated"]
    seconds = {e.table: e.seconds for e in auto}
    assert seconds["internal/planted/copy"] < 600
    assert {f"internal/{name}" for name in ("space/copy", "space/embeddings", "thresholds/copy")} <= seconds.keys()


def test_rows_are_those_of_a_real_run(tmp_path: Path) -> None:
    make_pool(tmp_path / "samples", num_images=60, seed=1)
    sources = [f"sources.{role}={tmp_path / 'samples' / role}" for role in ("pool", "curated", "heldout")]
    # The laws know of no borders: of so few images, a quarter of which stand before a plain ground, they are many.
    config = load_config("dedup", [*sources, f"workdir={tmp_path / 'run'}", "copies.borders=false"])
    run_config(config, Flags())
    store = Store(str(tmp_path / "run"))
    parts = Parts.of(store.table("catalog"))
    pool, curated, heldout = (parts.num_images([role]) for role in ROLES)
    kept = store.table("duplicates").complete_manifest().figures["kept"]
    given = Assumptions(images=pool, curated=curated, heldout=heldout, kept=kept / pool)
    for estimate in plan_scale(config, given, on("cpu", gpus=0)):
        name = estimate.table.split(" + ")[0]
        if name in ("catalog", "images", "internal/centroids/copy", "selection", "shards/data"):
            rejected = 0.1 * given.images  # the laws know of no rejects
            assert estimate.rows == pytest.approx(store.table(name).num_rows(), abs=rejected), name


def test_more_machines_take_less_time_until_one_process_binds() -> None:
    config = load_config("lvd142m", [*SOURCES, "retrieval.clusters.device=cuda", "workdir=/none/w"])
    given = Assumptions(images=10**9, curated=10**7)
    hours = [total(plan_scale(config, given, on(gpus=gpus)), on(gpus=gpus)).seconds for gpus in (8, 64, 4096)]
    assert hours[0] > hours[1] > hours[2]
    alone = [e for e in plan_scale(config, given, on(gpus=4096)) if e.bound == "one process"]
    assert sum(e.seconds for e in alone) > 0.3 * hours[2]


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_load_and_their_rates_are_plausible(name: str) -> None:
    hardware = load_hardware(name)
    assert hardware.name == name
    assert 1e10 < hardware.core.forward < hardware.core.products < 2e11
    assert hardware.gpu is None or 1e13 < hardware.gpu.products < 1e15


def test_gpus_of_a_machine_without_any_are_an_error() -> None:
    with pytest.raises(ConfigError, match="--gpus 8: cpu has none"):
        on("cpu", gpus=8)
    with pytest.raises(ConfigError, match="no such config"):
        load_hardware("abacus")


def test_table_ends_with_the_sum_in_people_s_units() -> None:
    config = load_config("dedup", [*SOURCES, "workdir=/none/w"])
    rows = cells(plan_scale(config, Assumptions(images=10**6), on()), on())
    assert rows[-1][0] == "all"
    assert "GPU hours" in rows[-1][-1]
    assert [duration(s) for s in (3, 90, 600, 9000, 3e5)] == ["3.0 s", "90 s", "10 min", "2.5 h", "3.5 d"]
    assert [size(b) for b in (0, 5e3, 2e6, 3e9, 4e12, 5e15)] == ["", "5 kB", "2.0 MB", "3.0 GB", "4.0 TB", "5.0 PB"]


def test_requests_are_told_and_priced_where_the_hardware_says_so() -> None:
    config, free = load_config("dedup", [*SOURCES, "workdir=/none/w"]), load_hardware("cpu")
    dear = Machines(free.model_copy(update={"request_price": free.request_price + 10}), 64, 0)
    found = plan_scale(config, Assumptions(images=10**7), dear)
    whole, without = total(found, dear), total(found, Machines(free, 64, 0))
    assert whole.requests == pytest.approx(sum(e.requests for e in found))
    assert whole.requests > 10**7  # each image is a file
    assert (whole.price or 0) - (without.price or 0) == pytest.approx(10 * whole.requests / 1e6)
    archives = plan_scale(config, Assumptions(images=10**7, file_images=10_000), dear)
    assert total(archives, dear).requests < 0.2 * whole.requests


def test_what_one_process_does_is_told_with_the_step_and_in_all() -> None:
    config = load_config("dedup", [*SOURCES, "workdir=/none/w"])
    found = plan_scale(config, Assumptions(images=10**8), on("cpu", gpus=0))
    rows = {row[0]: row[-1] for row in cells(found, on("cpu", gpus=0))}
    assert "one process: " in rows["duplicates"]
    assert "one process" not in rows["internal/neighbors/copy"]
    assert f"one process: {duration(sum(e.alone for e in found))}" in rows["all"]


def test_what_each_process_reads_is_read_by_every_core() -> None:
    config, given = load_config("lvd142m", [*SOURCES, "workdir=/none/w"]), Assumptions(images=10**8, curated=10**6)
    (few, many) = (plan_scale(config, given, on("cpu", cores=cores, gpus=0)) for cores in (1, 101))
    more = {a.table: b.read - a.read for a, b in zip(few, many, strict=True)}
    centroids = next(e.stored for e in few if e.table == "internal/centroids/clusters")
    assert more["assignments"] == pytest.approx(100 * centroids, rel=0.05)
    assert more["duplicates"] == 0


def test_demand_of_a_pass_grows_as_its_fastest_stage() -> None:
    demand = Demand.sum([Demand(read=1, requests=2, tasks=3), Demand(read=10, n_log_n=True, tasks=5)])
    assert (demand.read, demand.requests, demand.tasks, demand.n_log_n) == (11, 2, 5, True)


def test_demand_of_phases_adds_tasks_and_takes_the_largest_memory() -> None:
    demand = Demand.phases([Demand(read=1, tasks=3, memory=7), Demand(read=10, tasks=5, memory=2)])
    assert (demand.read, demand.tasks, demand.memory) == (11, 8, 7)
