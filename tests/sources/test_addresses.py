"""What strangers' URLs may lead to: no server with a private address is asked, however it is written or reached."""

import asyncio
import ipaddress
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from curate.errors import ConfigError, SourceError
from curate.sources import network
from curate.sources.addresses import PUBLIC, PrivateAddress, as_network, permit_of, written_addresses
from curate.sources.config import Source
from curate.sources.listing import list_source
from curate.sources.read import Read
from curate.sources.reading import read_bytes, read_part
from tests.sources.helpers import catalog, write_tar
from tests.sources.serving import Answer, Served, serving

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "0.0.0.0",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::ffff:0:10.0.0.1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",
    "2001::f5ff:fffe",
]
PUBLIC_ONES = [
    "8.8.8.8",
    "93.184.216.34",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "2002:808:808::1",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_address_that_is_not_of_the_public_internet_is_refused(address: str) -> None:
    assert not PUBLIC.allows("host", address)
    with pytest.raises(PrivateAddress, match=r"its server 'host' has a private address, which is not asked; to allow"):
        PUBLIC.allowed("host", [address])
    assert permit_of(True).allows("host", address)
    assert permit_of(["HOST"]).allows("host", address)


@pytest.mark.parametrize("address", PUBLIC_ONES)
def test_public_address_is_always_allowed(address: str) -> None:
    assert PUBLIC.allows("host", address)


def test_networks_allow_what_lies_in_them_and_nothing_else() -> None:
    permit = permit_of(["10.1.0.0/16", "fd00::/8", "intranet.local", "[::1]"])
    assert [permit.allows("h", a) for a in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "::1")] == [True] * 4
    assert [permit.allows("h", a) for a in ("10.2.0.1", "127.0.0.1", "fe80::1")] == [False] * 3
    assert permit.allows("Intranet.local.", "192.168.0.1")
    assert permit.allowed("h", ["10.2.0.1", "10.1.0.1", "8.8.8.8"]) == ["10.1.0.1", "8.8.8.8"]
    assert permit.allowed("h", []) == []


@pytest.mark.parametrize("host", ["2130706433", "0177.1", "0x7f.1", "127.1", "017700000001", "127.0.0.1"])
def test_every_notation_of_an_address_is_seen_through(host: str) -> None:
    assert written_addresses(host) == ["127.0.0.1"]


def test_setting_that_is_no_network_is_refused_and_a_verdict_travels_between_processes() -> None:
    with pytest.raises(ValueError, match="10.0.0.0/99"):
        Source(name="s", path="/a", private_addresses=("10.0.0.0/99",))
    assert as_network("10.0.0.5/8") == ipaddress.ip_network("10.0.0.0/8")
    error = pickle.loads(pickle.dumps(PrivateAddress("h")))  # noqa: S301
    assert (error.host, error.why) == ("h", PrivateAddress("h").why)


# -- fetching ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def served() -> Iterator[Served]:
    with serving({"/a.jpg": b"inside", "/moved.jpg": Answer(status=302)}) as server:
        yield server


def table(root: Path, urls: list[str]) -> Path:
    path = root / "t.csv"
    path.write_text("url\n" + "".join(f"{url}\n" for url in urls))
    return path


def listed(root: Path, urls: list[str]) -> Path:
    pytest.importorskip("aiohttp")
    path = root / "list.txt"
    path.write_text("".join(f"{url}\n" for url in urls))
    return path


WAYS = (table, listed)
Way = Callable[[Path, list[str]], Path]


def read(path: object, **fields: Any) -> list[Read]:
    source = Source(name="s", path=str(path), **fields)
    return list(read_bytes(catalog(list_source(source)), source))


@pytest.mark.parametrize("way", WAYS)
def test_picture_on_this_machine_is_refused_without_a_connection(tmp_path: Path, served: Served, way: Way) -> None:
    port = served.url.rsplit(":", 1)[1]
    hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]"]
    urls = [f"http://{host}:{port}/a.jpg" for host in hosts]
    reads = read(way(tmp_path, urls))
    assert [one.reject for one in reads] == ["unreadable"] * len(urls)
    for host, one in zip(hosts, reads, strict=True):
        chained = way is listed and "::" in host  # fsspec takes these for URLs within URLs
        assert one.error == (
            "not a URL: chained URLs are not supported" if chained else PrivateAddress(host.strip("[]")).why
        )
    assert (served.connections, served.requests) == (0, {})
    allowed = read(way(tmp_path, urls[:2]), private_addresses=["127.0.0.0/8"])
    assert [one.data for one in allowed] == [b"inside"] * 2
    assert [one.data for one in read(way(tmp_path, urls[:2]), private_addresses=True)] == [b"inside"] * 2


@pytest.mark.parametrize("way", WAYS)
def test_redirect_leads_to_no_private_address_either(tmp_path: Path, served: Served, way: Way) -> None:
    port = served.url.rsplit(":", 1)[1]
    served.answers["/moved.jpg"] = Answer(status=302, headers={"Location": f"http://127.0.0.1:{port}/a.jpg"})
    (one,) = read(way(tmp_path, [f"http://localhost:{port}/moved.jpg"]), private_addresses=["localhost"])
    assert (one.reject, one.error) == ("unreadable", PrivateAddress("127.0.0.1").why)
    assert served.requests == {"/moved.jpg": 1}


def test_what_is_connected_to_is_looked_at_before_it_is_asked(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "written_addresses", lambda host: [])  # as of a notation that the system alone knows
    (one,) = read(listed(tmp_path, [f"{served.url}/a.jpg"]))
    assert one.error == PrivateAddress("127.0.0.1").why
    assert served.requests == {}


def test_name_that_resolves_to_another_address_at_the_second_look_gains_nothing(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    asked: list[str] = []

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> Any:
        await asyncio.sleep(0)
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [{"hostname": host, "host": address, "port": port, "family": 2, "proto": 0, "flags": 0}]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    permit = PUBLIC
    (first,) = asyncio.run(_resolve(permit))
    assert first["host"] == "93.184.216.34"
    with pytest.raises(PrivateAddress, match="'rebind.example'"):
        asyncio.run(_resolve(permit))


async def _resolve(permit: Any) -> Any:
    connector = network._connector(permit)
    try:
        return await connector._resolver.resolve("rebind.example", 80)
    finally:
        await connector.close()


def test_archive_that_the_path_names_is_read_wherever_it_lies(tmp_path: Path, served: Served) -> None:
    pytest.importorskip("aiohttp")
    served.answers["/a.tar"] = Answer(write_tar(tmp_path / "a.tar", {"x.jpg": b"member"}).read_bytes())
    source = Source(name="s", path=f"{served.url}/a.tar")
    assert [one.data for one in read_part(catalog(list_source(source)), source)] == [b"member"]


def test_server_that_the_path_names_is_asked_and_no_other(tmp_path: Path, served: Served) -> None:
    pytest.importorskip("aiohttp")
    port = served.url.rsplit(":", 1)[1]
    lines = f"{served.url}/a.jpg\nhttp://localhost:{port}/a.jpg\n"
    served.answers["/list.txt"] = Answer(lines.encode())
    own, other = read(f"{served.url}/list.txt")
    assert (own.data, other.error) == (b"inside", PrivateAddress("localhost").why)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://h/a.jpg", "sftp://h/a.jpg", "github://o:r@main/a.jpg", "memory://a.jpg", "dask://a", "reference://a"),
        *("asynclocal:///etc/passwd", "data://x", "git:///repo:x.jpg", "zip:///etc/x.jpg", "dir:///etc"),
    ],
)
def test_list_names_no_other_protocol(tmp_path: Path, url: str) -> None:
    (one,) = read(listed(tmp_path, [url]))
    assert one.reject == "unreadable"
    assert one.error is not None
    assert "a list may not name a URL of the protocol" in one.error or "not known" in one.error


@pytest.mark.parametrize("line", ["zip://a.jpg::https://h/a.jpg", "simplecache::https://h/a.jpg", "https::http://h/a"])
def test_chained_url_in_a_list_costs_itself(tmp_path: Path, line: str) -> None:
    (one,) = read(listed(tmp_path, [line]))
    assert one.reject == "unreadable"


def test_archive_on_this_machine_is_an_error_that_says_how_to_allow_it(tmp_path: Path, served: Served) -> None:
    served.answers["/a.tar"] = Answer(write_tar(tmp_path / "a.tar", {"x.jpg": b"member"}).read_bytes())
    path = listed(tmp_path, [f"{served.url}/a.tar"])
    with pytest.raises(SourceError, match=r"private_addresses: \[127.0.0.1\]"):
        read(path)
    assert served.connections == 0


def test_through_a_proxy_a_name_that_is_private_here_is_refused(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", served.url)
    monkeypatch.setenv("no_proxy", "")
    served.answers["http://pictures.invalid:80/a.jpg"] = Answer(b"by proxy")
    here, there = read(table(tmp_path, ["http://127.1/a.jpg", "http://pictures.invalid/a.jpg"]))
    assert (here.error, there.data) == (PrivateAddress("127.1").why, b"by proxy")


def test_config_names_the_setting(tmp_path: Path) -> None:
    from curate.recipe import load_config

    given = f"sources.pool={{path: {tmp_path}, private_addresses: [10.0.0.0/99]}}"
    with pytest.raises(ConfigError, match="private_addresses"):
        load_config("dedup", [given, f"workdir={tmp_path}/run"])
