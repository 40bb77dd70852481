"""The benchmark of the architectures sets DINOv3's beside DINOv2's."""

from benchmarks.architectures import bench_architectures


def test_both_architectures_are_measured() -> None:
    (figure,) = bench_architectures(size="tiny", depth=1, images=1, repeats=1)
    assert figure.value > 0
    assert figure.peer_value
    assert figure.ratio == figure.peer_value / figure.value  # fewer seconds are better
