"""JSON files with the digest of their own text."""

import json

import pytest

from curate.sealed_json import dump_sealed, load_sealed

VALUES = {"rows": 3, "name": "ü", "parts": [{"number": 0, "open": 0}], "seconds": 1.25, "none": None}


def test_values_come_back_and_others_read_plain_json() -> None:
    for values in (VALUES, {}):
        data = dump_sealed(values)
        assert load_sealed(data) == values
        found = json.loads(data)
        assert {key: found[key] for key in values} == values
        assert data == dump_sealed(values)


def test_every_flipped_bit_is_found() -> None:
    data = dump_sealed(VALUES)
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            with pytest.raises(ValueError, match="."):
                load_sealed(bytes(damaged))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"\x00" * 40, b"[" * 100_000, dump_sealed(VALUES)[:-30]])
def test_garbage_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        load_sealed(data)


def test_files_of_earlier_versions_are_read_unchecked() -> None:
    assert load_sealed(b'{"a": 1}') == {"a": 1}
    assert load_sealed(b"[1]") == [1]
