"""Formats of sources: the built-in ones keep the contract, and a format in a file of one's own is run by it."""

import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.config import parse
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.bundled import PHOTOS
from curate.sources.config import Sources
from curate.sources.formats import BUILTIN, find_format
from curate.sources.found import Found
from curate.sources.listing import list_source
from curate.sources.reading import is_loose, read_part
from tests.sources.helpers import catalog, source, write_files, write_tar

ZIPS = '''
import zipfile

from curate.sources.found import Found
from curate.sources.read import Read


class Zips:
    """Images in a zip archive; its comments are their captions."""

    loose = False

    def find(self, source, *, skipped):
        with zipfile.ZipFile(source.path) as archive:
            for row, member in enumerate(archive.infolist()):
                if member.filename.endswith(".jpg"):
                    yield Found(source.path, member.filename, row=row, length=member.file_size, container=0)
                else:
                    skipped["no .jpg"] += 1

    def read(self, rows, source, *, max_bytes, extra):
        with zipfile.ZipFile(source.path) as archive:
            for key in rows["key"].to_pylist():
                comment = archive.getinfo(key).comment.decode()
                yield Read(archive.read(key), extra={"caption": comment} if extra and comment else None)


half = object()
'''


@pytest.fixture
def zipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `my_zips.py` and `a.zip` of six pictures, two of them alike, in which one works."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_zips.py").write_text(ZIPS)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        photos = sorted(PHOTOS.rglob("*.jpg"))[::50][:6]
        for number, photo in enumerate(photos):
            info = zipfile.ZipInfo(f"{number}.jpg")
            info.comment = f"number {number}".encode()
            archive.writestr(info, photo.read_bytes())
        archive.writestr("notes.txt", "none")
        archive.writestr("same.jpg", photos[-1].read_bytes())
    return tmp_path


def pool(path: str, name: str) -> Any:
    return parse(Sources, {"pool": [{"path": path, "format": name}]}, where="test").pool[0]


def test_format_of_a_file_is_listed_and_read(zipped: Path) -> None:
    mine = pool("a.zip", "./my_zips.py:Zips")
    assert mine.format == f"{zipped}/my_zips.py:Zips"  # workers have another current directory
    skipped: Counter[str] = Counter()
    found = list(list_source(mine, skipped=skipped))
    assert [f.key for f in found] == [*(f"{number}.jpg" for number in range(6)), "same.jpg"]
    assert skipped == {"no .jpg": 1}
    rows = catalog(found).take([1, 6])
    assert not is_loose(rows, mine)
    with zipfile.ZipFile("a.zip") as archive:
        wanted = [(archive.read("1.jpg"), {"caption": "number 1"}), (archive.read("same.jpg"), None)]
    assert [(read.data, read.extra) for read in read_part(rows, mine)] == wanted


def test_columns_of_a_format_of_ones_own_are_made_ready_for_json(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from curate.sources.read import Read\n\n\n"
        "class Odd:\n    loose = False\n    find = None\n\n"
        "    def read(self, rows, source, *, max_bytes, extra):\n"
        "        yield Read(b'x', extra={'a': '\\ud83d', 'b': 1, 'c': object(), '': 2} if extra else None)\n"
        "        yield Read(b'y')\n"
    )
    mine = pool("a.zip", f"{tmp_path}/odd.py:Odd")
    rows = catalog([Found("u", "k", row=0), Found("u", "l", row=1)])
    reads = list(read_part(rows, mine))
    assert [read.extra for read in reads] == [{"a": None, "b": 1, "c": None}, None]
    assert [read.left_out for read in reads] == [("not_unicode", "unknown_type", "unusable_name"), ()]


def test_dedup_of_a_format_of_ones_own_reads_its_images_and_finds_the_copy(zipped: Path) -> None:
    mine = "sources=[{name: mine, path: a.zip, format: './my_zips.py:Zips'}]"
    config = load_config("dedup", [mine, "workdir=run"])
    run_config(config, Flags())
    store = Store(zipped / "run")
    images = store.table("images").read_all().to_pylist()
    assert [row["reject"] for row in images] == [None] * 7
    assert images[5]["sha256"] == images[6]["sha256"]
    verdicts = store.table("duplicates").read_all()["verdict"].to_pylist()
    assert sorted(verdicts[5:]) == ["duplicate", "kept"]
    rows = pq.read_table(zipped / "run/shards/data").to_pylist()
    with zipfile.ZipFile("a.zip") as archive:
        assert all(row["image"]["bytes"] == archive.read(row["key"]) for row in rows)
    assert {row["caption"] for row in rows} >= {"number 1"}


def test_loose_files_may_be_found_in_ones_own_way(tmp_path: Path) -> None:
    write_files(tmp_path / "pictures", ["a.jpg", "b.jpg", "c.jpg"])
    (tmp_path / "odd.py").write_text(
        "from curate.sources.folder import FolderFormat\n\n"
        "class Backwards(FolderFormat):\n"
        "    def find(self, source, *, skipped):\n"
        "        return reversed(list(super().find(source, skipped=skipped)))\n"
    )
    mine = pool(str(tmp_path / "pictures"), f"{tmp_path}/odd.py:Backwards")
    rows = catalog(list_source(mine))
    assert rows["key"].to_pylist() == ["c.jpg", "b.jpg", "a.jpg"]
    assert is_loose(rows, mine)
    assert [read.data for read in read_part(rows, mine)] == [b"c.jpg", b"b.jpg", b"a.jpg"]


@pytest.mark.usefixtures("zipped")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tra", r"source pool: format: 'tra' is not known; did you mean 'tar'\?"),
        ("./my_zips.py:Zip", r"has no attribute 'Zip'; did you mean 'Zips'\?"),
        ("./my_zips.py:half", r"my_zips\.py:half' has no 'loose'; see SourceFormat"),
        ("./absent.py:Zips", "no file .*absent.py"),
        ("no_such_package:Zips", "no module 'no_such_package'"),
    ],
)
def test_unusable_formats_are_refused_with_the_config(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pool("a.zip", name)


@pytest.mark.parametrize("name", sorted(BUILTIN.keys() - {"urls"}))  # which needs a server: see test_urls.py
def test_built_in_formats_keep_the_contract(name: str, tmp_path: Path) -> None:
    data = {f"{number}.jpg": f"image {number}".encode() for number in range(5)}
    place = tmp_path / "of"
    place.mkdir()
    if name == "folder":
        write_files(place, data)
    elif name == "tar":
        write_tar(place / "a.tar", data)
    else:
        pictures = [{"bytes": image, "path": key} for key, image in data.items()]
        pq.write_table(pa.table({"image": pictures}), place / "a.parquet")
    made = source(place, format=name)
    found = list(find_format(name).find(made, skipped=Counter()))
    assert found == list(list_source(source(place)))  # as detected
    archive = {"folder": "", "tar": "a.tar/", "parquet": "a.parquet/"}[name]
    assert [f.key for f in found] == [archive + key for key in data]
    rows = catalog(found).take([0, 3, 4])
    reads = find_format(name).read(rows, made, max_bytes=100, extra=False)
    assert [read.data for read in reads] == [data[key] for key in ("0.jpg", "3.jpg", "4.jpg")]
    assert find_format(name).loose == (name == "folder")


def test_no_module_of_sources_imports_torch() -> None:
    code = (
        "import pkgutil, importlib, sys, curate.sources as s\n"
        "for m in pkgutil.iter_modules(s.__path__): importlib.import_module(f'curate.sources.{m.name}')\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
