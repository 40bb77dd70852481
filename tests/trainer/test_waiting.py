"""An iteration that is not logged never waits for the device: nothing of it is read back."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from curate.config import parse
from curate.feed.crops import Crops
from curate.feed.labels import Labels
from curate.trainer.config import TrainConfig
from curate.trainer.effective import resolve_auto
from curate.trainer.iteration import Trainer
from curate.trainer.parallel import World

READS = ("item", "tolist", "cpu", "__bool__", "__float__", "__int__", "__index__", "nonzero")
TINY = {
    "model": {"preset": "tiny", "patch_size": 8, "depth": 2, "num_registers": 1, "drop_path": 0.3},
    "crops": {"global_size": 32, "local_size": 16, "num_local": 2},
    "objective": {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16},
    "optimizer": {"base_lr": 4e-3, "warmup_iterations": 1},
    "batch_size": 4,
    "iterations": 100,
    "log_every": 2,
    "precision": "fp32",
}


class Reads(TorchDispatchMode):
    """Counts what makes a program wait until a GPU has computed a value, by the names of the operators."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "_local_scalar_dense" in str(func):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def trainer_of(device, **changes):
    values = {**TINY, "device": device, "shards": "a", "output": "/nonexistent", **changes}
    config = parse(TrainConfig, values, where="test")
    columns = [guide.column for guide in config.objective.guides]
    labels = {column: Labels(column, ("a", "b"), np.array([0, 1, -1, 1], np.int16)) for column in columns}
    return Trainer(config, resolve_auto(config, num_images=100, num_samples=100), World(), labels)


def batches(trainer):
    sides = trainer.timeline.sizes.at(0)
    rng = np.random.default_rng(0)
    count = trainer.config.crops.num_local * 4

    def draw(number, side):
        return torch.from_numpy(rng.integers(0, 256, (number, 3, side, side), dtype=np.uint8))

    gram = None if sides.gram_size is None else draw(8, sides.gram_size)
    while True:
        yield Crops(draw(8, sides.global_size), draw(count, sides.local_size), gram, torch.arange(4))


GRAM = [{"gram": {"teacher": "step 0", "refresh": 1}}]
CASES = {
    "dinov2": {},
    "softmax": {"objective": {**TINY["objective"], "centering": "softmax", "tied_heads": True}},
    "gram": {"objective": {**TINY["objective"], "kind": "dinov3", "koleo_group": 2}, "phases": GRAM},
    "dino": {"objective": {"kind": "dino", **TINY["objective"]}},
    "guides": {"objective": {**TINY["objective"], "guides": [{"column": "c", "adversarial": True}, {"column": "d"}]}},
    "accumulated": {"accumulate": 2, "batch_size": 8},
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_read_back_between_two_rows_of_the_log(monkeypatch, name):
    trainer = trainer_of("cpu", **CASES[name])
    feed = batches(trainer)
    trainer.step(0, feed)
    read = []

    def counted(method):
        plain = getattr(torch.Tensor, method)
        return lambda self, *args: (read.append(method), plain(self, *args))[1]

    for method in READS[: -1 if name != "dino" else None]:
        monkeypatch.setattr(torch.Tensor, method, counted(method))
    with Reads() as reads:
        row = trainer.step(2, feed)
        assert (row, reads.found, read) == ({"step": 3}, [], [])
        trainer.step(3, feed)
        assert read, "a row of the log reads its figures"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_is_not_waited_for_between_two_rows_of_the_log(name):
    trainer = trainer_of("cuda", precision="bf16", **CASES[name])
    feed = (crops.map(torch.Tensor.pin_memory) for crops in batches(trainer))
    for step in (0, 2, 4):
        trainer.step(step, feed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(6, feed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
