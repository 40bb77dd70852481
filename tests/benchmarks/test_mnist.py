import numpy as np

from benchmarks.mnist import as_figures, bench_mnist, format_table, load_mnist5k, split_test, write_digits
from curate.feed.crops import decode_tensor
from curate.feed.shards import read_index


def test_the_split_is_fixed_and_holds_every_digit():
    _, labels = load_mnist5k()
    test = split_test(5000)
    assert test.sum() == 1000
    np.testing.assert_array_equal(test, split_test(5000))
    assert np.bincount(labels[test]).min() > 50


def test_digits_come_back_from_the_shards(tmp_path):
    images, _ = load_mnist5k()
    write_digits(tmp_path, images[:7])
    index = read_index(str(tmp_path))
    found = [decode_tensor(encoded) for encoded in index.read_images(index.groups[0], range(7))]
    for image, tensor in zip(images, found, strict=False):
        for channel in tensor.numpy():
            np.testing.assert_array_equal(channel, image)


def test_the_bench_compares_with_its_own_initialization(tmp_path):
    few = ["iterations=2", "batch_size=4", "model.depth=1", "objective.prototypes=16", "precision=fp32"]
    few += ["model.patch_size=14", "crops.local_size=14", "workers=0"]
    result = bench_mnist(tmp_path, overrides=few)
    assert result.pixels.value > 0.9
    assert result.gain == result.trained.value - result.initial.value
    assert result.gain_stderr <= result.initial.stderr + result.trained.stderr
    table = format_table(result)
    assert f"{100 * result.trained.value:5.1f} % +- {100 * result.trained.stderr:.1f}" in table
    peer, _, gain, *_ = as_figures(result)
    assert (peer.value, peer.peer_value) == (result.trained.value, result.initial.value)
    assert f"{result.gain_stderr:.4f}" in gain.note
