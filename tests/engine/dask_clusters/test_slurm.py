"""What is made of Slurm's answers; tests/cluster has a real one."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from curate.engine.dask_clusters import slurm
from curate.engine.dask_clusters.slurm import WorkerJobs
from curate.errors import ClusterError, ConfigError


class Loop:
    def add_callback(self, call: Callable[..., None], *arguments: object) -> None:
        call(*arguments)


def jobs_of(*numbers: str, joined: tuple[str, ...] = ()) -> WorkerJobs:
    """Jobs with these numbers, of workers with these names; those named in `joined` are with the scheduler."""
    cluster = SimpleNamespace(
        workers={name: SimpleNamespace(job_id=name) for name in numbers},
        worker_spec=dict.fromkeys(numbers),
        loop=Loop(),
        scheduler=SimpleNamespace(workers={name: SimpleNamespace(name=name) for name in joined}),
    )
    return WorkerJobs(cluster, len(numbers), list(numbers), [])


def answers(folder: Path, monkeypatch: pytest.MonkeyPatch, **commands: str) -> None:
    """Commands of Slurm that print these texts."""
    folder.mkdir(exist_ok=True)
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "LOOK_S", 0.0)


def test_what_squeue_says_of_our_jobs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(
        tmp_path, monkeypatch, squeue="7|PENDING|Resources\n8|PENDING|Resources\n9|RUNNING|None\n999|PENDING|Priority"
    )
    told = jobs_of("7", "8", "9").why_none()
    assert told == "Slurm says of jobs 7, 8, 9: 2 PENDING (Resources), RUNNING"


def test_a_job_that_ended_unheard_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(tmp_path, monkeypatch, squeue="7|CANCELLED|None\n8|PENDING|Priority\n9|COMPLETED|None", scontrol="")
    jobs = jobs_of("7", "8", "9", joined=("9",))  # a worker that is there has a job, whatever is said
    jobs.look()
    assert set(jobs.cluster.worker_spec) == {"8", "9"}


def test_jobs_that_fail_one_after_another_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "slurm-3.out"
    log.write_text("loading\nModuleNotFoundError: No module named 'distributed'\n\n")
    shown = f"JobId=3 JobState=FAILED ExitCode=1:0 StdErr={log}"
    answers(tmp_path / "bin", monkeypatch, squeue="1|FAILED|x\n2|FAILED|x\n3|FAILED|NonZeroExitCode", scontrol=shown)
    jobs = jobs_of("1", "2")
    jobs.look()
    jobs.cluster.workers["3"] = SimpleNamespace(job_id="3")
    jobs.submitted.append("3")
    with pytest.raises(
        ClusterError, match=r"3 Slurm jobs .* job 3: FAILED, exit code 1:0; .*No module named 'distribu"
    ):
        jobs.look()


def test_jobs_that_are_taken_away_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(tmp_path, monkeypatch, squeue="\n".join(f"{n}|{state}|x" for n, state in enumerate(slurm.UNLUCKY)))
    jobs = jobs_of(*map(str, range(len(slurm.UNLUCKY))))
    jobs.look()
    assert not jobs.cluster.worker_spec


def test_what_sbatch_refuses_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_of()
    said = "Exit code: 1\nCommand:\nsbatch /tmp/x.sh\nstderr:\nsbatch: error: invalid partition specified: none\n"
    jobs.refused.append(slurm._what_sbatch_said(said))
    with pytest.raises(
        ClusterError, match="sbatch refuses the job of a worker: invalid partition specified: none; see"
    ):
        jobs.look()


def test_slurm_needs_a_machine_that_submits_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.engine.executors import ExecutorConfig

    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="no `sbatch` here"):
        slurm.start_slurm(ExecutorConfig(kind="slurm", memory_limit="1GiB"), None)


def test_dask_jobqueue_does_not_change_what_ctrl_c_does() -> None:
    """Its import sets a handler by which an interrupted run would exit with status 0."""
    before = signal.getsignal(signal.SIGINT)
    with slurm._signals_kept():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) == before
