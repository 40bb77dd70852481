"""Lists of hashes: every form in which they are exchanged gives the same hashes, and nothing of them is told."""

import csv
import gzip
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from curate.errors import ConfigError, SourceError
from curate.sources import hash_formats
from curate.sources.hash_lists import HashList

TEXTS = [f"picture {number}".encode() for number in range(40)]
MD5 = [hashlib.md5(text).hexdigest() for text in TEXTS]
SHA1 = [hashlib.sha1(text).hexdigest() for text in TEXTS]
SHA256 = [hashlib.sha256(text).hexdigest() for text in TEXTS]
PDQ = [hashlib.sha256(b"pdq" + text).hexdigest() for text in TEXTS]


def as_table(separator: str, head: list[str], *columns: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([head, *zip(*columns, strict=True)])
    return text.getvalue()


def vics(version: str) -> str:
    media = [
        {
            "MediaID": number,
            "Category": 1,
            "MD5": md5.upper(),
            "SHA1": SHA1[number],
            "AlternativeHashes": [
                {"HashName": "PhotoDNA", "HashValue": "AAAA"},
                {"HashName": "PDQ", "HashValue": PDQ[number]},
            ],
            "MediaFiles": [{"FileName": 'a "quoted} {name', "Comment": None}],
        }
        for number, md5 in enumerate(MD5)
    ]
    value = media if version == "2.0" else [{"CaseID": "1", "Media": media}]
    return json.dumps({"@odata.context": f"http://github.com/VICSDATAMODEL/{version}/$metadata#Media", "value": value})


NAMED = "\n".join(f"{one}  *a b.jpg" for one in SHA1)
KINDS = "\n".join([*(f"pdq:{one}" for one in PDQ), *(f"SHA-256:{one}" for one in SHA256)])
NSRL = as_table(",", ["SHA-1", "MD5", "CRC32", "FileName"], SHA1, MD5, ["0A0A0A0A"] * 40, ["x, y\nz"] * 40)
DESCRIPTORS = as_table(",", ["id", "raw_indicator", "type"], MD5, PDQ, ["HASH_PDQ"] * 40)
STOPNCII = as_table(";", ["hashValue", "signalType"], PDQ, ["ImagePDQ"] * 40)
FORMS = {
    "one a line": ("\n".join(MD5), "auto", {"md5": MD5}),
    "comments, blanks, names behind": (f"# head\n\n{NAMED}", "auto", {"sha1": SHA1}),
    "lines of PDQ's tools": ("\n".join(f"{one},100,a.jpg" for one in PDQ), "pdq", {"pdq": PDQ}),
    "kinds before": (KINDS, "auto", {"pdq": PDQ, "sha256": SHA256}),
    "ends of Windows, capitals": ("\r\n".join(one.upper() for one in MD5), "auto", {"md5": MD5}),
    "NSRL": (NSRL, "auto", {"md5": MD5, "sha1": SHA1}),
    "TSV": (as_table("\t", ["id", "sha256_hash"], MD5, SHA256), "auto", {"sha256": SHA256}),
    "ThreatExchange": (DESCRIPTORS, "auto", {"pdq": PDQ}),
    "python-threatexchange": (as_table(",", ["signal_type", "signal_str"], ["pdq"] * 40, PDQ), "auto", {"pdq": PDQ}),
    "StopNCII": (STOPNCII, "auto", {"pdq": PDQ}),
    "a kind for a table": (as_table(",", ["hash", "quality"], PDQ, ["90"] * 40), "pdq", {"pdq": PDQ}),
    "JSON lines": ("\n".join(json.dumps({"type": "HASH_MD5", "indicator": one}) for one in MD5), "auto", {"md5": MD5}),
    "JSON array": (json.dumps(SHA1, indent=1), "auto", {"sha1": SHA1}),
    "keys with arrays": (json.dumps({"md5": MD5, "note": ["x"]}), "auto", {"md5": MD5}),
    "VICS 2.0": (vics("2.0"), "auto", {"md5": MD5, "sha1": SHA1, "pdq": PDQ}),
    "VICS 1.3": (vics("1.3"), "auto", {"md5": MD5, "sha1": SHA1, "pdq": PDQ}),
}


@pytest.mark.parametrize("small_blocks", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_gives_its_hashes(
    tmp_path: Path, form: str, packed: bool, small_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, kind, expected = FORMS[form]
    if small_blocks:  # as a file of gigabytes: what holds the list is not parsed as a whole
        monkeypatch.setattr(hash_formats, "BLOCK_CHARS", 100)
        monkeypatch.setattr(hash_formats, "MAX_OBJECT_CHARS", 600)
    path = tmp_path / "list"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = HashList(name="x", path=str(path), kind=kind).read()
    assert {k: sorted(row.tobytes().hex() for row in rows) for k, rows in found.hashes.items()} == {
        k: sorted(rows) for k, rows in expected.items()
    }
    assert found.unreadable == 0


def test_hashes_are_told_once_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("\n".join([*MD5, *MD5[::-1]]))
    (rows,) = HashList(name="x", path=str(tmp_path / "list")).read().hashes.values()
    assert len(rows) == len(MD5)
    assert [row.tobytes() for row in rows] == sorted(row.tobytes() for row in rows)


def test_kinds_that_are_not_compared_are_counted(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(vics("2.0"))
    assert HashList(name="x", path=str(tmp_path / "list")).read().others == {"photodna": 40}


def test_few_unreadable_lines_are_counted_and_many_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("\n".join([*MD5[:20], "secret words", *MD5[20:], MD5[0][:-1]]))
    found = HashList(name="x", path=str(path), max_unreadable=0.05).read()
    assert (found.unreadable, found.first) == (2, (21, 42))
    with pytest.raises(SourceError, match=r"list 'x': 2 of 42 entries are no hashes, on line 21, 42; needed") as error:
        HashList(name="x", path=str(path)).read()
    assert "secret" not in str(error.value)
    assert not any(one in str(error.value) for one in MD5)


def test_digits_of_two_meanings_need_a_kind(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("\n".join(SHA256))
    with pytest.raises(ConfigError, match="kind=auto: list 'x': line 1: 64 digits may be a SHA-256 or") as error:
        HashList(name="x", path=str(tmp_path / "list")).read()
    assert SHA256[0] not in str(error.value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (gzip.compress("\n".join(MD5).encode())[:-20], "ended before"),
        (vics("2.0").encode()[:-1], "it was cut off"),
        (json.dumps(MD5).encode()[:-1], "it was cut off"),
        (b"PK\x03\x04....", "a zip archive; unpack it"),
        (
            b"\n".join([b"photodna:AAAA"] * 9),
            r"no hash that is compared \(md5, sha1, sha256, pdq\), but 9 photodna",
        ),
        (b"", "holds no hash that is compared .* but nothing"),
        (b"a" * 70_000, "line 1 is longer"),
        (b"[" * 5000 + b'{"md5":"x"}', "cut off"),
        (b'{"a":' * 100_000, "cannot be read"),
    ],
)
def test_what_is_no_list_is_an_error(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "list").write_bytes(data)
    with pytest.raises(SourceError, match=why):
        HashList(name="x", path=str(tmp_path / "list")).read()


def test_an_entry_too_large_to_parse_is_no_hash_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_formats, "BLOCK_CHARS", 100)
    monkeypatch.setattr(hash_formats, "MAX_OBJECT_CHARS", 600)
    (tmp_path / "list").write_text(json.dumps({"value": [{"MD5": MD5[0], "files": [{"name": "a"}] * 200}]}))
    with pytest.raises(SourceError, match="line 1: an entry of more than 600 characters"):
        HashList(name="x", path=str(tmp_path / "list")).read()


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; give the list 'x', or take it out"):
        HashList(name="x", path=str(tmp_path / "none")).read()
    with pytest.raises(ValueError, match="a URL; copy the list to this machine"):
        HashList(name="x", path="https://host/list.txt")


def test_large_lists_take_the_memory_of_their_hashes(tmp_path: Path) -> None:
    """No object stays for each line."""
    import tracemalloc

    hashes = np.random.default_rng(0).integers(0, 256, (30_000, 32), np.uint8)
    (tmp_path / "list").write_text("\n".join(row.tobytes().hex() for row in hashes))
    tracemalloc.start()
    found = HashList(name="x", path=str(tmp_path / "list"), kind="pdq").read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.counts == {"pdq": 30_000}
    assert peak < 5 * hashes.nbytes + (4 << 20)
