import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.config import identity
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import SourceError, TooManyRejects, TooManyUnavailable
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.bundled import PHOTOS
from curate.sources import objects, web
from curate.sources.config import Source, Sources
from curate.sources.listing import list_source
from curate.sources.read import Read
from curate.sources.reading import is_loose, read_bytes, read_part
from curate.sources.urls import manner_of
from curate.surroundings import surrounded
from tests.sources.helpers import catalog, keys, source, write_files
from tests.sources.serving import Answer, Served, serving

ROOT = Path(__file__).parents[2]
KINDS = ("csv", "tsv", "jsonl", "ndjson", "parquet")


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
        pq.write_table(pa.table(columns), path, row_group_size=3)
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        written = io.StringIO()
        writer = csv.DictWriter(written, names, delimiter="," if path.suffix == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(written.getvalue())
    return path


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.random, "uniform", lambda low, high: 0.01)  # waits before further attempts
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def served() -> Iterator[Served]:
    with serving({f"/{n}.jpg": b"picture %d" % n for n in range(10)}) as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_table_are_pictures_with_captions(tmp_path: Path, served: Served, kind: str) -> None:
    rows = [{"caption": f"größe,\n{n}", "url": f"{served.url}/{n}.jpg"} for n in range(10)]
    table = write_table(tmp_path / f"t.{kind}", rows)
    made = source(table)
    found = list(list_source(made))
    assert [f.uri for f in found] == [row["url"] for row in rows]
    assert [(f.key, f.row) for f in found] == [(f"t.{kind}#{n}", n) for n in range(10)]
    assert not served.requests
    listed = catalog(found)
    assert not is_loose(listed, made)
    reads = list(read_part(listed.take([2, 3, 9]), made))
    assert [read.data for read in reads] == [b"picture 2", b"picture 3", b"picture 9"]
    assert [read.extra for read in reads] == [rows[n] for n in (2, 3, 9)]
    assert list(read_bytes(listed.take([5]), made)) == [Read(b"picture 5")]
    chosen = source(table, columns=["caption"])
    assert [read.extra for read in read_part(listed.take([4]), chosen)] == [{"caption": "größe,\n4"}]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_may_not_be_asked_for_are_rejected_one_by_one(tmp_path: Path, served: Served, kind: str) -> None:
    texts = [
        None,
        "file:///etc/passwd",
        "/etc/passwd",
        "data:image/png;base64,AAAA",
        "s3://b/a.jpg",
        "http://h/a.parquet",
    ]
    rows = [{"url": text, "caption": "c"} for text in [*texts, f"  {served.url}/1.jpg "]]
    made = source(write_table(tmp_path / f"t.{kind}", rows))
    listed = catalog(list_source(made))
    assert listed["uri"].to_pylist()[:6] == [f"#{n} of {tmp_path}/t.{kind}" for n in range(6)]
    reads = list(read_part(listed, made))
    assert [read.reject for read in reads] == ["unreadable"] * 6 + [None]
    assert reads[0].error == "the row has no URL"
    assert reads[1].error == "'file:///etc/passwd' is no http(s) URL of a picture"
    assert reads[6].data == b"picture 1"
    assert served.requests == {"/1.jpg": 1}
    for number in range(6):  # alone, the rows of a part tell what they are
        (read,) = read_bytes(listed.slice(number, 1), made)
        assert (read.data, read.reject) == (None, "unreadable")


def test_packed_table_is_refused_with_the_command_that_unpacks_it(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jsonl.gz": b"\x1f\x8b"})
    with pytest.raises(SourceError, match=r"a\.jsonl\.gz: a packed table; unpack it: gunzip -k /"):
        keys(tmp_path)


def test_values_and_records_that_cannot_be_read_cost_themselves(tmp_path: Path, served: Served) -> None:
    url = served.url.encode()
    (tmp_path / "a.csv").write_bytes(
        b"url,caption\n" + url + b"/1.jpg,caf\xe9\n\xff\xfe,c\n" + url + b'/2.jpg,"open\n' + url + b"/3.jpg,c\n"
    )
    half = '{"url": "U/4.jpg", "half": "\\ud83d", "deep": {"x": NaN}, "long": 1L}\n{"url": 7}\nnothing\n'
    half = half.replace("U", served.url).replace("L", "0" * 5000)
    (tmp_path / "b.jsonl").write_text(half)
    skipped: Counter[str] = Counter()
    made = source(tmp_path)
    listed = catalog(list_source(made, skipped=skipped))
    reads = list(read_part(listed, made))
    assert [read.data for read in reads] == [b"picture 1", None, b"picture 3", b"picture 4", None]
    assert (reads[0].extra, reads[0].left_out) == ({"url": f"{served.url}/1.jpg", "caption": None}, ("not_unicode",))
    kept = {"url": f"{served.url}/4.jpg", "half": None, "deep": {"x": None}, "long": None}
    assert (reads[3].extra, reads[3].left_out) == (kept, ("long_integer", "not_finite", "not_unicode"))
    assert skipped == {"table row that cannot be read": 2}


def test_parquet_text_that_is_no_utf8_costs_its_row(tmp_path: Path, served: Served) -> None:
    raw = pa.array([f"{served.url}/1.jpg".encode(), b"http://\xff/", f"{served.url}/2.jpg".encode()])
    broken = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"url": broken, "caption": ["a", "b", "c"]}), tmp_path / "t.parquet")
    made = source(tmp_path)
    reads = list(read_part(catalog(list_source(made)), made))
    assert [read.data for read in reads] == [b"picture 1", None, b"picture 2"]


def test_column_of_urls_is_named_or_known(tmp_path: Path) -> None:
    for kind in KINDS:
        laion = write_table(tmp_path / f"laion.{kind}", [{"URL": "http://a/1", "TEXT": "t"}])
        assert [f.uri for f in list_source(source(laion))] == ["http://a/1"]
        both = write_table(
            tmp_path / f"both.{kind}", [{"URL": "http://a/1", "url": "http://a/2", "link": "http://a/3"}]
        )
        assert [f.uri for f in list_source(source(both))] == ["http://a/2"]
        assert [f.uri for f in list_source(source(both, url_column="link"))] == ["http://a/3"]
    for kind in ("csv", "tsv"):
        with pytest.raises(SourceError, match=rf"laion\.{kind}: no column link of URLs; columns: URL, TEXT; say which"):
            list(list_source(source(tmp_path / f"laion.{kind}", url_column="link")))
    with pytest.raises(SourceError, match=r"laion\.parquet: no column link of URLs"):
        list(list_source(source(tmp_path / "laion.parquet", format="urls", url_column="link")))
    made = source(tmp_path / "laion.csv", columns=["size"])
    listed = catalog(list_source(made))
    with pytest.raises(SourceError, match="no column 'size' to carry; there are: URL, TEXT"):
        list(read_part(listed, made))


def test_what_a_source_holds_is_detected(tmp_path: Path) -> None:
    row = {"url": "http://a/1.jpg", "caption": "c"}
    jpeg = next(PHOTOS.rglob("*.jpg")).read_bytes()
    folder = tmp_path / "folder"
    write_files(folder, {"a.jpg": jpeg, "sub/b.jpg": jpeg})
    for name in ("metadata.csv", "metadata.jsonl", "sub/urls.tsv"):
        write_table(folder / name, [row])
    assert keys(folder) == ["a.jpg", "sub/b.jpg"]  # tables beside images describe them
    nameless = write_files(tmp_path / "nameless", {"1": jpeg, "2": jpeg})
    write_table(nameless / "0.csv", [row])
    assert keys(nameless) == ["1", "2"]
    images = tmp_path / "images"
    images.mkdir()
    pq.write_table(pa.table({"jpg": [jpeg], "url": ["http://a/1.jpg"]}), images / "a.parquet")
    write_table(images / "notes.csv", [row])
    assert [f.uri for f in list_source(source(images))] == [f"{images}/a.parquet"]
    tables = tmp_path / "tables"
    for kind in KINDS:
        write_table(tables / f"t.{kind}", [row])
    write_files(tables, {"LICENSE": b"none", "README.md": b"none"})
    assert keys(tables) == [f"t.{kind}#0" for kind in sorted(KINDS)]
    assert keys(tables / "*.csv") == ["t.csv#0"]
    many = tmp_path / "many"
    write_table(many / "a.parquet", [row])
    for number in range(10):
        write_files(many, {f"b/{number}": jpeg})
    with pytest.raises(SourceError, match=r"a\.parquet: a Parquet file among image files"):
        keys(many)  # nameless images decide
    (tmp_path / "list.txt").write_text("tables/t.tsv\ntables/t.parquet\n")
    assert keys(tmp_path / "list.txt") == ["tables/t.tsv#0", "tables/t.parquet#0"]
    write_files(tables, {"z.jpg": jpeg})
    with pytest.raises(SourceError, match=r"t\.parquet: a Parquet file among image files"):
        keys(tables)
    assert keys(tables, format="urls") == [f"t.{kind}#0" for kind in sorted(KINDS)]


@pytest.mark.parametrize("place", ["tables", "tables/*.csv", "list.txt"])
def test_captions_are_found_however_the_source_names_its_tables(tmp_path: Path, served: Served, place: str) -> None:
    for n in range(3):
        write_table(tmp_path / f"tables/{n}/t.csv", [{"url": f"{served.url}/{n}.jpg", "caption": str(n)}])
    if "*" in place:
        place = "tables/*/*.csv"
    (tmp_path / "list.txt").write_text("tables/2/t.csv\ntables/0\ntables/1/t.csv\n")
    made = source(tmp_path / place)
    listed = catalog(list_source(made))
    reads = list(read_part(listed, made))
    assert sorted((read.data, (read.extra or {})["caption"]) for read in reads) == [
        (b"picture %d" % n, str(n)) for n in range(3)
    ]


def test_table_that_changed_is_an_error_and_one_that_is_gone_is_not_needed_twice(
    tmp_path: Path, served: Served
) -> None:
    for kind in KINDS:
        rows = [{"url": f"{served.url}/{n}.jpg", "caption": "c"} for n in range(3)]
        made = source(write_table(tmp_path / f"t.{kind}", rows))
        listed = catalog(list_source(made))
        write_table(tmp_path / f"t.{kind}", rows[::-1])
        with pytest.raises(SourceError, match=r"row 0 is not the one that was listed, so the table changed"):
            list(read_part(listed, made))
        write_table(tmp_path / f"t.{kind}", rows[:1])
        with pytest.raises(SourceError, match="changed since it was listed|so the table changed"):
            list(read_part(listed, made))
        (tmp_path / f"t.{kind}").unlink()
        assert [read.data for read in read_bytes(listed, made)] == [b"picture %d" % n for n in range(3)]
        (tmp_path / "other.csv").write_text("url\n")
        folder = source(tmp_path, format="urls")
        with pytest.raises(
            SourceError, match=rf"no table t\.{kind} any more, so its captions and signatures cannot be read"
        ):
            list(read_part(listed, folder))


def test_settings_of_a_run_are_those_of_its_network() -> None:
    few = Sources.model_validate({"pool": "/a", "network": {"connections": 3, "connections_per_host": 1}})
    assert identity(few) == identity(Sources.model_validate({"pool": "/a"}))
    with few.network.used():
        manner = manner_of(source("/a", user_agent_token="me"))
    assert (manner.connections, manner.connections_per_host, manner.user_agent_token) == (3, 1, "me")
    assert manner_of(source("/a", private_addresses=False)) == web.Manner()


@pytest.mark.parametrize("token", ["two\nlines", 'quo"te', "(a)", "é", ""])
def test_token_that_would_break_a_header_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="user_agent_token"):
        Source(name="s", path="/a", user_agent_token=token)


# -- whole runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos() -> dict[str, bytes]:
    return {f"/{path.stem}.jpg": path.read_bytes() for path in sorted(PHOTOS.rglob("*.jpg"))[::9][:22]}


def run(tmp_path: Path, workdir: str, *more: str, recipe: str = "hierarchical", flags: Flags = Flags()) -> Store:  # noqa: B008
    sources = [
        f"sources.pool={{path: {tmp_path}/tables, private_addresses: true}}",
        f"workdir={tmp_path}/{workdir}",
        "executor.threads=1",
    ]
    small = ["copies.verify=false", "rows_per_part=16", "inspect.max_reject_fraction=1"]
    small += ["embed.model=luma24", "junk=null"] if recipe == "hierarchical" else []
    run_config(load_config(recipe, [*sources, *small, *more]), flags)
    return Store(tmp_path / workdir)


def write_tables(tmp_path: Path, server: Served, names: list[str]) -> None:
    rows = [{"url": server.url + name, "caption": f"caption of {name}"} for name in names]
    write_table(tmp_path / "tables/a.csv", rows[:10])
    write_table(tmp_path / "tables/b.jsonl", rows[10:25])
    write_table(tmp_path / "tables/c.parquet", rows[25:])


def test_run_asks_for_each_picture_once_and_again_for_none(tmp_path: Path, photos: dict[str, bytes]) -> None:
    answers: dict[str, Any] = dict(photos)
    answers["/moved.jpg"] = Answer(status=302, headers={"Location": "/to.jpg"})
    answers["/to.jpg"] = next(iter(photos.values()))
    answers["/noai.jpg"] = Answer(b"x", headers={"X-Robots-Tag": "noai"})
    answers["/page.jpg"] = Answer(b"<html>", headers={"Content-Type": "image/jpeg"})
    names = [*photos, "/moved.jpg", "/noai.jpg", "/page.jpg", "/gone.jpg"]
    with serving(answers) as server:
        write_tables(tmp_path, server, names)
        store = run(tmp_path, "one")
        assert server.requests == dict.fromkeys([*names, "/to.jpg"], 1)
        assert server.most_at_once <= web.CONNECTIONS_PER_HOST
        rejects = {
            place["uri"].removeprefix(server.url): f"{image['reject']}: {image['detail']}"
            for place, image in zip(
                store.table("catalog").read_all().to_pylist(), store.table("images").read_all().to_pylist(), strict=True
            )
            if image["reject"]
        }
        assert rejects.keys() == {"/noai.jpg", "/page.jpg", "/gone.jpg"}
        assert rejects["/noai.jpg"] == "unreadable: the server forbids it: X-Robots-Tag: noai"
        assert rejects["/gone.jpg"] == "unreadable: HTTP 404 Not Found"
        shards = pq.read_table(tmp_path / "one/shards/data").to_pylist()
        assert len(shards) > 10
        for row in shards:
            name = row["url"].removeprefix(server.url)
            assert row["caption"] == f"caption of {name}"
            assert row["image"]["bytes"] == answers["/to.jpg" if name == "/moved.jpg" else name]
        assert list(store.table("catalog").read_all()["key"].to_pylist()[9:11]) == ["a.csv#9", "b.jsonl#0"]
        run(tmp_path, "one", flags=Flags(rescan=True))
        run(tmp_path, "one", flags=Flags(rebuild=frozenset({"images", "shards/data"})))
        assert server.requests.total() == len(names) + 1

        one_each = "sources.network.connections_per_host=1"
        before = digests(store)
        again = run(tmp_path, "two", one_each)
        assert digests(again) == before
        assert server.requests.total() == 2 * (len(names) + 1)
        again.remove("internal/objects")
        run(tmp_path, "two", one_each, flags=Flags(rebuild=frozenset({"shards/data"})))
        assert digests(again) == before
        assert server.requests.total() == 2 * (len(names) + 1)  # the bytes are taken from the shards that are there
        again.remove("internal/objects")
        again.remove("shards/data")
        run(tmp_path, "two", one_each)
        assert digests(again) == before
        moved = sum(row["url"].endswith("/moved.jpg") for row in shards)
        assert server.requests.total() == 2 * (len(names) + 1) + len(shards) + moved
        again.remove("internal/objects")
        again.remove("shards/data")
        changed = next(row["url"].removeprefix(server.url) for row in shards if "moved" not in row["url"])
        server.answers[changed] = Answer(b"another picture")
        with pytest.raises(TooManyRejects, match=rf"1 selected image of {len(shards)} could not be read any more"):
            run(tmp_path, "two", one_each)


def digests(store: Store) -> dict[str, list[str]]:
    names = ["catalog", "images", "duplicates", "embeddings/curation", "selection", "shards/data"]
    tables = {name: store.table(name) for name in names if store.table(name).is_complete()}
    assert len(tables) >= 4
    return {name: [part.content for part in table.parts()] for name, table in tables.items()}


KILLED = """
import os, sys
from curate.engine.store import Store
from curate.sources import objects
from curate.sources.listing import list_source
from curate.sources.reading import read_part
from curate.sources.urls import manner_of
from curate.surroundings import surrounded
from tests.sources.helpers import catalog, source
objects.CHUNK_ROWS = 8
made = source(sys.argv[1])
with surrounded(workdir=Store(sys.argv[2])):
    for number, read in enumerate(read_part(catalog(list_source(made)), made)):
        if number == 20:
            os.kill(os.getpid(), 9)
"""


def test_killed_reading_goes_on_with_what_it_had_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = {f"/{n}.jpg": b"picture %d" % n for n in range(40)}
    with serving(pictures) as server:
        rows = [{"url": server.url + name} for name in pictures]
        made = source(write_table(tmp_path / "t.csv", rows))
        killed = [sys.executable, "-c", KILLED, made.path, str(tmp_path / "run")]
        assert subprocess.run(killed, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode == -9
        kept = sorted(path.name for path in (tmp_path / "run").rglob("chunk-*.parquet"))
        assert kept == ["chunk-000000.parquet", "chunk-000001.parquet"]  # the third was being filled
        monkeypatch.setattr(objects, "CHUNK_ROWS", 8)
        with surrounded(workdir=Store(tmp_path / "run")):
            reads = list(read_part(catalog(list_source(made)), made))
        assert [read.data for read in reads] == list(pictures.values())
        assert [server.requests[name] for name in list(pictures)[:16]] == [1] * 16
        assert max(server.requests.values()) <= 2


def test_next_run_asks_exactly_for_what_may_have_passed(tmp_path: Path, photos: dict[str, bytes]) -> None:
    answers: dict[str, Any] = dict(photos)
    busy = list(photos)[3:20:8]
    for name in busy:
        answers[name] = Answer(status=503)
    with serving(answers) as server:
        write_table(tmp_path / "tables/a.csv", [{"url": server.url + name} for name in photos])
        with pytest.raises(TooManyUnavailable, match=r"3 of 22 images .* 3 x HTTP 503 Service Unavailable"):
            run(tmp_path, "run", recipe="dedup")
        assert {server.requests[name] for name in busy} == {4}
        server.answers |= {name: Answer(photos[name]) for name in busy}
        server.requests.clear()
        store = run(tmp_path, "run", recipe="dedup")
        assert server.requests == dict.fromkeys(busy, 1)
        assert store.table("images").read_all()["reject"].null_count == 22
        assert digests(run(tmp_path, "other", recipe="dedup")) == digests(store)


def test_same_url_in_two_tables_is_known_to_a_later_scan(tmp_path: Path) -> None:
    photo = next(PHOTOS.rglob("*.jpg")).read_bytes()
    with serving({"/a.jpg": photo}) as server:
        for name in ("a", "b"):
            write_table(tmp_path / f"tables/{name}.csv", [{"url": f"{server.url}/a.jpg"}])
        store = run(tmp_path, "run", "write=null", recipe="dedup")
        assert store.table("catalog").num_rows() == 2
        write_table(tmp_path / "tables/c.csv", [{"url": f"{server.url}/a.jpg"}])
        run(tmp_path, "run", "write=null", recipe="dedup", flags=Flags(rescan=True))
        assert store.table("catalog").read_all()["key"].to_pylist() == ["a.csv#0", "b.csv#0", "c.csv#0"]
