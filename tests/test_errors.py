import tomllib
from pathlib import Path

import pytest

from curate.errors import MissingExtra, foreign_text, pip_install

ROOT = Path(__file__).parent.parent


def test_missing_extra_is_installed_by_the_name_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in project["optional-dependencies"]:
        assert pip_install(extra) == f"pip install '{project['name']}[{extra}]'"
    assert str(MissingExtra("faiss", "gpu")).endswith(f"bring it with: {pip_install('gpu')}")


def test_pip_line_is_spelled_in_one_place() -> None:
    files = [path for folder in ("curate", "pipelines", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    spelled = [path.relative_to(ROOT).as_posix() for path in files if "pip install 'curate" in path.read_text()]
    assert spelled == ["curate/errors.py"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            "cannot identify image file <_io.BytesIO object at 0x7f3a12bc>",
            "cannot identify image file <_io.BytesIO object>",
        ),
        ("no such file: /tmp/tmpa1b2/x.png", "no such file: a path"),
        ("[Errno 2] No such file: '/home/me/my pictures/a.jpg'", "[Errno 2] No such file: a path"),
        (r"C:\Users\me\a.png is gone", "a path is gone"),
        ("https://host/k?Signature=s3cr3t: 403 after 3.02 seconds", "a URL 403 after some time"),
        ("Thread-12 of process 4711 died", "Thread of process died"),
        ("request 0a1b2c3d-0000-1111-2222-333344445555 at 2024-01-02T03:04:05.678Z", "request an id at a time"),
        ("object <0x7f00deadbeef>", "object <an address>"),
        ("two\nlines\tand \udc80, \x1b[31m", r"two lines and \udc80, ?[31m"),
        ("bad marker 0xff at 12 of 3/4, 12 bytes left", "bad marker 0xff at 12 of 3/4, 12 bytes left"),
        ("", ""),
    ],
)
def test_a_librarys_text_keeps_nothing_of_one_process_or_machine(said: str, kept: str) -> None:
    assert foreign_text(OSError(said)) == kept
    assert len(foreign_text(OSError(said * 100))) <= 200
