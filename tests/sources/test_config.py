from pathlib import Path
from typing import Any

import pytest

from curate.config import apply_overrides, identity, parse
from curate.errors import ConfigError
from curate.sources.config import Sources


def read(values: dict[str, Any]) -> Sources:
    return parse(Sources, values, where="test")


def test_single_path_is_named_after_its_role() -> None:
    sources = read({"pool": "a/b", "curated": "c", "heldout": ["d"]})
    assert [(role, s.name) for role, s in sources.by_role()] == [
        ("pool", "pool"),
        ("curated", "curated"),
        ("heldout", "heldout"),
    ]


def test_relative_paths_are_taken_from_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read({"pool": "a/../b"}).pool[0].path == str(tmp_path / "b")
    assert read({"pool": "s3://bucket/a b%20"}).pool[0].path == "s3://bucket/a b%20"


def test_several_paths_are_named_after_their_last_plain_step() -> None:
    names = [s.name for s in read({"pool": ["/x/cats", "/x/dogs/*.tar", {"path": "/x/b c"}]}).pool]
    assert names == ["cats", "dogs", "b-c"]


def test_command_line_forms_are_understood() -> None:
    values = apply_overrides({}, ["pool=/a", "curated=[{name: x, path: /b}, {name: y, path: /c, columns: [z]}]"])
    sources = read(values)
    assert [s.path for s in sources.pool] == ["/a"]
    assert [(s.name, s.columns) for s in sources.curated] == [("x", None), ("y", ("z",))]
    assert read({"pool": "/a", "heldout": None}).heldout == ()


@pytest.mark.parametrize("value", ["/a", Path("/a"), ["/a"], [{"path": "/a"}]])
def test_sources_without_a_role_are_the_pool(value: object) -> None:
    sources = Sources.model_validate(value)
    assert sources == Sources.model_validate({"pool": value})
    assert [(role, s.name, s.path) for role, s in sources.by_role()] == [("pool", "pool", "/a")]


def test_parsed_sources_parse_again_to_the_same() -> None:
    sources = read({"pool": ["/a", {"name": "n", "path": "/b"}]})
    assert Sources.model_validate(sources) == sources
    assert Sources.model_validate(identity(sources)) == sources


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "pool: required"),
        ({"pool": []}, "pool has no source"),
        ({"pool": ["/a/x", "/b/x"]}, "name 'x' is given to 2 sources"),
        ({"pool": "/a", "curated": {"name": "pool", "path": "/b"}}, "name 'pool' is given to 2 sources"),
        ({"pool": [{"pth": "/a"}]}, "did you mean 'path'"),
        ({"pool": "/a", "curatd": "/b"}, "did you mean 'curated'"),
        ({"pool": [{"path": "/a", "name": "a/b"}]}, "name"),
        ({"pool": [{"path": "/a", "format": "zip"}]}, "format"),
    ],
)
def test_wrong_sources_are_refused_with_what_to_do(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(values)
