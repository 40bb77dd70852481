"""File systems of URLs: how they are made, and what a missing library or a refusal is told as."""

import importlib.util
from pathlib import Path
from typing import Any

import fsspec
import pytest

from curate.config import absolute_path
from curate.errors import ConfigError, MissingExtra, SourceError, WorkdirError
from curate.filesystems import Explained, Limits, client_timeout, open_filesystem
from curate.retrying import find_cause

LIMITS = Limits(connect=3, stall=7, in_all=11)


def test_another_process_is_seen_at_once_in_a_listing() -> None:
    fs, _ = open_filesystem("s3://bucket/a", limits=LIMITS)
    assert not fs.dircache.use_listings_cache
    fs.dircache["bucket"] = [{"name": "bucket/old"}]
    assert "bucket" not in fs.dircache


def test_limits_reach_s3_and_the_web_and_what_the_user_configured_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    fs, path = open_filesystem("s3://bucket/a/b", limits=LIMITS)
    assert path == "bucket/a/b"
    config = fs.config_kwargs
    assert (config["connect_timeout"], config["read_timeout"], config["max_pool_connections"]) == (3, 7, 32)
    assert config["retries"] == {"mode": "standard", "total_max_attempts": 5}
    web, _ = open_filesystem("https://h/a", limits=LIMITS)
    assert web.client_kwargs["timeout"] == client_timeout(LIMITS)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 99}, "anon": True})
    mine, _ = open_filesystem("s3://bucket/a", limits=LIMITS)
    assert (mine.config_kwargs["read_timeout"], mine.config_kwargs["connect_timeout"], mine.anon) == (99, 3, True)


@pytest.mark.parametrize(("library", "url"), [("gcsfs", "gs://bucket/a"), ("adlfs", "abfs://container/a")])
def test_limits_reach_the_other_stores_too(library: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install 'curate-vision[gcs,azure]'")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    fs, _ = open_filesystem(url, limits=LIMITS, **({"token": "anon"} if library == "gcsfs" else {}))
    assert not fs.dircache.use_listings_cache
    if library == "gcsfs":
        assert fs.requests_timeout == client_timeout(LIMITS._replace(in_all=11))
    else:
        assert fs._timeout_kwargs == {"connection_timeout": 3, "read_timeout": 7}


def test_local_files_and_memory_work_as_before(tmp_path: Any) -> None:
    (tmp_path / "a").write_bytes(b"x")
    fs, path = open_filesystem(str(tmp_path))
    assert fs.ls(path, detail=False) == [f"{tmp_path}/a"]
    memory, _ = open_filesystem("memory://filesystems")
    memory.pipe_file("/filesystems/a", b"1")
    assert memory.ls("/filesystems", detail=False) == ["/filesystems/a"]
    memory.rm("/filesystems", recursive=True)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://b/a", "s3fs", "s3"),
        ("gs://b/a", "gcsfs", "gcs"),
        ("abfs://c/a", "adlfs", "azure"),
        ("https://h/a", "aiohttp", "http"),
    ],
)
def test_missing_library_is_named_with_its_extra(
    url: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(protocol: str) -> Any:
        raise ImportError(f"Install {package}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed; .*pip install 'curate-vision\[{extra}\]'"):
        open_filesystem(url)


def test_unknown_protocol_and_chained_url_are_errors_of_whoever_asks() -> None:
    with pytest.raises(WorkdirError, match="nosuch://a: .*install the fsspec package of that protocol"):
        open_filesystem("nosuch://a", error=WorkdirError)
    with pytest.raises(SourceError, match=r"zip://a::s3://b/c.zip: chained URLs are not supported"):
        open_filesystem("zip://a::s3://b/c.zip")


class NoCredentialsError(Exception):
    """As botocore's."""


class Answered(Exception):
    """As botocore's ClientError."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}


@pytest.mark.parametrize(
    ("met", "told"),
    [
        (
            PermissionError("Access Denied"),
            r"s3://b/run: access denied; check that the credentials .* in s3://b; then run",
        ),
        (Answered("ExpiredToken"), r"HTTP 400 ExpiredToken; check that the credentials .* are valid"),
        (NoCredentialsError("Unable to locate credentials"), r"no credentials were found; check that the credentials"),
        (ConnectionResetError(104, "reset"), r"connection broken off, at every attempt; check the connection"),
        (TimeoutError(), r"timed out, at every attempt"),
    ],
)
def test_what_a_store_refuses_is_told_in_one_sentence(met: Exception, told: str) -> None:
    class Refusing:
        sep = "/"

        def ls(self, path: str) -> None:
            raise met

    explained = Explained(Refusing(), "s3://b/run")
    assert explained.sep == "/"
    with pytest.raises(WorkdirError, match=told):
        explained.ls("b/run")


def test_a_file_that_is_not_there_stays_that() -> None:
    with pytest.raises(FileNotFoundError):
        Explained(fsspec.filesystem("memory"), "memory://x").cat_file("/no/such")
    assert find_cause(NoCredentialsError("x"), remote=True) is not None


@pytest.mark.parametrize("url", ["s3://bucket/out", "gs://bucket/out", "file:///tmp/out"])
def test_whatever_writes_to_a_folder_refuses_a_url(url: str) -> None:
    from curate.evaluation.drawing.output_folder import check_output
    from curate.samples.pool import make_pool
    from curate.trainer.config import TrainConfig

    for write in (
        lambda: check_output(Path(url)),
        lambda: make_pool(Path(url)),
        lambda: TrainConfig(shards=url, output=url),
    ):
        with pytest.raises(ConfigError, match=r"a URL, but what is written there is renamed, .* give a local folder"):
            write()
    assert not Path(url.split("/", 1)[0]).exists()


def test_export_to_a_url_is_refused_before_weights_are_loaded() -> None:
    from curate.models.convert.convert import convert

    with pytest.raises(ConfigError, match=r"--output=s3:/+bucket/out"):
        convert("no-such-model", "safetensors", output="s3://bucket/out")


def test_container_of_azure_is_no_user_name() -> None:
    assert absolute_path("abfs://container@account.dfs.core.windows.net/a") == (
        "abfs://container@account.dfs.core.windows.net/a"
    )
    with pytest.raises(ValueError, match="a URL with a user name or password"):
        absolute_path("abfs://me:secret@account/a")
