import io
from pathlib import Path

import pytest

from curate.config import apply_overrides, read_yaml
from curate.errors import ConfigError
from curate.samples.truth import TRUTH_COLUMNS, read_truth
from curate.text import MAX_LINE_BYTES, decode_text, iterate_lines, read_lines, read_text

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
