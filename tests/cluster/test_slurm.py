"""A real Slurm, on this machine alone: runs and trainings in its jobs, jobs that are taken away, the scripts of docs/.

`tests/cluster/slurm_one_node.sh start` brings it up. Nothing here is submitted to any other Slurm.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from curate.engine.executors import InProcess
from curate.samples.pool import make_pool
from tests.cluster import gated
from tests.engine.test_pipeline import NONE, contents
from tests.feed.shards import row, write_shard

ROOT = Path(__file__).parents[2]
START = Path(__file__).parent / "slurm_one_node.sh"
CONF = Path("/etc/slurm/slurm.conf")
PATIENCE_S = 240


def has_own_slurm() -> bool:
    ours = CONF.exists() and CONF.read_text().startswith("# Written by tests/cluster/slurm_one_node.sh")
    return ours and shutil.which("sinfo") is not None and slurm("sinfo", check=False) != ""


def slurm(*command: str, check: bool = True) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0 or not check, ran.stderr
    return ran.stdout.strip()


pytestmark = pytest.mark.skipif(
    not has_own_slurm(), reason=f"no Slurm for tests here: as root, {START.relative_to(ROOT)} start"
)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What jobs inherit: this checkout and its Python, one thread, a folder that goes; no job stays."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "2s")
    monkeypatch.chdir(tmp_path)
    yield
    slurm("scancel", f"--user={os.getuid()}")
    slurm("scontrol", "update", f"NodeName={','.join(nodes())}", "State=RESUME", check=False)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    make_pool(folder, num_images=24, seed=5, curated_each=1, num_heldout=2)
    return folder / "pool"


@pytest.fixture(scope="module")
def alone(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run in one process."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    command = [sys.executable, "-m", "curate", "run", *settings(pool, workdir)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return workdir


def settings(pool: Path, workdir: Path) -> list[str]:
    return ["dedup", f"sources.pool={pool}", f"workdir={workdir}", "executor.threads=1", "rows_per_part=12"]


WORKERS = ["executor.workers=1", "executor.memory_limit=1GiB", "executor.slurm.cpus=1", "executor.slurm.gpus=1"]
SMALL_JOB = ["--cpus-per-task=1", "--mem=1G", "--output=job-%j.out"]


def nodes() -> list[str]:
    return slurm("sinfo", "--noheader", "--Node", "--format=%N").split()


def parts(workdir: Path) -> dict[str, bytes]:
    return {str(f.relative_to(workdir)): f.read_bytes() for f in sorted(workdir.rglob("part-*.parquet"))}


def until(happened: Callable[[], object], *, told: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


def jobs(*, state: str = "all", name: str = "curate-worker") -> list[str]:
    return slurm("squeue", "--noheader", f"--states={state}", f"--name={name}", "--format=%i").split()


def submit(script: str, *options: str, arguments: list[str]) -> str:
    """Submit one of the scripts of docs/ as it stands; returns the number of its job."""
    return slurm("sbatch", "--parsable", *SMALL_JOB, *options, str(ROOT / "docs/slurm" / script), *arguments)


def state(job: str) -> str:
    return slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")


def output(job: str) -> str:
    path = Path(f"job-{job}.out")
    return path.read_text(errors="replace") if path.exists() else f"no output; {state(job)}"


def preempt(job: str, *, waits: list[Path]) -> None:
    """Tell a job to go, as Slurm does a while before its time is over, once it is at work."""
    until(lambda: all(path.exists() for path in waits), told=lambda: output(job))
    slurm("scancel", "--batch", "--signal=TERM", job)


def let_start_again(job: str) -> None:
    """Let a requeued job start in seconds, where Slurm waits two minutes; at once its credential would be refused."""
    until(lambda: state(job) == "PENDING", told=lambda: output(job))
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now+3")


def until_completed(job: str) -> None:
    until(lambda: state(job) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), told=lambda: output(job))
    assert state(job) == "COMPLETED", output(job)


# -- runs ----------------------------------------------------------------------------------------------------


def test_run_on_slurm_workers_makes_equal_tables_and_leaves_no_job(pool: Path, alone: Path, tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "curate", "run", *settings(pool, tmp_path / "run"), "executor.kind=slurm", *WORKERS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "distributed" not in told.stderr
    assert "tcp://" not in told.stderr
    assert parts(tmp_path / "run") == parts(alone)
    assert jobs()
    until(lambda: not jobs(state="PENDING,RUNNING"))


def test_a_job_cancelled_requeued_or_killed_and_a_node_drained_cost_no_row(tmp_path: Path) -> None:
    gate, workdir = tmp_path / "gate", tmp_path / "run"
    gate.write_text("1")
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.gated", str(workdir), str(gate)], stderr=subprocess.PIPE, text=True
    )
    made, places = 1, set()

    def worker() -> str:
        """The job at work, once all parts are made that may be."""
        until(lambda: len(list(workdir.glob("added/part-*.parquet"))) >= made, told=lambda: slurm("squeue"))
        (job,) = jobs(state="RUNNING")
        places.add(slurm("squeue", "--noheader", f"--jobs={job}", "--format=%N"))
        return job

    try:
        for take_away in (
            lambda job: slurm("scancel", job),
            lambda job: slurm("scontrol", "requeue", job),
            lambda job: slurm("scancel", "--full", "--signal=KILL", job),
            lambda job: (
                [slurm("scontrol", "update", f"NodeName={place}", "State=DRAIN", "Reason=test") for place in places]
                and slurm("scancel", job)
            ),
        ):
            take_away(worker())
            made += 2
            gate.write_text(str(made))
        worker()
        gate.write_text(str(gated.PARTS))
        _, told = driver.communicate(timeout=PATIENCE_S)
    finally:
        driver.kill()
    assert driver.returncode == 0, told
    assert len(places) == 2  # with its node drained, the last job is on the other one
    assert len(jobs()) >= 4
    gated.build(tmp_path / "alone", gate).run(InProcess(1), NONE)
    assert contents(workdir) == contents(tmp_path / "alone")
    until(lambda: not jobs(state="PENDING,RUNNING"))


def test_driver_in_a_job_is_preempted_and_goes_on(pool: Path, alone: Path, tmp_path: Path) -> None:
    job = submit("run_workers.sh", arguments=[*settings(pool, tmp_path / "run"), *WORKERS])
    preempt(job, waits=[tmp_path / "run/catalog/_table.json"])
    let_start_again(job)
    until_completed(job)
    assert parts(tmp_path / "run") == parts(alone)
    until(lambda: not jobs(state="PENDING,RUNNING"))


def test_run_on_one_node(pool: Path, alone: Path, tmp_path: Path) -> None:
    until_completed(submit("run_one_node.sh", arguments=[*settings(pool, tmp_path / "run"), "executor.workers=1"]))
    assert parts(tmp_path / "run") == parts(alone)


# -- trainings -----------------------------------------------------------------------------------------------


def training(tmp_path: Path, name: str, *, num_ranks: int = 1) -> list[str]:
    """Arguments of a small training that waits for the file NAME.go after some iterations, in every process."""
    write_shard(tmp_path / "shards/part-0.parquet", [row(number) for number in range(16)])
    values = {
        "objective": {"kind": f"{Path(__file__).parent / 'objective.py'}:GatedSettings", "gate": str(tmp_path / "go")},
        "model": {"preset": "tiny", "patch_size": 16, "depth": 1, "num_registers": 0},
        "crops": {"global_size": 32, "local_size": 16, "num_local": 0},
        "optimizer": {"base_lr": 4e-2, "warmup_iterations": 1},
        "batch_size": 4 * num_ranks,
        "iterations": 40,
        "checkpoint_every": 1000,
        "precision": "fp32",
        "device": "cpu",
        "workers": 1,
        "worker_kind": "process",
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    return [str(tmp_path / "config.json"), f"shards={tmp_path / 'shards'}", f"output={tmp_path / name}"]


def weights(run: Path) -> dict[str, Tensor]:
    """The tensors of the last checkpoint, with what the optimizer keeps, and of the exports."""
    files = [*run.glob("*.safetensors"), *run.glob("checkpoints/step-00000040/state/*")]
    return {f"{file.relative_to(run)} {name}": value for file in files for name, value in load_file(file).items()}


@pytest.mark.parametrize(("script", "ranks"), [("train_one_node.sh", 1), ("train_nodes.sh", 2)])
def test_training_is_preempted_started_again_and_ends_bit_for_bit_equal(
    tmp_path: Path, script: str, ranks: int
) -> None:
    """Two ranks are on two nodes, each with a loader process, which gets Slurm's SIGTERM too."""
    go = tmp_path / "go"
    options = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1"] if ranks == 2 else []
    job = submit(script, *options, arguments=training(tmp_path, "stopped", num_ranks=ranks))
    preempt(job, waits=[tmp_path / f"go.waits-{rank}" for rank in range(ranks)])
    until(lambda: f"STEP {job}.0 ON" in output(job), told=lambda: output(job))  # the step was signalled
    go.touch()
    whole = submit(script, *options, arguments=training(tmp_path, "whole", num_ranks=ranks))
    let_start_again(job)
    until_completed(job)
    assert "the checkpoint is written" in output(job)
    until_completed(whole)
    assert "the checkpoint is written" not in output(whole)
    log = [json.loads(line) for line in (tmp_path / "stopped/log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 40
    stopped, undisturbed = weights(tmp_path / "stopped"), weights(tmp_path / "whole")
    assert any(name.startswith("checkpoints/") for name in stopped)
    assert stopped.keys() == undisturbed.keys()
    assert [name for name, value in stopped.items() if not torch.equal(value, undisturbed[name])] == []


def test_cancelled_training_stays_cancelled(tmp_path: Path) -> None:
    job = submit("train_one_node.sh", arguments=training(tmp_path, "run"))
    until((tmp_path / "go.waits-0").exists, told=lambda: output(job))
    slurm("scancel", job)
    (tmp_path / "go").touch()
    until(lambda: state(job) != "RUNNING" and state(job) != "COMPLETING")
    assert state(job) == "CANCELLED"
