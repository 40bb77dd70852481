"""The benchmark of embedding sets each way beside its peer."""

from benchmarks.embed import bench_embed


def test_every_way_stands_beside_its_peer() -> None:
    found = bench_embed(model="lite0", num_images=8, side=200, repeats=1)
    assert [figure.name for figure in found][:2] == ["embed what was inspected"] * 2
    assert all(figure.value > 0 and figure.peer_value and figure.peer for figure in found)
    forward = found[-1]
    assert forward.unit == "flop/s"
    assert forward.peer_value is not None
    assert forward.value < 2 * forward.peer_value  # no forward pass multiplies faster than products do
    assert [figure.name for figure in found if "decode" in figure.name] == [
        "decode and resize, 200 px",
        "decode and resize, 1024 px",
    ]
