"""The measurement of tables of URLs counts what the server saw."""

import pytest

from benchmarks.urls import bench_urls


def test_each_picture_is_asked_for_once_and_comes_whole() -> None:
    figures = {figure.name: figure for figure in bench_urls(20, kilobytes=10, milliseconds=1, width=4)}
    assert figures["requests a picture"].value == 1
    assert len(figures) == 4
    assert all(figure.value > 0 for figure in figures.values())


def test_picture_that_does_not_come_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import urls

    monkeypatch.setattr(urls._Count, "__call__", lambda self: 0)
    with pytest.raises(RuntimeError, match="asked for twice, or did not come"):
        bench_urls(2, kilobytes=1, milliseconds=0, width=1)
