"""What reserves a picture's use is told from what only looks like it."""

from typing import Any

import pytest

from curate.sources.network import read_answer
from curate.sources.reservations import MAX_TEXT, reservation_of_columns, reservation_of_headers
from tests.sources.serving import Answer, serving


@pytest.mark.parametrize(
    ("columns", "reserved"),
    [
        ({"X-Robots-Tag": "noindex, noai"}, "column X-Robots-Tag: noindex, noai"),
        ({"x_robots_tag": "otherbot: noimageai"}, "column x_robots_tag: otherbot: noimageai"),
        ({"x_robots_tag": "noindex"}, None),
        ({"tdm_reservation": 1}, "column tdm_reservation: 1"),
        ({"tdm-reservation": "0"}, None),
        ({"no_ai": True}, "column no_ai: True"),
        ({"opt_out": "false"}, None),
        ({"opt_out": None}, None),
        ({"data_mining": "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"}, "column data_mining: http"),
        ({"caption": "noai", "robots in the sea": "noai"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_columns_that_reserve_rights(columns: dict[str, Any] | None, reserved: str | None) -> None:
    found = reservation_of_columns(columns)
    assert found is None if reserved is None else found is not None and found.startswith(reserved)


def test_a_strangers_policy_is_kept_short_and_on_one_line() -> None:
    found = reservation_of_headers(None, ["1"], "https://example.org/\n" + "x" * 1000)
    assert found is not None
    assert "\n" not in found
    assert len(found) <= MAX_TEXT


def test_a_server_that_a_list_names_is_heard_as_well() -> None:
    headers = {"X-Robots-Tag": "noarchive, curate-vision: noai", "TDM-Reservation": "1"}
    with serving({"/a": Answer(b"x", headers=headers), "/b": b"y"}) as served:
        assert read_answer(f"{served.url}/a", 9, seconds=9).reserved == "X-Robots-Tag: noai; TDM-Reservation: 1"
        assert read_answer(f"{served.url}/b", 9, seconds=9) == (b"y", None)
