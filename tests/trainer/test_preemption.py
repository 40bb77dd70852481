"""Trainings that torchrun has started, told to go as schedulers do it: by a signal to torchrun alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from curate.trainer.checkpoint import check_files, list_checkpoints
from curate.trainer.journal import read_log
from tests.feed.shards import write_shards
from tests.trainer.test_train import TINY


def start_torchrun(config: Path) -> "subprocess.Popen[str]":
    """torchrun with two processes of `curate train`."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "curate", "train", str(config)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_sigterm_to_torchrun_ends_its_processes_with_a_whole_checkpoint(tmp_path):
    shards, iterations = str(write_shards(tmp_path / "shards")), 1000
    run, values = tmp_path / "run", {"iterations": iterations, "checkpoint_every": 1000, "workers": 0}
    (tmp_path / "config.yaml").write_text(json.dumps({**TINY, **values, "shards": shards, "output": str(run)}))
    launched = start_torchrun(tmp_path / "config.yaml")
    while launched.poll() is None and len(read_log(run / "log.jsonl")) < 2:
        time.sleep(0.02)
    launched.send_signal(signal.SIGTERM)
    told = launched.communicate(timeout=60)[1]
    ((step, path),) = list_checkpoints(run / "checkpoints")
    check_files(path)
    assert 2 <= step == read_log(run / "log.jsonl")[-1]["step"] < iterations
    assert told.count(f"stopped by SIGTERM after iteration {step} of {iterations}; the checkpoint is written") == 2
    assert launched.returncode == 1, "torchrun's own, whatever that of its processes"
