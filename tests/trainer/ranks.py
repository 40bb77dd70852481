"""Trainings on several processes, as torchrun starts them."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

SCRIPT = """
    import json, os, sys, torch
    from curate.config import parse
    from curate.trainer.config import TrainConfig
    from curate.trainer.train import train
    torch.set_num_threads(1)
    for port, values in json.loads(sys.argv[1]):
        os.environ["MASTER_PORT"] = str(port)  # each its own: the store of the last one may still be closing
        train(parse(TrainConfig, values, where="test"))
"""


def start_ranks(configs: Sequence[Mapping[str, Any]], *, size: int) -> list["subprocess.Popen[str]"]:
    """Processes that train by `configs` one after another."""
    work = list(zip(free_ports(len(configs)), configs, strict=True))
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), json.dumps(work)]
    told = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    return [
        subprocess.Popen(
            command, env=os.environ | told | {"RANK": str(i), "LOCAL_RANK": str(i)}, stderr=subprocess.PIPE, text=True
        )
        for i in range(size)
    ]


def train_on_ranks(configs: Sequence[Mapping[str, Any]], *, size: int = 2) -> None:
    """Train, and check that every rank ended well."""
    ranks = start_ranks(configs, size=size)
    try:
        errors = [rank.communicate(timeout=600)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * size, "\n".join(errors)


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
