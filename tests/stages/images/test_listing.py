"""Listing by tasks: whatever the groups, the order of tasks and the kills, the catalog is that of a plain listing."""

import logging
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.engine.executors import ExecutorConfig, InProcess, start_executor
from curate.engine.freshness import Flags
from curate.engine.image_ids import CatalogFigures
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.errors import SourceError, TableError
from curate.sources import containers, folders, listing
from curate.sources.config import Source, Sources
from curate.sources.left_out import LeftOut
from curate.sources.listing import list_source
from curate.stages.images import listed
from curate.stages.images.catalog import Catalog
from curate.stages.images.listed import choose_rows_per_part, pack_numbers, unpack_numbers
from tests.sources.helpers import catalog_rows, cut_found, write_files, write_tar

ROWS = 5
NONE = Flags()
PLUGINS = """
import zipfile
from pathlib import Path

from curate.sources.found import Found


class Zips:
    loose = False

    def find(self, source, *, skipped):
        for container in self.containers(source, skipped=skipped):
            yield from self.find_in(container, source, skipped=skipped)

    def read(self, rows, source, *, max_bytes, extra):
        yield from ()

    def containers(self, source, *, skipped):
        for number, path in enumerate(sorted(Path(source.path).glob("*.zip"))):
            yield [str(path), number]

    def find_in(self, container, source, *, skipped):
        path, number = container
        for row, member in enumerate(zipfile.ZipFile(path).infolist()):
            if member.filename.endswith(".jpg"):
                yield Found(path, f"{Path(path).name}/{member.filename}", row=row, container=number)
            else:
                skipped["no .jpg"] += 1


class Whole(Zips):
    containers = find_in = None
    pieces = Zips()

    def find(self, source, *, skipped):
        return self.pieces.find(source, skipped=skipped)
"""


def write_pool(root: Path) -> dict[str, Source]:
    """Sources of every kind, by name."""
    os.environ.setdefault("TZ", "UTC")
    tree = write_files(
        root / "tree",
        ["a.jpg", "a.txt", "a-b.jpg", "b/1.jpg", "b/2.png", "b/.h", "b/c/1.jpg", "b/c/alone.txt", "b.jpg", "x.csv"]
        + [f"many/{number}.jpg" for number in range(11)]
        + ["z/9.jpg", "z/9.jpg.json", ".hidden/1.jpg", "é/ü.jpg"],
    )
    names = ["many/3.jpg", "a.jpg", "b/c/1.jpg", "gone.jpg", "z/9.jpg"]
    (tree / "metadata.csv").write_text("file_name,text\n" + "".join(f"{name},of {name}\n" for name in names))
    (tree / "z/again").symlink_to(tree / "b")
    (tree / "z/loop").symlink_to(tree)
    (tree / "z/out.jpg").symlink_to(write_files(root / "elsewhere", ["o.jpg"]) / "o.jpg")
    with open(os.fsencode(tree) + b"/m\xff.jpg", "wb") as file:  # noqa: PTH123  # a name that is no text
        file.write(b"1")
    tars = root / "tars"
    (tars / "sub").mkdir(parents=True)
    for number, size in enumerate((3, 7, 0, 2, 6)):
        members = {f"{i}.jpg": b"x" * i for i in range(size)} | {"0.txt": b"caption", "lone.txt": b"", "a.pdf": b""}
        write_tar(tars / ("sub" if number == 3 else "") / f"{number}.tar", members)
    pq.write_table(pa.table({"key": ["0", "2"], "caption": ["a", "b"]}), tars / "1.parquet")
    write_files(tars, {"1_stats.json": b"{}", "notes.md": b"", "sub/alone.txt": b""})
    rows = root / "rows"
    rows.mkdir()
    for number, size in enumerate((4, 9, 1)):
        pictures = [{"bytes": b"1", "path": f"{i}.jpg"} for i in range(size)]
        labels = pa.array(range(size), pa.int64())
        features = {"info": {"features": {"label": {"_type": "ClassLabel", "names": [str(number % 2), "b"]}}}}
        table = pa.table({"image": pictures, "label": labels})
        named = table.replace_schema_metadata({"huggingface": str(features).replace("'", '"')})
        pq.write_table(named, rows / f"{number}.parquet")
    urls = root / "urls"
    urls.mkdir()
    for number, size in enumerate((4, 6)):
        pq.write_table(pa.table({"url": [f"http://h/{i}.jpg" for i in range(size)]}), urls / f"{number}.parquet")
    (urls / "2.csv").write_text("url,text\n" + "".join(f"http://h/c{i}.jpg,t\n" for i in range(3)))
    (root / "list.txt").write_text(
        "tree/a.jpg\ntree/many\nnowhere.jpg\nhttp://h/x.jpg\n/etc/passwd\ntree/b\ntree/b.jpg\n"
    )
    (root / "tars.txt").write_text("tars/4.tar\ntars/sub\ntars/0.tar\n")
    (root / "formats.py").write_text(PLUGINS)
    (root / "zips").mkdir()
    for number, size in enumerate((3, 8)):
        with zipfile.ZipFile(root / f"zips/{number}.zip", "w") as archive:
            for i in range(size):
                archive.writestr(f"{i}.jpg", b"1")
            archive.writestr("x.txt", b"")
    fs = fsspec.filesystem("memory")
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.relative_to(root).parts[0] in ("tars", "rows"):
            fs.pipe(f"/listing/{path.relative_to(root)}", path.read_bytes())
    fs.pipe({f"/listing/loose/{n % 3}/{n}.jpg": b"1" for n in range(9)} | {"/listing/loose/0/0.txt": b"t"})
    places = {
        "tree": {"path": f"{root}/tree"},
        "tars": {"path": f"{root}/tars"},
        "as-tar": {"path": f"{root}/tars", "format": "tar"},
        "rows": {"path": f"{root}/rows"},
        "as-parquet": {"path": f"{root}/rows", "format": "parquet"},
        "urls": {"path": f"{root}/urls"},
        "list": {"path": f"{root}/list.txt"},
        "tar-list": {"path": f"{root}/tars.txt"},
        "braces": {"path": f"{root}/tree/{{many,b}}"},
        "pattern": {"path": f"{root}/tree/*"},
        "one": {"path": f"{root}/tree/a.jpg"},
        "zips": {"path": f"{root}/zips", "format": f"{root}/formats.py:Zips"},
        "whole": {"path": f"{root}/zips", "format": f"{root}/formats.py:Whole"},
        "remote": {"path": "memory://listing/loose"},
        "remote-tars": {"path": "memory://listing/tars"},
        "remote-rows": {"path": "memory://listing/rows"},
    }
    return {name: Source(name=name, **fields) for name, fields in places.items()}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Source]]:
    yield write_pool(tmp_path_factory.mktemp("pool"))
    fsspec.filesystem("memory").rm("/listing", recursive=True)


@pytest.fixture(params=[1 << 14, 3], ids=["few groups", "groups of three"])
def group_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    files: int = request.param
    for module, name in ((listing, "GROUP_FILES"), (folders, "RUN_NAMES"), (containers, "LINES")):
        monkeypatch.setattr(module, name, files)
    return files


class Backwards(InProcess):
    """Tasks in another order."""

    def run(self, root: str, tasks: Any) -> Any:
        yield from super().run(root, list(reversed(tasks)))


def build(root: Path, *sources: Source, rows: Any = ROWS) -> Pipeline:
    p = Pipeline(Store(root), seed=0)
    p.add("catalog", Catalog(sources=Sources(pool=sources), rows_per_part=rows))
    return p


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "catalog").glob("part-*"))}


def plain(root: Path, *sources: Source) -> tuple[dict[str, bytes], list[tuple[str, str, int, str]]]:
    """The parts that a plain loop makes of the sources, and what it leaves out."""
    table, number, out = Store(root).table("catalog"), 0, []
    for source in sources:
        skipped = LeftOut()
        for found in cut_found(list_source(source, skipped=skipped), ROWS):
            rows = catalog_rows(number, "pool", source, found)
            table.commit(number, rows.schema, rows.to_batches())
            number += 1
        out += [(source.name, reason, n, skipped.example.get(reason, "")) for reason, n in sorted(skipped.items())]
    return contents(root), out


def left_out(root: Path) -> list[tuple[str, str, int, str]]:
    found = CatalogFigures.of(Store(root).table("catalog")).left_out
    return [(one.source, one.reason, one.count, one.example) for one in found]


@pytest.mark.usefixtures("group_files")
def test_every_kind_of_source_is_listed_as_by_a_plain_loop(tmp_path: Path, pool: dict[str, Source]) -> None:
    parts, out = plain(tmp_path / "plain", *pool.values())
    build(tmp_path / "run", *pool.values()).run(Backwards(1), NONE)
    assert contents(tmp_path / "run") == parts
    assert left_out(tmp_path / "run") == out
    assert {reason for _, reason, _, _ in out} >= {
        "hidden folder",
        "link to a folder around it",
        "another link to the same folder",
        "row of a table of descriptions without an image",
        "image without a row in its table of descriptions",
        "description without an image",
        "path or link that leads out of the source and of its `roots`",
        "no .jpg",
    }
    assert not [path for path in (tmp_path / "run/catalog").iterdir() if path.is_dir()]


def test_a_tree_is_listed_in_the_bytewise_order_of_its_paths(tmp_path: Path, pool: dict[str, Source]) -> None:
    build(tmp_path, pool["tree"]).run(InProcess(1), NONE)
    keys = [key for rows in Store(tmp_path).table("catalog").scan(["key"]) for key in rows["key"].to_pylist()]
    root = os.fsencode(pool["tree"].path)
    raw = [key.encode().replace(b"\\xff", b"\xff") for key in keys]
    assert raw == sorted(raw)
    assert len(keys) == 23
    assert all(os.path.isfile(os.path.join(root, key)) for key in raw)  # noqa: PTH113, PTH118


def test_dask_workers_make_the_same_catalog(tmp_path: Path, pool: dict[str, Source]) -> None:
    local = [source for source in pool.values() if not source.path.startswith("memory")]
    with start_executor(ExecutorConfig(kind="local", workers=2, threads=1)) as executor:
        build(tmp_path / "dask", *local).run(executor, NONE)
    build(tmp_path / "one", *local).run(InProcess(1), NONE)
    assert contents(tmp_path / "dask") == contents(tmp_path / "one")


class Killed(BaseException):
    pass


class Fragile(InProcess):
    """Dies after a number of tasks; remembers what it did."""

    left = 0

    def __init__(self) -> None:
        super().__init__(1)
        self.done: list[str] = []

    def run(self, root: str, tasks: Any) -> Any:
        for task in tasks:
            if self.left == 0:
                raise Killed
            self.left -= 1
            self.done.append(task.phase)
            yield from super().run(root, [task])


def test_a_killed_listing_goes_on_and_nothing_is_listed_twice(
    tmp_path: Path, pool: dict[str, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "GROUP_FILES", 4)
    monkeypatch.setattr(folders, "RUN_NAMES", 4)
    sources = [pool[name] for name in ("tree", "tars", "rows", "zips")]
    whole = Fragile()
    whole.left = 1000
    build(tmp_path / "whole", *sources).run(whole, NONE)
    executor, attempts = Fragile(), 0
    while True:
        executor.left, attempts = 2, attempts + 1
        try:
            build(tmp_path / "killed", *sources).run(executor, NONE)
            break
        except Killed:
            continue
    assert attempts > 8
    assert sorted(executor.done) == sorted(whole.done)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert left_out(tmp_path / "killed") == left_out(tmp_path / "whole")


def test_what_changed_after_a_kill_is_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "GROUP_FILES", 1)
    for number in range(4):
        (tmp_path / "pool").mkdir(exist_ok=True)
        write_tar(tmp_path / f"pool/{number}.tar", {"1.jpg": b"1"})
    source = Source(name="p", path=str(tmp_path / "pool"))
    executor = Fragile()
    executor.left = 3
    with pytest.raises(Killed):
        build(tmp_path / "run", source).run(executor, NONE)
    write_tar(tmp_path / "pool/1.tar", {"1.jpg": b"1", "2.jpg": b"2"})
    os.utime(tmp_path / "pool", ns=(0, os.stat(tmp_path / "pool").st_mtime_ns))  # noqa: PTH116
    executor.left = 100
    executor.done.clear()
    build(tmp_path / "run", source).run(executor, NONE)
    assert executor.done.count("list") == 2  # the one that changed, and the one that was not reached
    assert contents(tmp_path / "run") == plain(tmp_path / "plain", source)[0]


@pytest.mark.usefixtures("group_files")
def test_a_rescan_appends_what_is_new_and_tells_what_changed_and_vanished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed, "ROWS_HELD", 2)
    pool = write_pool(tmp_path)
    names = ("tree", "tars", "rows", "urls", "list", "braces", "zips", "whole")
    sources = [pool[name] for name in names]
    root = tmp_path / "run"
    build(root, *sources).run(InProcess(1), NONE)
    before = contents(root)
    assert build(root, *sources).run(Backwards(1), Flags(rescan=True)) == []
    assert contents(root) == before
    assert "since they were listed" not in caplog.text

    write_files(tmp_path / "tree", {"many/3.jpg": b"longer than before", "many/35.jpg": b"1", "c/new.jpg": b"2"})
    (tmp_path / "tree/many/4.jpg").unlink()
    write_tar(tmp_path / "tars/1.tar", {f"{i}.jpg": b"x" * i for i in range(9)})  # two more, seven of another time
    (tmp_path / "tars/4.tar").unlink()
    write_tar(tmp_path / "tars/5.tar", {"1.jpg": b"1"})
    pictures = [{"bytes": b"1", "path": f"n{i}.jpg"} for i in range(2)]
    pq.write_table(pa.table({"image": pictures}), tmp_path / "rows/9.parquet")
    with (tmp_path / "urls/2.csv").open("a") as file:
        file.write("http://h/new.jpg,t\n")
    with (tmp_path / "list.txt").open("a") as file:
        file.write("elsewhere/o.jpg\n")
    with zipfile.ZipFile(tmp_path / "zips/2.zip", "w") as archive:
        archive.writestr("0.jpg", b"1")
    with caplog.at_level(logging.WARNING):
        assert build(root, *sources).run(Backwards(1), Flags(rescan=True)) == ["catalog"]
    after = contents(root)
    assert {name: after[name] for name in before} == before
    rows = Store(root).table("catalog").read_all().to_pylist()
    new = [(row["source"], row["key"]) for row in rows if f"part-{row['image_id'] >> 32:05d}.parquet" not in before]
    assert new == [
        *[("tree", key) for key in ("c/new.jpg", "many/35.jpg")],
        *[("tars", key) for key in ("1.tar/7.jpg", "1.tar/8.jpg", "5.tar/1.jpg")],
        *[("rows", key) for key in ("9.parquet/n0.jpg", "9.parquet/n1.jpg")],
        ("urls", "2.csv#3"),
        *[("list", key) for key in ("tree/many/35.jpg", "elsewhere/o.jpg")],
        ("braces", "many/35.jpg"),
        ("zips", "2.zip/0.jpg"),
        ("whole", "2.zip/0.jpg"),
    ]
    told = {
        record.args[0]: record.args[1:]  # type: ignore[index]
        for record in caplog.records
        if "since they were listed" in record.getMessage()
    }
    assert told == {
        "tree": (1, 1),
        "tars": (7, 6),
        "urls": (3, 0),
        "list": (1, 1),
        "braces": (1, 1),
    }
    figures = CatalogFigures.of(Store(root).table("catalog"))
    assert sum(figures.part_rows) == len(rows)
    assert [size <= ROWS for size in figures.part_rows] == [True] * len(after)


def test_a_killed_rescan_goes_on(tmp_path: Path) -> None:
    pool = write_pool(tmp_path)
    sources = [pool[name] for name in ("tree", "tars", "zips")]
    for name in ("whole", "killed"):
        build(tmp_path / name, *sources).run(InProcess(1), NONE)
    write_files(tmp_path / "tree", ["c/new.jpg"])
    write_tar(tmp_path / "tars/5.tar", {"1.jpg": b"1"})
    build(tmp_path / "whole", *sources).run(InProcess(1), Flags(rescan=True))
    executor = Fragile()
    while True:
        executor.left = 1
        try:
            build(tmp_path / "killed", *sources).run(executor, Flags(rescan=True))
            break
        except Killed:
            assert Store(tmp_path / "killed").table("catalog").is_complete()  # what is there stays usable
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_lost_parts_are_listed_again_and_no_others(tmp_path: Path, pool: dict[str, Source]) -> None:
    sources = [pool[name] for name in ("tree", "tars")]
    build(tmp_path, *sources).run(InProcess(1), NONE)
    before = contents(tmp_path)
    for number in (0, 5):
        (tmp_path / f"catalog/part-{number:05d}.parquet").unlink()
    executor = Fragile()
    executor.left = 100
    assert build(tmp_path, *sources).run(executor, NONE) == []
    assert executor.done.count("run") == 2
    assert contents(tmp_path) == before


def test_a_source_that_is_gone_costs_nothing(tmp_path: Path) -> None:
    pool = write_pool(tmp_path)
    sources = [pool[name] for name in ("tree", "rows")]
    root = tmp_path / "run"
    build(root, *sources).run(InProcess(1), NONE)
    before = contents(root)
    for path in (tmp_path / "rows").iterdir():
        path.unlink()
    for flags in (Flags(rescan=True), Flags(rebuild=frozenset({"catalog"}))):
        with pytest.raises(SourceError, match="rows: no image was found"):
            build(root, *sources).run(InProcess(1), flags)
        assert contents(root) == before
        assert Store(root).table("catalog").is_complete()
    (root / sorted(f"catalog/{name}" for name in before)[-1]).unlink()
    with pytest.raises(TableError, match="damaged or gone, and its source is not what it was"):
        build(root, *sources).run(InProcess(1), NONE)


def test_a_mixture_is_refused_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "GROUP_FILES", 1)
    write_files(tmp_path / "pool", [f"{number}.jpg" for number in range(5)])
    write_tar(tmp_path / "pool/x.tar", {"1.jpg": b"1"})
    with pytest.raises(SourceError, match=r"x\.tar: a tar archive among image files; say which to read"):
        build(tmp_path / "run", Source(name="p", path=str(tmp_path / "pool"))).run(InProcess(1), NONE)


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path / "pool", ["a.pdf", ".b.jpg"])
    with pytest.raises(SourceError, match=r"no image was found .*left out: 1 x hidden file, 1 x other file \(\.pdf\)"):
        build(tmp_path / "run", Source(name="p", path=str(tmp_path / "pool"))).run(InProcess(1), NONE)


@pytest.mark.parametrize("kind", ["tree", "tars"])
def test_the_driver_holds_containers_and_no_images(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups are as large for ten times as many images, and what tasks tell of them too."""

    def sizes(images: int) -> tuple[int, int]:
        root = tmp_path / str(images)
        if kind == "tree":
            write_files(root, [f"{folder}/{number:05d}.jpg" for folder in range(3) for number in range(images)])
        else:
            root.mkdir()
            for number in range(3):
                write_tar(root / f"{number}.tar", {f"{image:05d}.jpg": b"" for image in range(images)})
        stage, told = Catalog(sources=Sources(pool=(Source(name="p", path=str(root)),))), []
        groups = [text for text, _ in stage.find_groups()]
        assert (
            sum(batch.num_rows for group in groups for batch in stage.list_group(group, None, told.append))
            == 3 * images
        )
        return sum(map(len, groups)), sum(map(len, told))

    monkeypatch.setattr(listing, "GROUP_FILES", 1 << 14)
    few, many = sizes(30), sizes(300)
    assert many[0] - few[0] < 30
    assert many[1] - few[1] < 30


def test_names_of_a_folder_are_not_held_while_it_is_gone_through(tmp_path: Path) -> None:
    """A run of a huge folder is two names, whatever lies between."""
    write_files(tmp_path, [f"{number:06d}.jpg" for number in range(2000)] + ["sub/1.jpg"])
    runs = folders.walk(os.fsencode(tmp_path), b"", folders.Listing(LeftOut(), None, containers.Roots([b"/"])))
    first = next(runs)
    assert (first.after, first.upto, first.names) == ("", "sub/", 2000)
    held = runs.gi_frame.f_locals["stack"]  # type: ignore[attr-defined]
    assert [list(folder.steps) for folder in held] == [[(b"sub", False)]]


def test_parts_are_chosen_by_the_number_of_images_alone() -> None:
    chosen = [choose_rows_per_part(n) for n in (1, 2000, 10_000, 1_000_000, 1_300_000_000)]
    assert chosen == [256, 256, 512, 32_768, 65_536]
    for images in (10_000, 12_345, 100_000, 999_999):
        assert 16 <= -(-images // choose_rows_per_part(images)) <= 32
    assert choose_rows_per_part(10_000, {"parquet", "folder"}) == 2048


def test_chosen_parts_are_kept_by_a_rescan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed, "FEWEST_ROWS", 4)
    source = Source(name="p", path=str(write_files(tmp_path / "pool", [f"{n:02d}.jpg" for n in range(10)])))
    build(tmp_path / "run", source, rows="auto").run(InProcess(1), NONE)
    write_files(tmp_path / "pool", [f"{n:04d}.jpg" for n in range(150)])
    build(tmp_path / "run", source, rows="auto").run(InProcess(1), Flags(rescan=True))
    manifest = Store(tmp_path / "run").table("catalog").complete_manifest()
    assert (manifest.config["rows_per_part"], manifest.resolved["rows_per_part"]) == ("auto", 4)
    assert {part["rows"] for part in manifest.parts} == {4, 2}
    assert choose_rows_per_part(160) == 8


def test_numbers_of_rows_come_back(tmp_path: Path) -> None:
    numbers = pa.array([0, 3, 4, 1_000_000]).to_numpy()
    assert unpack_numbers(pack_numbers(numbers)).tolist() == numbers.tolist()
    assert unpack_numbers(pack_numbers(numbers[:0])).tolist() == []
