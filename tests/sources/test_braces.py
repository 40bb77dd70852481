import subprocess
from pathlib import Path

import pytest

from curate.errors import SourceError
from curate.sources import braces
from curate.sources.braces import expand_braces, has_braces
from tests.sources.helpers import keys, write_files, write_tar

PATHS = [
    *("x{00000..00012}.tar", "{a,b}{1..3}", "a{b}c", "{a,{b,c}d}e", "{3..1}", "{-01..2}", "{01..100..33}", "{a..e..2}"),
    *("{}", "a{,b}", "{a..3}", "{1..2}{x", "x}{a,b}", "{a,b}}", "{{1..2}}", "{a{1..2}b}", "{0..5..0}", "{-5..5..-3}"),
    *("{1..003}", "a{1,2", "{-001..001}", "{e..a}", "plain", "{1..2,x}", "{a,b{c,d}", "{1..3}/{x,y}"),
]


def test_braces_expand_as_in_bash() -> None:
    script = "".join(f"printf '%s\\n' {path}; printf -- '--\\n'; " for path in PATHS)
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    groups = [group.split("\n") for group in told.removesuffix("--\n").replace("--\n", "\0").split("\0")]
    for path, expected in zip(PATHS, groups, strict=False):
        assert expand_braces(path) == [name for name in expected if name or path == ""], path


def test_braces_that_stand_for_too_many_paths_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(braces, "MAX_PATHS", 10)
    assert len(expand_braces("{0..9}")) == 10
    with pytest.raises(SourceError, match=r"its braces stand for more than 10 paths; give a glob or the folder"):
        expand_braces("{0..999999999999}{0..999999999999}")
    assert not has_braces("{a}{b")


def test_braces_lead_to_tars_and_folders_and_keys_stay_apart(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"{number:02}.tar", {f"{number}.jpg": b"1"})
    assert keys(tmp_path / "{02..01}.tar") == ["02.tar/2.jpg", "01.tar/1.jpg"]
    with pytest.raises(SourceError, match=r"03\.tar: No such file or directory"):
        keys(tmp_path / "{00..03}.tar")
    write_files(tmp_path, ["a/x.jpg", "b/x.jpg", "b/s/y.jpg"])
    assert keys(tmp_path / "{b,a}") == ["b/s/y.jpg", "b/x.jpg", "a/x.jpg"]
    assert keys(tmp_path / "{a,b}/*.jpg") == ["a/x.jpg", "b/x.jpg"]
    assert keys(tmp_path / "{a,b}/x.jpg") == ["a/x.jpg", "b/x.jpg"]


def test_a_file_of_that_very_name_wins(tmp_path: Path) -> None:
    write_tar(tmp_path / "{0..1}.tar", {"literal.jpg": b"1"})
    assert keys(tmp_path / "{0..1}.tar") == ["{0..1}.tar/literal.jpg"]
