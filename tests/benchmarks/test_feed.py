"""The benchmark of the feed sets each way beside its peer."""

from benchmarks.feed import bench_feed


def test_every_way_stands_beside_its_peer() -> None:
    size = "500 x 375 px"
    found = bench_feed(num_images=2, repeats=1, epochs=8, sizes=[size], workers=[2])
    assert all(figure.value > 0 and figure.peer_value and figure.peer for figure in found)
    assert [figure.name.replace(f", {size}", "") for figure in found] == [
        "multi-crop",
        "multi-crop",
        "decode",
        "global crop",
        "local crop",
        "color jitter, global",
        "blur, global",
        "whole feed, workers=2",
        "encoded images held at most",
    ]
    assert {figure.peer for figure in found[:2]} == {"torchvision v2 on tensors", "torchvision v2 on PIL images"}
