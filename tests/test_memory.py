"""Freed memory between what stays goes back to the system."""

import os
import platform
import subprocess
import sys

import pytest

from curate.memory import _malloc_trim, keep_freed_memory, machine_memory, release_holes

HOLES = """
import numpy as np
from curate.memory import release_holes

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

blocks = [np.ones(1 << 16, dtype=np.uint8) for _ in range(4096)]  # 64 KiB each: from the heap
del blocks[::2]
before = resident()
release_holes()
print(before - resident())
"""


@pytest.mark.skipif(_malloc_trim() is None or sys.platform != "linux", reason="the C library has no malloc_trim")
def test_holes_between_kept_blocks_are_given_back():
    # In a process of its own, whose heap no other test has shaped.
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0.9 * 2048 * (1 << 16)


def test_is_harmless_again_and_again():
    for _ in range(3):
        release_holes()


def test_glibc_takes_the_memory_setting() -> None:
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")


def test_the_smallest_limit_around_a_process_is_its_memory(tmp_path):
    """A job in a service in a machine, version 2 of control groups; another limit by version 1."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "proc/self").mkdir(parents=True)
    groups = tmp_path / "proc/self/cgroup"
    assert machine_memory(tmp_path) == pages
    job = tmp_path / "sys/fs/cgroup/slurm/job_7/step_0"
    job.mkdir(parents=True)
    groups.write_text("0::/slurm/job_7/step_0\n")
    (job / "memory.max").write_text("max\n")
    assert machine_memory(tmp_path) == pages
    (job.parent / "memory.max").write_text("123456789\n")
    assert machine_memory(tmp_path) == 123456789
    old = tmp_path / "sys/fs/cgroup/memory/docker"
    old.mkdir(parents=True)
    groups.write_text("0::/slurm/job_7/step_0\n5:cpu,cpuacct:/docker\n4:memory:/docker\n")
    (old / "memory.limit_in_bytes").write_text("98765432\n")
    assert machine_memory(tmp_path) == 98765432
