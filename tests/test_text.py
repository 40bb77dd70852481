import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.config import apply_overrides, read_yaml
from curate.errors import ConfigError
from curate.samples.truth import TRUTH_COLUMNS, read_truth
from curate.text import (
    MAX_LINE,
    MAX_LINE_BYTES,
    MAX_WORD,
    decode_text,
    indented,
    iterate_lines,
    read_lines,
    read_text,
    visible,
    visible_line,
    visible_text,
)

MARKED = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
MARKS = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff", "utf-32-le": "\ufeff", "utf-32-be": "\ufeff"}


def encoded(text: str, encoding: str) -> bytes:
    """With a byte order mark: Python writes one for the names without a byte order alone."""
    return (MARKS.get(encoding, "") + text).encode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", *MARKED])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_of_any_system_is_the_same_text(encoding: str, end: str, tmp_path: Path) -> None:
    lines = ["größe.jpg", "", " b 🙂 ", "c\u2028d\x0b\x1c\x85e.jpg"]  # only \n and \r end lines
    data = encoded(end.join(lines), encoding)
    assert decode_text(data) == end.join(lines)
    assert [line.decode() for line in iterate_lines(io.BytesIO(data))] == lines
    (tmp_path / "list").write_bytes(data)
    assert list(read_lines(tmp_path / "list")) == lines
    assert read_text(tmp_path / "list") == "\n".join(lines)


def test_without_a_mark_lines_are_bytes(tmp_path: Path) -> None:
    data = b"\xff.jpg\ncarriage\rreturn.jpg\nlast \n"
    assert list(iterate_lines(io.BytesIO(data))) == [b"\xff.jpg", b"carriage\rreturn.jpg", b"last "]
    (tmp_path / "list").write_bytes(data)
    assert next(read_lines(tmp_path / "list")) == r"\xff.jpg", "as the key stands in tables"


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xff\xfe\0\0"])
def test_empty_file_has_no_lines(data: bytes) -> None:
    assert list(iterate_lines(io.BytesIO(data))) == []
    assert decode_text(data) == ""


def test_long_file_is_read_block_by_block() -> None:
    class Endless(io.RawIOBase):
        """More lines than any memory holds."""

        blocks = 0

        def read(self, size: int = -1) -> bytes:
            self.blocks += 1
            return b"0123456.jpg\r\n" * (size // 13) + b"0" * (size % 13)

    file = Endless()
    lines = iterate_lines(file)
    assert [next(lines) for _ in range(100_000)][:80_000] == [b"0123456.jpg"] * 80_000
    assert file.blocks <= 3


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"a.jpg\nb\0.jpg\n", "line 2 holds a NUL byte"),
        ("a.jpg\n".encode("utf-16-le"), "line 1 holds a NUL byte"),
        (b"\xff\xfea\0b", "begins with the mark of utf-16-le, but is none"),
        (b"a\n" + b"b" * (MAX_LINE_BYTES + 1), f"line 2 is longer than {MAX_LINE_BYTES} bytes"),
        (b"a" * (3 << 20), f"line 1 is longer than {MAX_LINE_BYTES} bytes"),
    ],
)
def test_what_is_no_text_is_told(data: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        list(iterate_lines(io.BytesIO(data)))


@pytest.mark.parametrize("encoding", MARKED)
def test_configs_and_tables_are_read_as_windows_saves_them(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(encoded("recipe: dedup\r\nseed: 3\r\n", encoding))
    assert read_yaml(tmp_path / "a.yaml") == {"recipe": "dedup", "seed": 3}
    (tmp_path / "truth.csv").write_bytes(encoded(",".join(TRUTH_COLUMNS) + "\r\na.jpg,cat,base,,\r\n", encoding))
    assert read_truth(tmp_path / "truth.csv")["a.jpg"].category == "cat"


@pytest.mark.parametrize("text", ["a: \xff", "a: 2020-99-99", "a: " + "[" * 1000])
def test_config_that_cannot_be_read_names_itself(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"a\.yaml: not (text|valid YAML)"):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="override 'a=.*not valid YAML"):
        apply_overrides({}, ["a=2020-99-99"])


HOSTILE = "a\x1b[2J\x07\rb\n\x9b31m\u202egpj.exe\u2066\u200b\u2028\ud800\U000e0041"


def test_whatever_a_terminal_would_act_on_is_written_out() -> None:
    shown = visible(HOSTILE, keep="")
    assert shown == r"a\x1b[2J\x07\rb\n\x9b31m\u202egpj.exe\u2066\u200b\u2028\ud800\U000e0041"
    assert shown.isprintable()
    assert visible("a\tb\nc\x85") == "a\tb\nc\\x85"
    for harmless in ("", "Ångström 東京 😀.jpg", "a\u00a0b", r"C:\x1b"):
        assert visible(harmless) == harmless


@given(st.text())
def test_visible_text_is_one_printable_line_and_stays_as_it_is(text: str) -> None:
    shown = visible(text, keep="")
    categories = {unicodedata.category(letter) for letter in shown}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert visible(shown, keep="") == shown


def test_long_names_lose_their_middle_and_tell_their_length() -> None:
    name = "begin" + "x" * 5000 + "end.jpg"
    shown = visible_line(name)
    assert shown.startswith("begin")
    assert shown.endswith("end.jpg")
    assert "(5,012 characters)" in shown
    assert len(shown) < MAX_WORD + 40
    told = visible_text(f"cannot read {name} , no such file\nline two")
    assert told == f"cannot read {shown} , no such file\nline two"
    assert len(visible_text("a b " * 10_000)) < MAX_LINE + 40
    assert visible_text("as it is, " * 100) == "as it is, " * 100


def test_lines_of_a_name_cannot_pass_for_messages() -> None:
    assert indented("one\ntwo\n  three\n\nerror: four") == "one\n  two\n  three\n\n  error: four"
