import multiprocessing
import os
import signal

import pytest
import torch

from curate.errors import ConfigError
from curate.feed.batches import check_workers, collate
from curate.feed.crops import Crops
from curate.feed.samples import CroppedSamples
from curate.feed.shards import read_index
from curate.trainer.config import TrainConfig
from tests.feed.loading import CROPS, batches_of, feed, taken
from tests.feed.shards import write_shards


@pytest.mark.parametrize(("size", "accumulate", "workers"), [(1, 1, 2), (2, 1, 0), (4, 2, 1), (2, 4, 3), (8, 1, 0)])
def test_ranks_together_give_the_batch_of_one_process_in_order(tmp_path, size, accumulate, workers):
    samples, config = feed(write_shards(tmp_path), accumulate=accumulate, workers=workers)
    start = 16  # within the first epoch of 20 samples; three iterations lead into the third
    whole = taken(samples, config.model_copy(update={"workers": 0, "accumulate": 1}), 3, start=start)
    ranks = [taken(samples, config, 3 * accumulate, start=start, rank=r, size=size) for r in range(size)]
    for kind in range(2):
        micro = [part[kind].unflatten(0, (3 * accumulate, -1)) for part in ranks]
        assert torch.equal(torch.cat(micro, dim=1).flatten(0, 1), whole[kind])


def test_worker_processes_give_the_slice_of_their_rank(tmp_path):
    samples, config = feed(write_shards(tmp_path), accumulate=2, workers=1, worker_kind="process")
    large, small = taken(samples, config, 2, start=16, rank=1, size=2)
    numbers = [18, 19, 22, 23]
    assert torch.equal(large, torch.stack([samples[i].global_crops for i in numbers]))
    assert torch.equal(small, torch.stack([samples[i].local_crops for i in numbers]))


def test_signals_for_the_whole_training_leave_its_worker_processes_alone(tmp_path):
    """Slurm's SIGTERM and a terminal's Ctrl-C reach them too; they end with the one that asks them for batches."""
    samples, config = feed(write_shards(tmp_path), workers=1, worker_kind="process")
    batches = batches_of(samples, config, start=0)
    first = next(batches)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    later = [next(batches) for _ in range(4)][-1]
    assert worker.is_alive()
    worker.terminate()  # as at the end of the training, should it hang
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    batches.close()
    plain = batches_of(samples, config.model_copy(update={"workers": 0}), start=0)
    expected = [next(plain) for _ in range(5)]
    assert torch.equal(first.global_crops, expected[0].global_crops)
    assert torch.equal(later.global_crops, expected[4].global_crops)


def test_worker_processes_are_refused_where_none_may_be_started(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # as in a Dask worker
    with pytest.raises(ConfigError, match="worker_kind=process: .*; set worker_kind=thread or executor.kind=inprocess"):
        check_workers(1, "process")
    check_workers(0, "process")
    check_workers(1, "thread")


def test_batches_hold_views_before_images(tmp_path):
    samples = CroppedSamples(read_index(str(write_shards(tmp_path))), CROPS, seed=0, window=8)
    config = TrainConfig(shards=str(tmp_path), output="", batch_size=3, workers=0)
    batch = next(batches_of(samples, config, start=0))
    assert batch.global_crops.shape == (2 * 3, 3, 16, 16)
    assert batch.local_crops.shape == (2 * 3, 3, 8, 8)
    for view in range(2):
        for image in range(3):
            assert torch.equal(batch.global_crops[view * 3 + image], samples[image].global_crops[view])


def test_crops_for_the_gram_teacher_are_stacked_as_the_global_ones_are():
    def sample(number, gram):
        crops = torch.full((2, 3, 4, 4), number, dtype=torch.uint8)
        return Crops(crops, crops[:0], crops.repeat(1, 1, 2, 2) if gram else None)

    stacked = collate(sample(number, True) for number in range(3))
    assert stacked.gram[:, 0, 0, 0].tolist() == stacked.global_crops[:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert collate(sample(number, False) for number in range(3)).gram is None
