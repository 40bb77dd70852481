import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from curate.sources import web
from curate.sources.addresses import ANYTHING
from curate.sources.read import Read
from curate.sources.web import fetch_all, is_web_url
from tests.sources.serving import Answer, Served, serving


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.random, "uniform", lambda low, high: 0.01)  # waits before further attempts
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def manner(**given: Any) -> web.Manner:
    """A manner that may ask servers of this machine."""
    return web.Manner(**({"permit": ANYTHING} | given))


def fetch(served: Served, *paths: str, max_bytes: int = 10_000, **given: Any) -> list[Read]:
    return list(fetch_all((served.url + path for path in paths), max_bytes=max_bytes, manner=manner(**given)))


def one(answer: Any, **options: Any) -> Read:
    with serving({"/a": answer}) as served:
        (read,) = fetch(served, "/a", **options)
    return read


def test_pictures_come_in_order_and_each_is_asked_for_once() -> None:
    answers = {f"/{n}": Answer(b"%d" % n * n, seconds=0.05 if n % 50 == 0 else 0.0) for n in range(300)}
    with serving(answers) as served:
        reads = fetch(served, *answers, connections_per_host=16)
        assert [read.data for read in reads] == [b"%d" % n * n for n in range(300)]
        assert served.requests == dict.fromkeys(answers, 1)
        assert served.connections <= 16  # they are used again


@pytest.mark.parametrize(("limits", "most"), [((64, 3), 3), ((2, 8), 2)])
def test_a_host_is_asked_over_few_connections(limits: tuple[int, int], most: int) -> None:
    answers = {f"/{n}": b"x" for n in range(30)}
    with serving(answers, seconds=0.01) as served:
        fetch(served, *answers, connections=limits[0], connections_per_host=limits[1])
        assert (served.most_at_once, served.connections) == (most, most)


def test_slow_host_does_not_keep_others_waiting() -> None:
    slow = {f"/{n}": Answer(b"s", seconds=0.2) for n in range(8)}
    quick = {f"/{n}": b"q" for n in range(100)}
    with serving(slow) as one_host, serving(quick) as other:
        urls = [one_host.url + path for path in slow] + [other.url.replace("127.0.0.1", "localhost") + p for p in quick]
        reads = fetch_all(urls, max_bytes=10, manner=manner(connections=4, connections_per_host=2))
        assert next(reads).data == b"s"
        assert other.requests.total() == 100  # the first of the slow ones has just come
        assert [read.data for read in reads] == [b"s"] * 7 + [b"q"] * 100


def test_same_url_twice_is_asked_for_once() -> None:
    with serving({"/a": b"a", "/b": b"b"}, seconds=0.05) as served:
        reads = fetch(served, "/a", "/b", "/a", "/a", "/b")
        assert [read.data for read in reads] == [b"a", b"b", b"a", b"a", b"b"]
        assert served.requests == {"/a": 1, "/b": 1}


def test_servers_are_told_who_asks() -> None:
    with serving({"/a": b"a"}) as served:
        fetch(served, "/a", user_agent_token="crawl@example.org")
        fetch(served, "/a")
        agents = [headers["User-Agent"] for headers in served.headers]
    assert agents == [f"curate-vision/{web.__version__} (crawl@example.org)", f"curate-vision/{web.__version__}"]


@pytest.mark.parametrize(
    ("header", "manner", "directive"),
    [
        ("noai", {}, "noai"),
        ("noarchive, NoImageAI", {}, "noimageai"),
        ("none", {}, "none"),
        ("curate-vision: noindex", {}, "noindex"),
        ("me: noai", {"user_agent_token": "Me"}, "noai"),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noindex", {}, "noindex"),
        ("otherbot: noarchive, curate-vision: nofollow, noai", {}, "noai"),
        ("otherbot: noai", {}, None),
        ("curate-vision: nofollow, otherbot: noai", {}, None),
        ("nofollow, max-image-preview: none", {"disallowed": ("noai",)}, None),
        ("noai, none", {"disallowed": ()}, None),
        ("nosnippet", {"disallowed": ("nosnippet",)}, "nosnippet"),
    ],
)
def test_directives_of_servers_are_honored(header: str, manner: dict[str, Any], directive: str | None) -> None:
    read = one(Answer(b"x", headers={"X-Robots-Tag": header}), **manner)
    if directive is None:
        assert read._replace(reserved=None) == Read(b"x")
    else:
        told = Read(error=f"the server forbids it: X-Robots-Tag: {directive}", reject="unreadable")
        assert read._replace(reserved=None) == told


@pytest.mark.parametrize(
    ("headers", "disallowed", "reserved"),
    [
        ({"X-Robots-Tag": "noai"}, (), "X-Robots-Tag: noai"),
        ({"X-Robots-Tag": "noai"}, ("noai",), "X-Robots-Tag: noai"),
        ({"X-Robots-Tag": "otherbot: noai"}, (), None),
        ({"X-Robots-Tag": "noindex"}, (), None),
        ({"TDM-Reservation": "1"}, (), "TDM-Reservation: 1"),
        ({"TDM-Reservation": "0"}, (), None),
        (
            {"TDM-Reservation": "1", "TDM-Policy": "https://a:secret@example.org/p.json", "X-Robots-Tag": "noimageai"},
            (),
            "X-Robots-Tag: noimageai; TDM-Reservation: 1, policy https://***@example.org/p.json",
        ),
    ],
)
def test_what_a_server_reserves_is_noted_whatever_is_kept_out(
    headers: dict[str, str], disallowed: tuple[str, ...], reserved: str | None
) -> None:
    assert one(Answer(b"x", headers=headers), disallowed=disallowed).reserved == reserved


@pytest.mark.parametrize(
    ("answer", "reject", "detail"),
    [
        (Answer(status=404), "unreadable", "HTTP 404 Not Found"),
        (Answer(status=410), "unreadable", "HTTP 410 Gone"),
        (Answer(status=403), "unreadable", "HTTP 403 Forbidden"),
        (Answer(status=204), "unreadable", "HTTP 204 No Content"),
        (Answer(status=777), "unavailable", "HTTP 777"),
        (Answer(status=500), "unavailable", "HTTP 500 Internal Server Error"),
        (Answer(status=429), "unavailable", "HTTP 429 Too Many Requests"),
        (
            Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
            "unavailable",
            "connection broken off",
        ),
        (
            Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"),
            "unavailable",
            "connection broken off",
        ),
        (Answer(raw=b"SSH-2.0-x\r\n"), "unavailable", "an answer that is no HTTP (BadStatusLine)"),
        (Answer(raw=b""), "unavailable", "connection broken off"),
        (Answer(status=302, headers={"Location": "/a"}), "unreadable", "more than 10 redirects"),
        (
            Answer(status=301, headers={"Location": "file:///etc/passwd"}),
            "unreadable",
            "redirects to 'file:///etc/passwd', which is no http(s) URL",
        ),
        (Answer(b"x" * 20_000), "too_large", "20000 bytes, at most 10000 are read"),
        (
            Answer(raw=b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 200_000),
            "too_large",
            "more than 10000 bytes, at most 10000 are read",
        ),
        (
            Answer(b"\x1f\x8bno", headers={"Content-Encoding": "gzip"}),
            "unreadable",
            "its Content-Encoding does not decode",
        ),
    ],
)
def test_what_cannot_be_had_says_why_and_whether_it_may_pass(answer: Answer, reject: str, detail: str) -> None:
    with serving({"/a": answer}) as served:
        (read,) = fetch(served, "/a")
        assert (read.data, read.reject, read.error) == (None, reject, detail)
        times = 11 if "redirects" in detail and reject and answer.headers.get("Location") == "/a" else 1
        assert served.requests["/a"] == (4 if reject == "unavailable" else times)


def test_answer_that_unpacks_to_more_than_allowed_is_too_large() -> None:
    import gzip

    packed = gzip.compress(b"x" * 5_000_000)
    assert one(Answer(packed, headers={"Content-Encoding": "gzip"})).reject == "too_large"
    assert one(Answer(gzip.compress(b"x" * 9000), headers={"Content-Encoding": "gzip"})).data == b"x" * 9000


def test_passing_errors_pass() -> None:
    with serving(
        {
            "/a": lambda before: Answer(status=503) if before < 3 else Answer(b"a"),
            "/b": lambda before: (
                Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nb") if before < 2 else Answer(b"b")
            ),
        }
    ) as served:
        assert [read.data for read in fetch(served, "/a", "/b")] == [b"a", b"b"]
        assert served.requests == {"/a": 4, "/b": 3}


def test_redirects_lead_to_other_hosts_and_names_with_spaces_and_accents() -> None:
    with serving({"/%C3%BC%20b.jpg?x=1%7C2": b"there"}) as other:
        place = other.url.replace("127.0.0.1", "localhost") + "/ü b.jpg?x=1%7C2"
        location = place.encode().decode("latin-1")
        with serving({"/a": Answer(status=307, headers={"Location": location})}) as served:
            assert [read.data for read in fetch(served, "/a")] == [b"there"]
            (read,) = fetch_all([place], max_bytes=9, manner=manner())
            assert read.data == b"there"


def test_a_pause_that_a_server_asks_for_holds_for_its_other_pictures() -> None:
    asked: list[float] = []

    def answer(before: int) -> Answer:
        asked.append(time.monotonic())
        return Answer(status=429, headers={"Retry-After": "1"}) if len(asked) == 1 else Answer(b"x")

    with serving(dict.fromkeys([f"/{n}" for n in range(5)], answer)) as served:
        reads = fetch(served, *served.answers, connections_per_host=1)
    assert [read.data for read in reads] == [b"x"] * 5
    assert asked[1] - asked[0] >= 0.99


def test_too_long_a_pause_is_not_waited_for() -> None:
    with serving({"/a": Answer(status=503, headers={"Retry-After": "86400"})}) as served:
        (read,) = fetch(served, "/a")
        assert (read.reject, served.requests["/a"]) == ("unavailable", 1)


def test_answer_that_drips_or_hangs_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            while True:
                taken, _ = server.accept()
                threading.Thread(target=_drip, args=(taken,), daemon=True).start()

        threading.Thread(target=drip, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a"
        (read,) = fetch_all([url], max_bytes=10**6, manner=manner(picture=0.5))
        assert (read.reject, read.error) == ("unavailable", "timed out")
    with serving({"/a": Answer(b"x", seconds=1.5)}) as served:
        (read,) = fetch(served, "/a", stall=0.3)
        assert (read.reject, read.error) == ("unavailable", "timed out")
        deadline = time.monotonic() + 30
        while served.requests["/a"] < 2 and time.monotonic() < deadline:  # a busy server notes a request late
            time.sleep(0.01)
        assert served.requests["/a"] == 2


def _drip(taken: socket.socket) -> None:
    try:
        taken.sendall(b"HTTP/1.1 200 OK\r\nX-")
        while True:
            taken.sendall(b"a")
            time.sleep(0.01)
    except OSError:
        taken.close()


def test_host_that_cannot_be_reached_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse(*address: Any, **kwargs: Any) -> Any:
        tried.append(1)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    reads = list(fetch_all((f"http://127.0.0.1:9/{n}" for n in range(500)), max_bytes=9, manner=manner()))
    assert set(reads) == {Read(error="connection refused", reject="unavailable")}
    assert len(tried) < 2 * web.HOPELESS


def test_unknown_host_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*address: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    with serving({"/a": b"a"}) as served:
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        assert fetch(served, "/a")[0] == Read(error="name not resolved", reject="unavailable")
        assert not served.requests


def test_bytes_that_are_held_are_bounded_while_the_oldest_picture_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "BYTES_AHEAD", 100_000)
    monkeypatch.setattr(web, "BLOCK_BYTES", 10_000)
    answers: dict[str, Any] = {f"/{n}": b"x" * 50_000 for n in range(60)}
    answers["/0"] = Answer(b"first", seconds=0.3)
    with serving(answers) as served:
        reads = fetch_all(
            (served.url + path for path in answers), max_bytes=10**6, manner=manner(connections_per_host=8)
        )
        assert next(reads).data == b"first"
        assert served.requests.total() < 20
        assert sum(len(read.data or b"") for read in reads) == 59 * 50_000
        assert served.requests == dict.fromkeys(answers, 1)


def test_whoever_stops_taking_leaves_nothing_running() -> None:
    def fetching() -> Iterator[threading.Thread]:
        return (thread for thread in threading.enumerate() if thread.name == "fetch")

    with serving({f"/{n}": Answer(b"x", seconds=0.0 if n == 0 else 30.0) for n in range(20)}) as served:
        reads = fetch_all((served.url + path for path in served.answers), max_bytes=9, manner=manner())
        assert next(reads).data == b"x"
        reads.close()
        for thread in fetching():
            thread.join(5)
        assert not list(fetching())


def test_through_a_proxy_the_whole_url_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({"http://pictures.example:80/a.jpg": b"by proxy"}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:secret@"))
        monkeypatch.setenv("no_proxy", "")
        (read,) = fetch_all(["http://pictures.example/a.jpg"], max_bytes=99, manner=manner())
        assert read.data == b"by proxy"
        assert proxy.headers[0]["Host"] == "pictures.example:80"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a/b.jpg", True),
        ("HTTPS://a.example:8080?x", True),
        ("https://ä.example/ü b", True),
        ("http://[::1]/a", True),
        ("", False),
        ("a.jpg", False),
        ("/etc/passwd", False),
        ("file:///etc/passwd", False),
        ("data:image/png;base64,AAAA", False),
        ("s3://bucket/a.jpg", False),
        ("http:///a", False),
        ("http://a:99999/", False),
        ("http://[::1/", False),
        ("http://a/\nb", False),
        ("http://a b/", False),
        ("http://a/\ud83d", False),
    ],
)
def test_only_urls_of_the_web_are_asked(text: str, expected: bool) -> None:
    assert is_web_url(text) is expected
