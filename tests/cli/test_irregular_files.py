"""Pipes, devices and files of the kernel, wherever a command line may name them: an error at once, never a wait."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curate.cli import app
from curate.errors import CurateError
from tests.feed.shards import png, row, write_shard
from tests.sources.helpers import write_files

PIPE = r"not a regular file \(a pipe\)"
KERNEL = r"not a regular file \(made up by the kernel\)"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pipes under names that each command takes, and entered."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"classes/a/1.png": png(1), "classes/b/2.png": png(2), "pool/1.png": png(3)})
    for name in ("pipe", "pipe.parquet", "shards/2.parquet", "classes/a/pipe.png", "pipe.onnx", "pipe.safetensors"):
        Path(name).parent.mkdir(exist_ok=True)
        os.mkfifo(name)
    write_shard(tmp_path / "shards/1.parquet", [row(0)])
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train train/tiny output=out shards=pipe", rf"shard .*/pipe: not a readable Parquet file: .*{PIPE}"),
        ("train train/tiny output=out shards=shards", rf"shard .*/2\.parquet: .*{PIPE}"),
        ("train train/tiny output=out shards=/proc/self/maps", rf"shard /proc/self/maps: .*{KERNEL}"),
        ("train pipe output=out shards=shards", "pipe: no such config file"),
        ("eval lite0 --data pipe.parquet --label x", rf"pipe\.parquet: not a readable Parquet file: .*{PIPE}"),
        ("eval lite0 --data pipe", "pipe: no such folder"),
        ("eval lite0 --data classes --measures knn", rf"classes/a/pipe\.png: cannot be read: .*{PIPE}"),
        ("eval dinov2_vits14 --weights pipe --data classes", rf"pipe: cannot be read as weights: {PIPE}"),
        ("visualize lite0 pipe --output out", rf"pipe: cannot be read \({PIPE}\); leave it out"),
        ("visualize lite0 /proc/self/maps --output out", rf"/proc/self/maps: cannot be read \({KERNEL}\)"),
        ("run pipe sources.pool=pool workdir=out", "pipe: no such config file"),
        ("run dedup sources.pool=pipe workdir=out", "pipe: neither a folder nor a regular file"),
        ("run dedup sources.pool=pool sources.heldout=pipe workdir=out", "pipe: neither a folder nor a regular file"),
        ("run dedup sources.pool=pool workdir=out write.removal_list=pipe", "pipe: no such file"),
        ("run dedup sources.pool=pool workdir=out write.removal_list=/proc/self/maps", KERNEL),
        ("run dedup sources.pool=pool workdir=out copies.embed.model=sscd copies.embed.weights=pipe", PIPE),
        ("run dedup sources.pool=pool workdir=out copies.embed.model=onnx copies.embed.weights=pipe.onnx", "no such"),
        ("export pipe.safetensors --to safetensors --output out", PIPE),
        ("samples check out pipe", "pipe: no such"),
    ],
)
def test_what_no_command_may_open_is_an_error_that_names_it(arguments: str, message: str) -> None:
    found = CliRunner().invoke(app, arguments.split())
    assert isinstance(found.exception, CurateError), found.output
    with pytest.raises(CurateError, match=message):
        raise found.exception
