import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import entropy

from benchmarks.longtail import Tail, class_entropy, make_long_tail, tail_sizes, write_files
from curate.samples.mnist import load_mnist5k

TAIL = Tail(head=40, imbalance=8.0, copies=0.5)


def test_sizes_fall_geometrically_between_their_ends() -> None:
    sizes = tail_sizes(4, head=800, imbalance=8)
    np.testing.assert_array_equal(sizes, [800, 400, 200, 100])
    assert tail_sizes(5, head=3, imbalance=100).min() == 1


def test_classes_and_copies_are_as_many_as_asked_for() -> None:
    images, labels = load_mnist5k()
    pool = make_long_tail(images, labels, TAIL, seed=3)
    original = pool.copy_of == np.arange(len(pool.labels))
    assert sorted(np.bincount(pool.labels[original]), reverse=True) == tail_sizes(10, head=40, imbalance=8).tolist()
    assert (~original).sum() == 20
    assert len(set(pool.labels[~original])) == 1
    assert original[pool.copy_of].all()


def test_a_copy_is_its_original_moved_by_a_pixel() -> None:
    images, labels = load_mnist5k()
    pool = make_long_tail(images, labels, TAIL, seed=4)
    pixels = [np.asarray(Image.open(io.BytesIO(file)).convert("L"), dtype=float) for file in pool.files]
    for row in np.flatnonzero(pool.copy_of != np.arange(len(pool.labels))):
        original = pixels[pool.copy_of[row]]
        moves = [np.roll(original, (y, x), axis=(0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        assert min(np.abs(move - pixels[row]).mean() for move in moves) < 6
        assert pool.labels[row] == pool.labels[pool.copy_of[row]]


def test_the_seed_decides_everything_and_the_head() -> None:
    images, labels = load_mnist5k()
    first, again, other = (make_long_tail(images, labels, TAIL, seed=seed) for seed in (0, 0, 1))
    assert first.files == again.files
    heads = {int(np.bincount(make_long_tail(images, labels, TAIL, seed=seed).labels).argmax()) for seed in range(6)}
    assert len(heads) > 2
    assert first.files != other.files


def test_a_class_too_small_for_the_head_is_an_error() -> None:
    images, labels = load_mnist5k()
    with pytest.raises(ValueError, match=r"class \d has \d+ pictures, 4000 are to be drawn; lower head"):
        make_long_tail(images, labels, Tail(head=4000), seed=0)


def test_files_hold_the_pictures_by_number(tmp_path: Path) -> None:
    images, labels = load_mnist5k()
    pool = make_long_tail(images, labels, TAIL, seed=0)
    write_files(tmp_path, pool)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == pool.files


def test_class_entropy_is_scipys_over_its_maximum() -> None:
    labels = np.array([0, 0, 0, 1, 3])
    assert class_entropy(labels, 4) == pytest.approx(entropy([3, 1, 0, 1], base=4))
    assert class_entropy(np.arange(4), 4) == pytest.approx(1)
