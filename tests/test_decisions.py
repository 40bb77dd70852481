"""The file of decisions: what is read, what is written, what is refused."""

import multiprocessing
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.decisions import (
    KINDS,
    Decision,
    append_decisions,
    forget_decisions,
    last_ones,
    parse_decisions,
    read_decisions,
)
from curate.errors import ConfigError, WorkdirError

SHA = "ab" * 32
names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1).filter(
    lambda name: name == name.strip()
)
decisions = st.one_of(
    st.builds(Decision, names, st.sampled_from(KINDS), note=names),
    st.builds(Decision, names, st.just("not-copies"), names),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "decisions.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_of_any_system_says_the_same(encoding: str, end: str, file: Path) -> None:
    lines = ["image,decision,note", "größe.jpg,keep,yes", "", '"a, b.jpg", drop', f"sha256:{SHA.upper()},represent"]
    file.write_bytes((end.join(lines) + end).encode(encoding))
    assert read_decisions(file) == [
        Decision("größe.jpg", "keep", note="yes"),
        Decision("a, b.jpg", "drop"),
        Decision(f"sha256:{SHA.upper()}", "represent"),
    ]


def test_no_file_and_no_lines_decide_nothing(file: Path) -> None:
    assert read_decisions(file) == []
    file.write_text("")
    assert read_decisions(file) == []
    file.write_text("image,decision\n")
    assert read_decisions(file) == []


@given(st.lists(decisions))
def test_what_is_written_is_read_again(given: list[Decision]) -> None:
    fsspec.filesystem("memory").store.clear()
    append_decisions("memory://w/decisions.csv", given)
    assert read_decisions("memory://w/decisions.csv") == last_ones(given)


def test_bytes_that_are_no_text_are_spelled_as_in_tables(file: Path) -> None:
    file.write_bytes(b"image,decision\n\xff.jpg,keep\n")
    assert read_decisions(file) == [Decision(r"\xff.jpg", "keep")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("key,decision\n", "line 1: no column of these: key; the first line must be `image,decision,other,note`"),
        ("image;decision\n", "line 1: no column of these: image;decision"),
        ("image,note\n", "line 1: not each of these columns once"),
        ("image,decision,decision\n", "line 1: not each of these columns once"),
        ("image,decision\na.jpg,keep\nb.jpg,kep\n", "line 3: decision 'kep'; known are: keep, drop, not-copies, repr"),
        ("image,decision\n\n,keep\n", "line 3: image is empty"),
        ("image,decision,other\na.jpg,keep,b.jpg\n", "line 2: keep is about one image; leave `other` empty"),
        ("image,decision\na,b.jpg,keep\n", "line 2: 3 fields, the first line has 2; put names with commas in quotes"),
        ('image,decision\n"a\nb",keep\n"c\nd",kept\n', "line 4: decision 'kept'"),
        ('image,decision\n"a.jpg,keep\n', "line 2: unexpected end of data"),
        ("image,decision\na\0.jpg,keep\n", "line 2 holds a NUL byte"),
        ("image,decision\n\x1b[2J,\x1b[2J\n", r"line 2: decision '\\\\x1b\[2J'"),
    ],
)
def test_a_line_that_says_nothing_known_is_named(text: str, what: str, file: Path) -> None:
    file.write_bytes(text.encode())
    with pytest.raises(ConfigError, match=rf"decisions\.csv: {what}"):
        read_decisions(file)
    with pytest.raises(ConfigError, match=what):
        append_decisions(file, [Decision("a.jpg", "keep")])
    assert file.read_bytes() == text.encode(), "it stays as it is"


def test_what_breaks_its_encoding_or_is_no_file_is_named(tmp_path: Path, file: Path) -> None:
    file.write_bytes(b"\xff\xfea")
    with pytest.raises(ConfigError, match=r"decisions\.csv: begins with the mark of utf-16-le, but is none"):
        read_decisions(file)
    with pytest.raises(ConfigError, match=r"not a regular file \(a folder\); give a CSV file"):
        read_decisions(tmp_path)
    with pytest.raises(WorkdirError, match="cannot be written"):
        append_decisions(tmp_path / "none" / "decisions.csv", [Decision("a", "keep")])


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (("a", "none"), "known are"),
        (("", "keep"), "empty"),
        ((" a", "keep"), "give its sha256"),
        (("a", "drop", "b"), "about one image"),
    ],
)
def test_a_decision_that_no_line_can_hold_is_refused(values: tuple[str, ...], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Decision(*values)  # type: ignore[arg-type]


def test_a_later_line_about_the_same_image_or_pair_counts(file: Path) -> None:
    append_decisions(file, [Decision(SHA, "keep"), Decision("b", "not-copies", "a"), Decision("b", "represent")])
    append_decisions(file, [Decision("a", "not-copies", "b", "again"), Decision(f"sha256:{SHA.upper()}", "drop")])
    assert read_decisions(file) == [
        Decision("b", "represent"),
        Decision("a", "not-copies", "b", "again"),
        Decision(f"sha256:{SHA.upper()}", "drop"),
    ]
    assert len(parse_decisions(file.read_bytes(), where="file")) == 3, "lines that are replaced do not pile up"
    forget_decisions(file, [Decision(SHA, "keep"), Decision("b", "not-copies", "a")])
    assert read_decisions(file) == [Decision("b", "represent")]
    forget_decisions(file, [Decision("b", "keep")])
    assert file.read_text() == "image,decision,other,note\n"


def test_the_mark_and_the_link_of_a_file_stay(tmp_path: Path, file: Path) -> None:
    (tmp_path / "real.csv").write_text("image,decision\n", encoding="utf-8-sig")
    file.symlink_to("real.csv")
    append_decisions(file, [Decision("größe", "keep")])
    assert (tmp_path / "real.csv").read_bytes() == "\ufeffimage,decision,other,note\ngröße,keep,,\n".encode()
    assert file.is_symlink()


def _append(path: str, worker: int) -> None:
    for number in range(20):
        append_decisions(path, [Decision(f"{worker}/{number}", "keep")])


def test_several_processes_that_write_lose_nothing(file: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=_append, args=(str(file), w)) for w in range(3)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        read_decisions(file)  # never meets half of a file
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert {d.image for d in read_decisions(file)} == {f"{w}/{n}" for w in range(3) for n in range(20)}
    assert {found.name for found in file.parent.iterdir()} == {file.name, f".{file.name}.lock"}


def test_a_writer_that_was_killed_leaves_nothing_that_matters(file: Path) -> None:
    file.with_name(f".{file.name}.new").write_text("half of")
    append_decisions(file, [Decision("a", "keep")])
    assert read_decisions(file) == [Decision("a", "keep")]
    assert not file.with_name(f".{file.name}.new").exists()
