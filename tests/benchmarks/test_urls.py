"""The measurement of tables of URLs counts what the server saw."""

from typing import Any

import pytest

from benchmarks import urls
from benchmarks.figures import Measured
from benchmarks.urls import bench_urls


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is not asserted: no process for each call."""
    monkeypatch.setattr(urls, "measured", lambda function, *args: Measured(function(*args), 1.0, 1.0, 1 << 20))


def test_each_picture_is_asked_for_once_and_comes_whole() -> None:
    figures = {figure.name: figure for figure in bench_urls(20, kilobytes=10, milliseconds=1, width=4)}
    assert figures["requests a picture"].value == 1
    assert len(figures) == 4


def test_picture_that_is_asked_for_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    read = urls._read

    def read_twice(*args: Any) -> int:
        return max(read(*args), read(*args))

    monkeypatch.setattr(urls, "_read", read_twice)
    with pytest.raises(RuntimeError, match="a picture was asked for twice, or did not come"):
        bench_urls(2, kilobytes=1, milliseconds=0, width=1)
