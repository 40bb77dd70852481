"""What a recipe or a light command needs of the trainer loads no network library."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "timm", "open_clip", "torchvision")
RUN = """
import sys
import {module}
loaded = [name for name in {heavy} if name in sys.modules]
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    "module",
    [
        "curate.feed.settings",
        "curate.trainer.automatic",
        "curate.trainer.config",
        "curate.trainer.effective",
        "curate.trainer.initial",
        "curate.trainer.objectives",
    ],
)
def test_settings_of_a_training_import_without_torch(module):
    command = [sys.executable, "-c", RUN.format(module=module, heavy=HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_settings_of_a_training_are_checked_without_torch():
    script = RUN.format(module="curate.trainer.initial", heavy=HEAVY).replace(
        "loaded =",
        "from curate.trainer.config import TrainConfig\n"
        "config = TrainConfig(shards='a', output='b', objective={'kind': 'sit'}, crops={'num_local': 0})\n"
        "assert curate.trainer.initial.origins(config) == {}\n"
        "loaded =",
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
