"""Servers and object stores that fail: what an image becomes, what it costs, and what is asked."""

import io
import socket
import tarfile
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.faulty import STORE, FaultyServer, FaultyStore, register_store
from curate import retrying
from curate.errors import SourceDamaged, SourceError
from curate.sources.config import Sources
from curate.sources.folder import read_folder_file
from curate.sources.listing import list_source
from curate.sources.network import Network, network, open_filesystem
from curate.sources.read import Read
from curate.sources.reading import read_bytes, read_part
from tests.sources.helpers import catalog, source

QUICK = Network(connect=0.5, stall=0.3, picture=2, first_wait=0)
BYTES = b"\xff\xd8" + b"x" * 3000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retrying, "_given_up", {})
    with QUICK.used():
        yield


@pytest.fixture
def store() -> type[FaultyStore]:
    return register_store()


def read(uri: str, max_bytes: int = 10_000) -> Read:
    return read_folder_file(uri, max_bytes=max_bytes)


@pytest.fixture
def web() -> Iterator[tuple[FaultyServer, str]]:
    pytest.importorskip("aiohttp")
    server = FaultyServer({"/a.jpg": BYTES, "/b.jpg": BYTES, "/empty.jpg": b""})
    with server.serve() as address:
        yield server, address


UNAVAILABLE = {
    "503*": "HTTP 503 Service Unavailable",
    "429*": "HTTP 429 Too Many Requests",
    "500*": "HTTP 500 Internal Server Error",
    "408*": "HTTP 408 Request Timeout",
    "503 3600*": "HTTP 503 Service Unavailable",
    "break*": "connection broken off",
    "hang*": "timed out",
}
UNREADABLE = {
    "404": "HTTP 404 Not Found",
    "410": "HTTP 410 Gone",
    "403": "HTTP 403 Forbidden",
    "401": "HTTP 401 Unauthorized",
    "loop*": "too many redirects",
}


@pytest.mark.parametrize("fault", UNAVAILABLE)
def test_server_that_is_busy_breaks_off_or_hangs_leaves_an_image_open(
    web: tuple[FaultyServer, str], fault: str
) -> None:
    web[0].faults["/a.jpg"] = [fault]
    assert read(f"{web[1]}/a.jpg") == Read(error=UNAVAILABLE[fault], reject="unavailable")
    assert web[0].requests["/a.jpg"] == {"hang*": 2, "503 3600*": 1}.get(fault, 4)
    assert read(f"{web[1]}/b.jpg").data == BYTES
    web[0].faults.clear()
    assert read(f"{web[1]}/a.jpg").data == BYTES


@pytest.mark.parametrize("fault", UNREADABLE)
def test_server_that_refuses_or_does_not_know_an_image_is_taken_at_its_word(
    web: tuple[FaultyServer, str], fault: str
) -> None:
    web[0].faults["/a.jpg"] = [fault]
    assert read(f"{web[1]}/a.jpg") == Read(error=UNREADABLE[fault], reject="unreadable")
    assert web[0].requests["/a.jpg"] == (10 if fault == "loop*" else 1)


@pytest.mark.parametrize("faults", [["503", "429 0", "break"], ["500", "408"], ["hang"]])
def test_server_that_recovers_costs_nothing(web: tuple[FaultyServer, str], faults: list[str]) -> None:
    web[0].faults["/a.jpg"] = [*faults]
    assert read(f"{web[1]}/a.jpg").data == BYTES
    assert web[0].requests["/a.jpg"] == len(faults) + 1


def test_image_is_read_by_one_request_and_never_further_than_allowed(web: tuple[FaultyServer, str]) -> None:
    assert read(f"{web[1]}/a.jpg", len(BYTES)).data == BYTES
    assert read(f"{web[1]}/a.jpg", len(BYTES) - 1).reject == "too_large"
    assert read(f"{web[1]}/empty.jpg").data == b""
    assert web[0].requests == Counter({"/a.jpg": 2, "/empty.jpg": 1})


def test_server_that_is_down_and_a_name_that_is_unknown_leave_images_open() -> None:
    pytest.importorskip("aiohttp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert read(f"http://127.0.0.1:{port}/a.jpg") == Read(error="connection refused", reject="unavailable")
    assert read("http://no-such-host.invalid/a.jpg").reject == "unavailable"


@pytest.mark.parametrize("url", ["http://[half/a.jpg", f"http://{'a' * 300}.test/a.jpg", "http:///a.jpg"])
def test_text_that_is_no_url_costs_itself_alone(url: str) -> None:
    pytest.importorskip("aiohttp")
    assert read(url).reject in ("unreadable", "unavailable")


def test_store_that_hangs_is_given_up_when_the_time_for_an_image_is_over(store: type[FaultyStore]) -> None:
    store.objects.update({"bucket/a.jpg": BYTES, "bucket/b.jpg": BYTES})
    store.faults["bucket/a.jpg"] = ["hang*"]
    with Network(picture=0.3, first_wait=0).used():
        assert read(f"{STORE}://bucket/a.jpg") == Read(error="timed out", reject="unavailable")
        assert read(f"{STORE}://bucket/b.jpg").data == BYTES


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("403*", "HTTP 403 Forbidden"),
        ("expired*", "HTTP 400 ExpiredToken"),
        ("503*", "HTTP 503 SlowDown"),
        ("refused*", "connection refused"),
    ],
)
def test_store_that_refuses_may_have_met_an_expired_token(store: type[FaultyStore], fault: str, text: str) -> None:
    store.objects.update({"bucket/a.jpg": BYTES})
    store.faults["bucket/a.jpg"] = [fault]
    assert read(f"{STORE}://bucket/a.jpg") == Read(error=text, reject="unavailable")
    assert store.requests["bucket/a.jpg"] == 4
    store.faults.clear()
    assert read(f"{STORE}://bucket/a.jpg").data == BYTES


def test_object_that_is_gone_is_unreadable_at_once(store: type[FaultyStore]) -> None:
    assert read(f"{STORE}://bucket/gone.jpg") == Read(error="HTTP 404 Not Found", reject="unreadable")
    assert store.requests["bucket/gone.jpg"] == 1


def tar_of(names: list[str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(BYTES)
            archive.addfile(info, io.BytesIO(BYTES))
    return file.getvalue()


def parquet_of(names: list[str]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"image": [BYTES for _ in names]}), file)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
@pytest.mark.parametrize("way", [read_part, read_bytes])
def test_archive_that_is_kept_away_or_gone_costs_its_own_images_alone(
    store: type[FaultyStore], kind: str, way: object
) -> None:
    make = tar_of if kind == "tar" else parquet_of
    store.objects.update({f"bucket/{name}.{kind}": make([f"{name}{i}.jpg" for i in range(3)]) for name in "abcd"})
    rows = catalog(list_source(source(f"{STORE}://bucket")))
    store.faults[f"bucket/b.{kind}"] = ["403*"]
    del store.objects[f"bucket/c.{kind}"]
    reads = list(way(rows, source(f"{STORE}://bucket")))  # type: ignore[operator]
    assert [r.reject for r in reads] == [None] * 3 + ["unavailable"] * 3 + ["unreadable"] * 3 + [None] * 3
    assert reads[3].error == "HTTP 403 Forbidden"
    assert [r.data for r in reads if r.reject is None] == [BYTES] * 6


def test_error_in_the_middle_of_an_archive_costs_the_rest_of_it(store: type[FaultyStore]) -> None:
    size = 6 << 20  # more than fsspec reads at once
    info, file = tarfile.TarInfo("x.jpg"), io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("0.jpg", "1.jpg", "2.jpg"):
            info.name, info.size = name, size
            archive.addfile(info, io.BytesIO(bytes(size)))
    store.objects.update({"bucket/a.tar": file.getvalue(), "bucket/b.tar": tar_of(["3.jpg"])})
    rows = catalog(list_source(source(f"{STORE}://bucket")))
    found = []
    for read_ in read_bytes(rows, source(f"{STORE}://bucket")):
        found.append(read_.reject)
        store.faults["bucket/a.tar"] = ["503*"]
    assert found == [None, "unavailable", "unavailable", None]


def test_archive_that_changed_is_an_error_unless_a_later_pass_asks(store: type[FaultyStore]) -> None:
    store.objects.update({"bucket/a.tar": tar_of(["0.jpg", "1.jpg"]), "bucket/b.tar": tar_of(["2.jpg"])})
    rows = catalog(list_source(source(f"{STORE}://bucket")))
    store.objects["bucket/a.tar"] = tar_of(["0.jpg"])[:2048]
    with pytest.raises(SourceDamaged, match="damaged or truncated"):
        list(read_bytes(rows, source(f"{STORE}://bucket")))
    reads = list(read_part(rows, source(f"{STORE}://bucket"), damaged=True))
    assert [r.reject for r in reads] == ["unreadable", "unreadable", None]


@pytest.mark.parametrize("folder", ["bucket/", "bucket/sub/"])
@pytest.mark.parametrize("fault", ["503*", "403*", "refused*"])
def test_folder_that_cannot_be_listed_now_is_an_error_and_not_an_empty_one(
    store: type[FaultyStore], folder: str, fault: str
) -> None:
    store.objects.update({"bucket/a.jpg": BYTES, "bucket/sub/b.jpg": BYTES})
    assert len(list(list_source(source(f"{STORE}://bucket")))) == 2
    store.faults[folder] = [fault]
    with pytest.raises(SourceError, match="4 times in a row"):
        list(list_source(source(f"{STORE}://bucket")))


def test_settings_hold_within_and_are_no_part_of_what_identifies_a_run() -> None:
    from curate.config import identity

    assert network() == QUICK
    with Network(stall=7).used():
        assert network().stall == 7
    assert network() == QUICK
    plain, patient = Sources(pool="p"), Sources(pool="p", network={"stall": 99}, max_unavailable=0.5)  # type: ignore[arg-type]
    assert plain != patient
    assert identity(plain) == identity(patient)
    assert plain.pool[0].model_dump_json() == patient.pool[0].model_dump_json()


def test_file_systems_get_the_time_outs_and_what_the_user_configured_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    import fsspec

    fs, path = open_filesystem("http://host/a.jpg")
    limits = fs.client_kwargs["timeout"]
    assert (path, limits.total, limits.sock_connect, limits.sock_read) == ("http://host/a.jpg", 2, 0.5, 0.3)
    monkeypatch.setitem(fsspec.config.conf, "http", {"client_kwargs": {"trust_env": True}})
    assert open_filesystem("http://host/a.jpg")[0].client_kwargs.keys() == {"timeout", "trust_env", "trace_configs"}
