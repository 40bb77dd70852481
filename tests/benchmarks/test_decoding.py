"""What decoding in other processes costs: both ways over the same files, and the memory of all processes."""

from functools import partial
from itertools import islice

import pytest

from benchmarks import decoding
from benchmarks.decoding import bench_memory, bench_speed


def test_both_ways_are_measured_over_the_same_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "KINDS", {"WEBP": (64,)})
    found = list(bench_speed(num_images=4, repeats=1))
    assert [figure.name for figure in found] == ["inspect, WEBP 64", "inspect + copy embedding, WEBP 64"]
    assert all(figure.value > 0 and figure.peer_value for figure in found)
    assert all(figure.cpu_seconds for figure in found)  # those of the processes too


def test_peaks_are_those_of_the_processes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "WIDTH", 700)
    monkeypatch.setattr(decoding, "SAMPLED_EVERY", 0.001)
    monkeypatch.setattr(decoding, "large_pictures", partial(islice, decoding.large_pictures(), 3))
    found = {figure.name.removeprefix("two at once: "): figure for figure in bench_memory()}
    assert list(found) == ["JPEG", "JPEG, progressive", "JPEG, progressive 4:4:4"]
    assert all(figure.peak_bytes for figure in found.values())
    assert all("accepted" in figure.note for figure in found.values())
