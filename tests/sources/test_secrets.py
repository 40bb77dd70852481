"""Users, passwords and signatures of URLs: needed to ask for a picture, and stored nowhere."""

import logging
import shutil
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import SourceError
from curate.recipe import load_config
from curate.report.explain import explain
from curate.running import run_config
from curate.samples.bundled import PHOTOS
from curate.sources.config import Source
from curate.sources.listing import list_source
from curate.sources.network import Network
from curate.sources.reading import read_part
from curate.sources.secrets import Secrets, strip_secrets, strip_text, strip_values
from curate.workdir import open_tables
from tests.sources.helpers import catalog, source, write_tar
from tests.sources.serving import Answer, Served, serving

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("https://h/a.jpg", None),
        ("https://h/a.jpg?w=100&fit=crop&v=2", None),
        ("https://h/a.jpg?expires=never", None),
        ("https://h/a%20b.jpg?x=1#frag", None),
        ("https://h/@user/a.jpg", None),
        ("https://me:s3cr3t@h/a.jpg", "https://***@h/a.jpg"),
        ("https://s3cr3t@h:80/a.jpg?w=1", "https://***@h:80/a.jpg?w=1"),
        ("abfs://container@account.dfs.core.windows.net/a.jpg", None),
        ("abfss://me:s3cr3t@account/a.jpg", "abfss://***@account/a.jpg"),
        ("s3://AKIA:s3cr3t@bucket/a.tar", "s3://***@bucket/a.tar"),
        (
            "https://b.s3.amazonaws.com/a.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=s3cr3t%2F2026&"
            "X-Amz-Date=20260101T000000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=s3cr3t&"
            "X-Amz-Security-Token=s3cr3t",
            "https://b.s3.amazonaws.com/a.jpg?***",
        ),
        ("https://h/a.jpg?AWSAccessKeyId=s3cr3t&Expires=17&Signature=s3cr3t", "https://h/a.jpg?***"),
        ("https://h/a.jpg?w=9&Expires=1&Signature=s3cr3t&Key-Pair-Id=s3cr3t&Policy=s3cr3t", "https://h/a.jpg?w=9&***"),
        ("https://h/c/a.jpg?sv=2024&sr=b&se=2026&sp=r&sig=s3cr3t&w=5", "https://h/c/a.jpg?w=5&***"),
        ("https://h/a.jpg?X-Goog-Signature=s3cr3t&X-Goog-Credential=s3cr3t", "https://h/a.jpg?***"),
        ("https://h/a.jpg?GoogleAccessId=s3cr3t&Expires=1&Signature=s3cr3t", "https://h/a.jpg?***"),
        ("https://h/a.jpg?id=4&access_token=s3cr3t", "https://h/a.jpg?id=4&***"),
        ("https://h/a.jpg?TOKEN=s3cr3t", "https://h/a.jpg?***"),
        ("https://h/a.jpg?to%6Ben=s3cr3t", "https://h/a.jpg?***"),
        ("https://h/a.jpg?w=1;token=s3cr3t", "https://h/a.jpg?w=1;***"),
        ("https://h/a.jpg?api_key=s3cr3t&user=me", "https://h/a.jpg?***"),
        ("https://h/a.jpg#access_token=s3cr3t", "https://h/a.jpg#***"),
        ("https://cdn.discordapp.com/a.png?ex=6&is=6&hm=s3cr3t&", "https://cdn.discordapp.com/a.png?&***"),
        ("https://h/m?key=AIzaSyA1234567890123456789012345678901s&q=x", "https://h/m?q=x&***"),
    ],
)
def test_what_lets_one_in_is_taken_off_and_nothing_else(url: str, stored: str | None) -> None:
    assert strip_secrets(url) == (stored or url)
    assert strip_secrets(strip_secrets(url)) == strip_secrets(url)
    assert SECRET not in strip_secrets(url)


PARTS = st.lists(st.tuples(st.sampled_from(["w", "token", "X-Amz-Date", "sig", "se", "q"]), st.integers(0, 99)))


@given(PARTS, st.booleans())
@example([], True)
def test_stripping_twice_is_stripping_once_and_no_secret_value_stays(parts: list[tuple[str, int]], user: bool) -> None:
    url = f"https://{'me:pw@' * user}h/a.jpg?" + "&".join(f"{name}=v{value}" for name, value in parts)
    stored = strip_secrets(url, line=7)
    assert strip_secrets(stored, line=7) == stored
    assert "pw" not in stored
    assert not {"token", "X-Amz-Date", "sig"} & {
        field.partition("=")[0] for field in stored.partition("?")[2].split("&")
    }
    assert [f for f in stored.partition("?")[2].split("&") if f.startswith(("w=", "q="))] == [
        f"{name}=v{value}" for name, value in parts if name in "wq"
    ]


def test_text_and_values_lose_the_secrets_of_their_urls_alone() -> None:
    text = "see https://me:s3cr3t@h/a?sig=s3cr3t and <http://h/b?token=s3cr3t>, price: 3://4, me@h"
    assert strip_text(text) == "see https://***@h/a?*** and <http://h/b?***>, price: 3://4, me@h"
    value = {"u": ["http://h/?token=s3cr3t"], "n": 4, "none": None, "http://h/?sig=s3cr3t": "x"}
    assert strip_values(value) == {"u": ["http://h/?***"], "n": 4, "none": None, "http://h/?***": "x"}


def test_lines_are_read_again_once_for_many() -> None:
    readings = []

    def lines() -> list[str]:
        readings.append(1)
        return [f"http://h/{n}?token={n}" for n in range(40_000)]

    secrets = Secrets(lines)
    for number in [*range(1, 40_001, 97), 40_000]:
        stored = strip_secrets(f"http://h/{number - 1}?token={number - 1}", line=number)
        assert secrets.whole(stored) == f"http://h/{number - 1}?token={number - 1}"
    assert len(readings) == 3
    assert secrets.whole("http://h/8?***8") is None  # line 8 names another picture
    assert secrets.whole("http://h/8?***99999") is None
    assert secrets.whole("http://h/8") == "http://h/8"


@pytest.mark.parametrize("path", ["https://h/a.tar?X-Amz-Signature=s3cr3t", "https://h/list.txt?token=s3cr3t"])
def test_path_with_a_signature_is_refused_with_a_way_out(path: str) -> None:
    with pytest.raises(ValueError, match=r"a URL with a signature or token, .* write it into a list"):
        Source(name="s", path=path)


# -- reading -----------------------------------------------------------------------------------------------------------


def signed(served: Served, number: int, signature: str = SECRET) -> str:
    return f"{served.url}/{number}.jpg?X-Amz-Signature={signature}{number}&w={number}"


def answers(signature: str = SECRET) -> dict[str, bytes]:
    return {f"/{n}.jpg?X-Amz-Signature={signature}{n}&w={n}": b"picture %d" % n for n in range(4)}


def test_row_of_a_table_is_asked_for_with_its_secrets_and_stored_without(tmp_path: Path) -> None:
    with serving(answers() | {"/p.jpg": b"by password"}) as served:
        urls = [*(signed(served, n) for n in range(4)), served.url.replace("//", f"//me:{SECRET}@") + "/p.jpg"]
        rows = "".join(f"{url},see {url}\n" for url in urls)
        (tmp_path / "t.csv").write_text(f"url,caption\n{rows}")
        made = source(tmp_path / "t.csv")
        listing = catalog(list_source(made))
        assert listing["uri"].to_pylist()[2:] == [
            f"{served.url}/2.jpg?w=2&***",
            f"{served.url}/3.jpg?w=3&***",
            served.url.replace("//", "//***@") + "/p.jpg",
        ]
        reads = list(read_part(listing, made))
        assert [read.data for read in reads] == [*(b"picture %d" % n for n in range(4)), b"by password"]
        logins = [headers["Authorization"] for headers in served.headers if "Authorization" in headers]
        assert logins == [f"Basic {b64encode(f'me:{SECRET}'.encode()).decode()}"]
        assert SECRET not in str(listing.to_pylist()) + str([read._replace(data=None) for read in reads])
        assert reads[1].extra == {"url": f"{served.url}/1.jpg?w=1&***", "caption": f"see {served.url}/1.jpg?w=1&***"}
        assert {read.left_out for read in reads} == {("secret",)}


def test_table_with_fresh_signatures_is_the_same_and_another_one_is_not(tmp_path: Path) -> None:
    with serving(answers("new")) as served:
        path = tmp_path / "t.csv"
        path.write_text("url\n" + "".join(signed(served, n) + "\n" for n in range(4)))
        made = source(path)
        listing = catalog(list_source(made))
        assert [read.reject for read in read_part(listing, made)] == [
            "unreadable"
        ] * 4  # 404: the old signature is over
        path.write_text("url\n" + "".join(signed(served, n, "new") + "\n" for n in range(4)))
        assert [read.data for read in read_part(listing, made)] == [b"picture %d" % n for n in range(4)]
        path.write_text("url\n" + "".join(signed(served, 3 - n, "new") + "\n" for n in range(4)))
        with pytest.raises(SourceError, match="is not the one that was listed, so the table changed"):
            list(read_part(listing, made))


def test_line_of_a_list_is_asked_for_with_its_secrets_and_stored_without(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    tokens = {f"/a.jpg?token={SECRET}{n}": b"picture %d" % n for n in range(3)}
    with serving(tokens) as served:
        path = tmp_path / "list.txt"
        lines = [f"{served.url}{name}" for name in tokens]  # alike but for their tokens
        path.write_text("\n\n".join(lines))
        made = source(path)
        listing = catalog(list_source(made))
        assert listing["uri"].to_pylist() == [f"{served.url}/a.jpg?***{n}" for n in (1, 2, 3)]
        assert listing["key"].to_pylist() == listing["uri"].to_pylist()
        reads = list(read_part(listing.slice(1), made))
        assert [read.data for read in reads] == [b"picture 1", b"picture 2"]
        assert SECRET not in str(listing.to_pylist())
        path.write_text("\n".join([f"{served.url}/b.jpg?token=1", *lines]))
        with pytest.raises(SourceError, match=r"has another line now where .*a\.jpg\?\*\*\*1 stood"):
            list(read_part(listing, made))


def test_what_fails_at_a_signed_url_is_told_without_the_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("aiohttp")
    names = {f"/busy.jpg?token={SECRET}": Answer(status=503), f"/gone.jpg?sig={SECRET}": Answer(status=404)}
    names[f"/away.jpg?sig={SECRET}"] = Answer(status=302, headers={"Location": f"ftp://h/?token={SECRET}"})
    with serving(names) as served, Network(first_wait=0).used(), caplog.at_level(logging.DEBUG, "curate"):
        urls = [f"{served.url}{name}" for name in names]
        urls += [f"sftp://me:{SECRET}@h/a.jpg", f"{served.url}/a::b.jpg?token={SECRET}", f"nosuch://h/a?token={SECRET}"]
        (tmp_path / "list.txt").write_text("\n".join(urls))
        (tmp_path / "t.csv").write_text("url\n" + "\n".join(urls))
        for name in ("list.txt", "t.csv"):
            made = source(tmp_path / name)
            reads = list(read_part(catalog(list_source(made)), made))
            assert [read.reject for read in reads] == ["unavailable", *["unreadable"] * 5]
            assert SECRET not in str(reads) + caplog.text
    assert "HTTP 503 Service Unavailable; attempt 1 of 4" in caplog.text


def test_archive_at_a_signed_url_is_listed_and_read(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    data = write_tar(tmp_path / "a.tar", {"x.jpg": b"one", "y.jpg": b"two"}).read_bytes()
    with serving({f"/a.tar?sig={SECRET}&sv=1": Answer(data)}) as served:
        (tmp_path / "list.txt").write_text(f"{served.url}/a.tar?sig={SECRET}&sv=1\n")
        made = source(tmp_path / "list.txt")
        listing = catalog(list_source(made))
        assert listing["key"].to_pylist() == [f"{served.url}/a.tar?***1/{name}.jpg" for name in "xy"]
        assert [read.data for read in read_part(listing, made)] == [b"one", b"two"]
        assert SECRET not in str(listing.to_pylist())


def test_no_file_of_a_run_holds_a_secret_and_a_signed_url_takes_its_picture_down(tmp_path: Path) -> None:
    photos = sorted(PHOTOS.rglob("*.jpg"))[:24:4]
    served_at = {f"/{n}.jpg?X-Amz-Signature={SECRET}&n={n}": path.read_bytes() for n, path in enumerate(photos)}
    served_at |= {f"/gone.jpg?token={SECRET}": b"<html>"}  # type: ignore[dict-item]
    with serving(served_at) as served:
        urls = [f"{served.url}{name}" for name in served_at]
        (tmp_path / "t.csv").write_text("url,note\n" + "".join(f"{url},from {url}\n" for url in urls))
        pool = f"sources.pool={{path: {tmp_path}/t.csv, private_addresses: true}}"
        small = ["copies.verify=false", "inspect.max_reject_fraction=1", "executor.threads=1"]
        given = [pool, f"workdir={tmp_path}/run", *small]
        run_config(load_config("dedup", given), Flags())
        removal = tmp_path / "removal.txt"
        removal.write_text(urls[0].replace(SECRET, "another-signature") + "\n")
        shutil.rmtree(tmp_path / "run/internal/objects")  # so that the others are asked for again
        run_config(
            load_config("dedup", [*given, f"write.removal_list={removal}"]), Flags(rebuild=frozenset({"shards/data"}))
        )
    store = Store(tmp_path / "run")
    assert store.table("catalog").num_rows() == len(urls)
    assert store.table("shards/data").num_rows() == len(photos) - 1
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert SECRET.encode() not in data, path
            assert b"another-signature" not in data, path
    story = explain(open_tables(store), urls[1])
    assert "kept" in story
    assert SECRET not in story
