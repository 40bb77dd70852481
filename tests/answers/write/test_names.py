"""Names of files: unique on every file system, harmless, and the source's own where these are both."""

import re
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.answers.write.names import RESERVED, Names

SCHEMA = pa.schema([("image_id", pa.int64()), ("source", pa.string()), ("key", pa.string()), ("format", pa.string())])
STEPS = st.one_of(
    st.sampled_from(
        ["a", "A", "a.", "a ", "..", ".", "con", "NUL.x", "~0-0", "x~0-1", "\ufb01", "fi", "__a", ".a", "a:b"]
    ),
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=30),
)
KEYS = st.builds("/".join, st.lists(STEPS, min_size=1, max_size=5)).map(lambda key: f"{key}.jpg")


def batch(keys: list[str], sources: list[str], formats: list[str | None]) -> pa.RecordBatch:
    ids = [(7 << 32) + number for number in range(len(keys))]
    return pa.RecordBatch.from_arrays([pa.array(column) for column in (ids, sources, keys, formats)], schema=SCHEMA)


def names(keys: list[str], sources: list[str] | None = None, formats: list[str | None] | None = None) -> list[str]:
    rows = batch(keys, sources or ["s"] * len(keys), formats or ["JPEG"] * len(keys))
    return Names([rows.slice(0, len(rows) // 2), rows.slice(len(rows) // 2)]).of(rows)


def folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name.casefold())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(KEYS, st.sampled_from(["s", "S", "t"])), max_size=12, unique=True))
def test_names_are_unique_and_safe_whatever_the_keys(images: list[tuple[str, str]]) -> None:
    found = names([key for key, _ in images], [source for _, source in images])
    stems = [folded(name.removesuffix(".jpg")) for name in found]
    assert len(set(stems)) == len(stems)
    folders = {folded(name.rsplit("/", number)[0]) for name in found for number in range(1, name.count("/") + 1)}
    assert not folders & set(map(folded, found))
    for name in found:
        assert len(name.encode()) < 700
        for step in name.split("/"):
            assert step.isprintable()
            assert step[-1] not in ". "
            assert not step.startswith((".", "__"))
            assert not re.search(r'[<>:"|?*\\]', step)
            assert step.partition(".")[0].lower() not in RESERVED


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["cats/1.jpg", "dogs/1.jpg"], ["cats/1.jpg", "dogs/1.jpg"]),
        (["x/../../up.jpg", "/etc/passwd"], ["x/_/_/up.jpg", "etc/passwd.jpg"]),
        (["Case.jpg", "case.jpeg", "other.jpg"], ["Case~7-0.jpg", "case~7-1.jpg", "other.jpg"]),
        (["a\nb.jpg", "\\xff.jpg"], ["a_b.jpg", "_xff.jpg"]),
        (
            ["one.tar/x/1.jpg", "rows.parquet#3", "no suffix"],
            ["one.tar/x/1.jpg", "rows.parquet#3.jpg", "no suffix.jpg"],
        ),
        (["aux.jpg", ".hidden.jpg", "__x.jpg"], ["_aux.jpg", "_hidden.jpg", "_x.jpg"]),
        (["é" * 99 + "a.jpg", "é" * 99 + "b.jpg"], ["é" * 60 + "~7-0.jpg", "é" * 60 + "~7-1.jpg"]),
        (["/".join(["é" * 50] * 9) + "/a.jpg"], ["a.jpg"]),
        (["a.jpg", "a~7-0.jpg"], ["a.jpg", "a~7-0~7-1.jpg"]),
    ],
)
def test_names_are_those_of_the_source_where_these_are_safe(keys: list[str], expected: list[str]) -> None:
    assert names(keys) == expected


def test_the_suffix_is_that_of_the_format_and_a_source_is_named_beside_others() -> None:
    found = names(["a.jpg", "b.JPEG", "c.pNg", "d.e f"], ["s", "s", "t", "t"], ["PNG", "JPEG", None, None])
    assert found == ["s/a.jpg.png", "s/b.jpg", "t/c.pNg", "t/d.e f"]
