from collections.abc import Generator, Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from curate.engine.store import Store
from curate.sources import objects
from curate.sources.objects import CHUNK_ROWS, Wanted, read_objects, remove_objects
from curate.sources.read import Read, too_large, unreadable
from curate.surroundings import surrounded

PART = 12


class Web:
    """Stands for servers: what it has, and what it was asked for."""

    def __init__(self, num: int = 3 * CHUNK_ROWS) -> None:
        self.pictures = {f"u{n}": Read(b"%05d" % n * 20) for n in range(num)}
        self.asked: list[str] = []

    def wanted(self, rows: Iterable[int] | None = None) -> list[Wanted]:
        return [Wanted(PART << 32 | n, f"u{n}") for n in (range(len(self.pictures)) if rows is None else rows)]

    def fetch(self, images: Iterable[Wanted]) -> Generator[Read]:
        for _, url in images:
            self.asked.append(url)
            yield self.pictures[url]

    def read(self, rows: Iterable[int] | None = None, *, max_bytes: int = 1000, policy: object = None) -> list[Read]:
        self.asked.clear()
        return list(read_objects(self.wanted(rows), "pool", self.fetch, max_bytes=max_bytes, policy=policy))

    def all(self) -> list[Read]:
        return list(self.pictures.values())


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def workdir(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "run")
    with surrounded(workdir=store):
        yield store


def chunks(store: Store) -> list[Path]:
    return sorted(Path(store.join("internal/objects")).rglob("*.parquet"))


def test_what_was_fetched_is_read_again_from_few_files(web: Web, workdir: Store) -> None:
    assert web.read() == web.all()
    assert web.asked == list(web.pictures)
    names = [str(path.relative_to(workdir.path)) for path in chunks(workdir)]
    assert names == [f"internal/objects/pool/part-00012/chunk-{n:06d}.parquet" for n in range(3)]
    assert web.read() == web.all()
    some = [0, 31, 32, 255, 256, 700, 767]
    assert web.read(some) == [web.all()[n] for n in some]
    assert web.asked == []


def test_without_a_workdir_everything_is_fetched(web: Web) -> None:
    assert web.read() == web.read() == web.all()
    assert web.asked == list(web.pictures)


def test_object_stores_keep_objects(web: Web) -> None:
    store = Store("memory://objects/run")
    try:
        with surrounded(workdir=store):
            assert web.read() == web.read() == web.all()
        assert web.asked == []
        assert len(store.fs.find("/objects/run/internal/objects")) == 3
    finally:
        fsspec.filesystem("memory").rm("/objects", recursive=True)


@pytest.mark.parametrize("taken", [1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS + 100])
def test_reading_that_was_broken_off_goes_on_behind_the_last_whole_chunk(web: Web, workdir: Store, taken: int) -> None:
    reads = read_objects(web.wanted(), "pool", web.fetch, max_bytes=1000)
    for _ in range(taken):
        next(reads)
    reads.close()
    assert not list(Path(workdir.path).rglob(".tmp-*"))
    assert web.read() == web.all()
    assert web.asked == list(web.pictures)[taken // CHUNK_ROWS * CHUNK_ROWS :]


def test_chunk_is_whole_when_its_last_image_is_handed_out(web: Web, workdir: Store) -> None:
    reads = read_objects(web.wanted(range(CHUNK_ROWS)), "pool", web.fetch, max_bytes=1000)
    for _ in range(CHUNK_ROWS):
        next(reads)
    assert len(chunks(workdir)) == 1


@pytest.mark.usefixtures("workdir")
def test_refusals_are_kept_and_what_may_pass_is_asked_again(web: Web) -> None:
    web.pictures["u3"] = unreadable("HTTP 404 Not Found")
    web.pictures["u300"] = web.pictures["u301"] = Read(error="timed out", reject="unavailable")
    assert web.read() == web.all()
    web.pictures["u300"] = Read(b"there again")
    assert web.read() == web.all()
    assert web.asked == ["u300", "u301"]
    assert web.read([3, 299, 300]) == [web.all()[n] for n in (3, 299, 300)]
    assert web.asked == []


@pytest.mark.usefixtures("workdir")
def test_limits_of_bytes_hold_for_what_is_kept(web: Web) -> None:
    web.pictures["u1"] = too_large(2000, 1000)
    assert web.read()[1] == too_large(2000, 1000)
    assert web.read([0, 1], max_bytes=99) == [too_large(100, 99), too_large(2000, 1000)]
    assert web.asked == ["u1"]
    web.pictures["u1"] = Read(b"x" * 2000)
    assert web.read(max_bytes=5000) == web.all()
    assert web.asked == ["u1"]


@pytest.mark.usefixtures("workdir")
def test_images_of_another_url_or_policy_are_fetched(web: Web) -> None:
    web.read(range(10), policy=["noai"])
    web.pictures["other"] = Read(b"other")
    wanted = web.wanted(range(10))
    wanted[4] = wanted[4]._replace(url="other")
    web.asked.clear()
    reads = list(read_objects(wanted, "pool", web.fetch, max_bytes=1000, policy=["noai"]))
    assert (web.asked, reads[4], reads[5]) == (["other"], Read(b"other"), web.all()[5])
    web.read(range(10), policy=[])
    assert len(web.asked) == 10


@pytest.mark.usefixtures("workdir")
def test_parts_of_a_chunk_that_are_read_at_different_times_come_together(web: Web) -> None:
    for rows in ([5, 7], [1, 6, 255], range(256)):
        assert web.read(rows) == [web.all()[n] for n in rows]
    assert web.asked == [f"u{n}" for n in range(256) if n not in (1, 5, 6, 7, 255)]
    web.read()
    assert web.asked == [f"u{n}" for n in range(256, 768)]


@pytest.mark.parametrize("damage", ["bytes", "cut", "empty"])
def test_damaged_chunk_is_fetched_again(web: Web, workdir: Store, damage: str) -> None:
    web.read()
    path = chunks(workdir)[1]
    whole = path.read_bytes()
    place = whole.index(b"00300" * 20)
    path.write_bytes({"bytes": whole.replace(b"00300", b"00399"), "cut": whole[:place], "empty": b""}[damage])
    assert web.read() == web.all()
    asked = list(web.asked)
    assert "u300" in asked
    assert set(asked) <= {f"u{n}" for n in range(256, 512)}
    assert web.read() == web.all()
    assert set(web.asked) <= {f"u{n}" for n in range(256, 300)}  # those that had been handed out before
    web.read()
    assert web.asked == []


def test_deleted_chunk_is_fetched_again(web: Web, workdir: Store) -> None:
    web.read()
    chunks(workdir)[2].unlink()
    assert web.read() == web.all()
    assert web.asked == [f"u{n}" for n in range(512, 768)]


def test_removed_images_leave_the_cache(web: Web, workdir: Store) -> None:
    web.read()
    data = [web.all()[n].data or b"" for n in (3, 300)]
    assert remove_objects(workdir, {sha256(one).digest() for one in [*data, b"not there"]}) == 2
    assert not any(one in path.read_bytes() for path in chunks(workdir) for one in data)
    web.read([2, 4, 299, 301, 600])
    assert web.asked == []
    web.read([3])
    assert web.asked == ["u3"]
    with surrounded(workdir=Store(f"{workdir.root}/none")):
        assert remove_objects(Store(f"{workdir.root}/none"), {b"x" * 32}) == 0


def test_chunks_hold_few_bytes_in_memory(web: Web, workdir: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "GROUP_BYTES", 1000)
    assert web.read() == web.read() == web.all()
    assert pq.read_metadata(chunks(workdir)[0]).num_row_groups == 26  # of ten pictures of 100 bytes
