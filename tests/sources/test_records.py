import csv
import io
import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.errors import SourceError
from curate.sources import records
from curate.sources.records import column_names, read_records


def rows(path: Path) -> list[dict[str, Any] | None]:
    return [record.values for record in read_records(str(path))]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_file_is_read_from_any_record_on_as_from_its_beginning(tmp_path: Path, suffix: str) -> None:
    values = [
        {"url": f"http://a/{n}", "caption": caption}
        for n, caption in enumerate(["plain", 'a "word"', "two\nlines", "größe, kommas\tund Tabs", "", "語" * 50])
    ]
    if suffix == ".jsonl":
        text = "\n\n".join(json.dumps(value) for value in values)
    else:
        written = io.StringIO()
        writer = csv.DictWriter(written, ["url", "caption"], delimiter=records.DELIMITERS[suffix])
        writer.writeheader()
        writer.writerows(values)
        text = written.getvalue()
    path = write(tmp_path / f"a{suffix}", b"\xef\xbb\xbf" + text.encode())
    empty = "" if suffix == ".jsonl" else None
    found = list(read_records(str(path)))
    assert [record.values for record in found] == [v | {"caption": v["caption"] or empty} for v in values]
    assert [record.row for record in found] == list(range(6))
    for record in found:
        assert list(read_records(str(path), row=record.row, offset=record.offset)) == found[record.row :]


def test_quotation_mark_that_is_never_closed_costs_its_line_alone(tmp_path: Path) -> None:
    lines = ["url,caption", "u0,a", 'u1,"open', *(f"u{n},{'x' * 90}" for n in range(2, 3000)), 'u3000,"also open']
    found = rows(write(tmp_path / "a.csv", "\n".join(lines)))
    assert [number for number, values in enumerate(found) if values is None] == [1, 3000]
    assert [values["url"] for values in found if values] == [f"u{n}" for n in range(3000) if n != 1]


def test_line_and_record_without_end_cost_themselves_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 3000)
    long = ['u1,"' + "y" * 5000 + '"', "u2,b", 'u3,"' + '\n","'.join(["z" * 500] * 9) + '"', "u4,c"]
    found = rows(write(tmp_path / "a.csv", "\n".join(["url,caption", "u0,a", *long])))
    assert [values["url"] for values in found if values and values["url"].startswith("u")] == ["u0", "u2", "u4"]
    assert found[1] is None
    lines = [json.dumps({"url": "u0"}), json.dumps({"url": "y" * 5000}), json.dumps({"url": "u2"})]
    assert rows(write(tmp_path / "a.jsonl", "\n".join(lines))) == [{"url": "u0"}, None, {"url": "u2"}]


def test_records_of_json_that_are_none_cost_themselves_alone(tmp_path: Path) -> None:
    bad = ["{", "[1]", "7", "[" * 100_000, b"\xff\xfe".decode("latin-1")]
    path = write(tmp_path / "a.ndjson", "\n".join(['{"url": "u"}', *bad, '{"url": "v"}']))
    assert rows(path) == [{"url": "u"}, *[None] * 5, {"url": "v"}]


def test_fields_too_few_too_many_and_of_one_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "url,, caption ,url\nu0\nu1,x,c,other,more\n\n")
    assert rows(path) == [{"url": "u0", "caption": None}, {"url": "u1", "caption": "c"}]
    assert column_names(str(path)) == ["url", "", "caption", "url"]


def test_file_without_names_and_one_in_utf16_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a\.csv: no line of column names; write one"):
        rows(write(tmp_path / "a.csv", ""))
    for name, text in (("b.csv", "url\nu"), ("b.jsonl", '{"url": "u"}')):
        with pytest.raises(SourceError, match=rf"{name}: written in UTF-16; convert it: iconv"):
            rows(write(tmp_path / name, text.encode("utf-16")))


def test_records_of_object_stores_are_read_from_the_middle() -> None:
    fs = fsspec.filesystem("memory")
    try:
        fs.pipe("/records/a.csv", ("url,caption\n" + "".join(f"u{n},c\n" for n in range(1000))).encode())
        found = list(read_records("memory://records/a.csv"))
        assert [record.values["url"] for record in found if record.values] == [f"u{n}" for n in range(1000)]
        assert list(read_records("memory://records/a.csv", row=700, offset=found[700].offset)) == found[700:]
    finally:
        fs.rm("/records", recursive=True)


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [b'"', b"\n", b"\r", b"\r\n", b",", b"\t", b"{", b"}", b'{"url": "u"}\n', b"url", b"\0", b"\xff", b":"]
        ),
        st.binary(max_size=6),
    ),
    max_size=40,
).map(b"".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=PIECES, suffix=st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_any_bytes_are_records_that_can_be_found_again(tmp_path: Path, body: bytes, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", b"url,caption\n" + body)
    found = list(read_records(str(path)))
    assert [record.row for record in found] == list(range(len(found)))
    assert [record.offset for record in found] == sorted({record.offset for record in found})
    for record in found[:3]:
        assert list(read_records(str(path), row=record.row, offset=record.offset)) == found[record.row :]
