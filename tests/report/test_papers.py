"""What stands beside the shards: Croissant whose reader gets the rows, a summary, a manifest; equal on a rerun."""

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.recipe import load_config
from curate.report.croissant import CONFORMS_TO, CONTEXT
from curate.running import run_config
from curate.samples.bundled import photos_by_category
from curate.shard_manifest import NAME, SIGNATURE, ShardManifest
from curate.tables import BLUR_COLUMNS, SHARD_COLUMNS
from curate.verifying import verify
from tests.models.screening.networks import save_face_finder
from tests.test_shard_check import make_key

needs_mlcroissant = pytest.mark.skipif(importlib.util.find_spec("mlcroissant") is None, reason="no mlcroissant")
NUM = 10
LICENSES = ("https://creativecommons.org/licenses/by/4.0/", "CC BY-SA 2.0", "?")
ODD = "odd/name |"


def write_pool(folder: Path) -> Path:
    """Photographs with what a crawler wrote of them, a stranger's marks among it."""
    folder.mkdir(parents=True)
    photos = [Path(path) for paths in photos_by_category().values() for path in list(paths)[:1]][:NUM]
    for number, photo in enumerate(photos):
        (folder / f"{number}.jpg").write_bytes(photo.read_bytes())
        told: dict[str, Any] = {
            "url": f"https://www.h{number % 2}.example/{number}.jpg",
            "caption": f"<b>picture</b> {number} | ü",
            "license": LICENSES[number % 3],
            "flag": number % 2 == 0,
            ODD: None if number % 3 else number / 2,
        }
        told |= {"author": "<script>A</script>"} if number % 2 else {}
        (folder / f"{number}.json").write_text(json.dumps(told))
    return folder


def run(root: Path, *more: str) -> Path:
    given = [f"sources.pool={root / 'pool'}", f"workdir={root / 'run'}", "map=null", "write.num_shards=2", *more]
    run_config(load_config("dedup", given), Flags())
    return root / "run/shards"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("papers")
    write_pool(found / "pool")
    run(found)
    return found


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "run/shards"


@pytest.fixture
def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "croissant.json").read_text())
    return found


def papers(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("README.md", "SUMMARY.md", "croissant.json", NAME)}


# -- Croissant -------------------------------------------------------------------------------------------------------


@needs_mlcroissant
def test_mlcroissant_finds_no_error_and_its_reader_gets_the_rows(folder: Path) -> None:
    import mlcroissant as mlc

    dataset = mlc.Dataset(str(folder / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    records = {int(record["images/image_id"]): record for record in dataset.records("images")}
    rows = [row for path in sorted((folder / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert records.keys() == {row["image_id"] for row in rows}
    for row in rows:
        record = records[row["image_id"]]
        assert record["images/caption"].decode() == row["caption"]
        assert record["images/flag"] == row["flag"]
        assert record["images/odd%2Fname%20%7C"] == row[ODD]
        assert (record["images/image"].width, record["images/image"].height) == (row["width"], row["height"])
        assert [one["images/origins/route"].decode() for one in record["images/origins"]] == ["kept"]


def test_shards_have_their_sizes_and_digests(folder: Path, told: dict[str, Any]) -> None:
    files = [one for one in told["distribution"] if one["@type"] == "cr:FileObject"]
    assert [one["contentUrl"] for one in files] == ["data/part-00000.parquet", "data/part-00001.parquet"]
    for one in files:
        data = (folder / one["contentUrl"]).read_bytes()
        assert one["sha256"] == hashlib.sha256(data).hexdigest()
        assert one["contentSize"] == f"{len(data)} B"


def test_each_column_of_the_shards_is_a_field_of_its_type(folder: Path, told: dict[str, Any]) -> None:
    schema = pq.read_schema(folder / "data/part-00000.parquet")
    fields = {one["name"]: one for one in told["recordSet"][0]["field"]}
    assert list(fields) == schema.names
    types = {"image_id": "cr:Int64", "width": "cr:Int32", "flag": "sc:Boolean", ODD: "cr:Float64", "url": "sc:Text"}
    assert {name: fields[name]["dataType"] for name in types} == types
    assert all(one["description"] for one in fields.values())
    assert len({one["@id"] for one in fields.values()}) == len(fields)


def test_what_is_responsible_ai_is_told_as_far_as_it_is_known(told: dict[str, Any]) -> None:
    assert told["conformsTo"] == list(CONFORMS_TO)
    assert any("faces" in text for text in told["rai:dataLimitations"])
    assert any(text.startswith("usable: 10") for text in told["rai:dataPreprocessingProtocol"])
    assert "rai:dataBiases" not in told
    assert "license" not in told


def test_no_path_of_the_machine_is_in_any_paper(folder: Path, root: Path) -> None:
    for name, data in papers(folder).items():
        assert str(root).encode() not in data, name
        assert b"/home" not in data, name


def test_the_context_is_the_one_that_mlcroissant_knows() -> None:
    context = pytest.importorskip("mlcroissant._src.core.context")
    rdf = pytest.importorskip("mlcroissant._src.core.rdf")
    wanted = rdf.make_context(context.Context(conforms_to=CONFORMS_TO[0]))
    assert {key: CONTEXT.get(key) for key in wanted} == wanted


# -- the summary -----------------------------------------------------------------------------------------------------


def test_the_summary_counts_licenses_domains_and_attribution(folder: Path) -> None:
    text = (folder / "SUMMARY.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["CC-BY-4.0", "4", "40.00 %"] in [line[:3] for line in lines]
    assert ["unknown", "3", "30.00 %"] in [line[:3] for line in lines]
    assert ["author", "5", "50.00 %"] in lines
    assert ["URL", "10", "100.00 %"] in lines
    assert {line[0] for line in lines} >= {"h0.example", "h1.example"}
    assert "Days of collection: unknown" in text
    assert "`write.publish.license`" in text
    sizes = sum(path.stat().st_size for path in (folder / "data").glob("*.parquet"))
    assert f"{sizes:,} bytes" in text


def test_the_card_tells_how_much_is_known(folder: Path) -> None:
    assert "state a license of 7 of 10 images, and an author" in (folder / "README.md").read_text()


def test_the_counts_are_those_of_the_rows(root: Path) -> None:
    rows = Store(root / "run").table("internal/origins").read_all().to_pylist()
    (everything,) = (row for row in rows if row["kind"] == "all")
    images = [pq.read_table(path)["image"].to_pylist() for path in (root / "run/shards/data").glob("*.parquet")]
    num_bytes = sum(len(one["bytes"]) for shard in images for one in shard)
    assert (everything["images"], everything["num_bytes"]) == (NUM, num_bytes)
    for kind in ("source", "license", "domain", "year"):
        of_kind = [row for row in rows if row["kind"] == kind]
        assert sum(row["images"] for row in of_kind) == NUM
        assert sum(row["num_bytes"] for row in of_kind) == num_bytes


# -- the manifest, and reruns ----------------------------------------------------------------------------------------


def test_a_run_can_be_verified_from_a_copy_of_its_shards(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "elsewhere")
    found = verify(str(copied))
    assert not found.damaged
    (one,) = found.shards.values()
    assert (one.rows, one.shards) == (NUM, 2)


def test_a_rerun_changes_no_byte(root: Path, folder: Path) -> None:
    before = papers(folder)
    stamps = {name: (folder / name).stat().st_mtime_ns for name in before}
    run(root)
    assert papers(folder) == before
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == stamps


def test_a_paper_that_somebody_removed_or_changed_comes_back(root: Path, folder: Path) -> None:
    before = papers(folder)
    (folder / "SUMMARY.md").unlink()
    (folder / "croissant.json").write_text("{}")
    run(root)
    assert papers(folder) == before


def test_what_the_publisher_says_is_told_without_writing_shards_anew(root: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "r", symlinks=True)
    shutil.rmtree(tmp_path / "r/run")
    copied = tmp_path / "r"
    first = run(copied)
    stamp = (first / "data/part-00000.parquet").stat().st_mtime_ns
    key = make_key(tmp_path / "key")
    said = [
        "write.publish.name=Photos",
        "write.publish.license=https://creativecommons.org/licenses/by/4.0/",
        "write.publish.creators=[Ann]",
        "write.publish.date_published=2026-01-02",
        "write.publish.responsible.biases=few nights",
        "write.publish.responsible.time_frame=[2025-01-01, 2025-02-01]",
        f"write.publish.sign_key={key}",
    ]
    run(copied, *said)
    assert (first / "data/part-00000.parquet").stat().st_mtime_ns == stamp
    told = json.loads((first / "croissant.json").read_text())
    assert (told["name"], told["datePublished"], told["rai:dataBiases"]) == ("Photos", "2026-01-02", "few nights")
    assert told["rai:dataCollectionTimeFrame"] == ["2025-01-01", "2025-02-01"]
    assert "Days of collection: 2025-01-01 to 2025-02-01" in (first / "SUMMARY.md").read_text()
    (one,) = verify(str(first)).shards.values()
    assert one.signed.startswith("signed by SHA256:")
    assert str(key).encode() not in b"".join(papers(first).values())
    signature = (first / SIGNATURE).read_bytes()
    run(copied, *said)
    assert (first / SIGNATURE).read_bytes() == signature
    if importlib.util.find_spec("mlcroissant"):
        import mlcroissant as mlc

        issues = mlc.Dataset(str(first / "croissant.json")).metadata.ctx.issues
        assert not issues.errors
        assert all("citeAs" in warning for warning in issues.warnings)


def test_a_takedown_gives_another_manifest_and_drops_the_signature(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "pool", tmp_path / "pool")
    first = run(tmp_path, f"write.publish.sign_key={make_key(tmp_path / 'key')}")
    before = ShardManifest.from_json({k: v for k, v in json.loads((first / NAME).read_text()).items() if k != "sha256"})
    (tmp_path / "gone.txt").write_text("3.jpg\n")
    given = [f"sources.pool={tmp_path / 'pool'}", f"workdir={tmp_path / 'run'}", "map=null", "write.num_shards=2"]
    run_config(load_config("dedup", [*given, f"write.removal_list={tmp_path / 'gone.txt'}"]), Flags(update=True))
    after = ShardManifest.from_json({k: v for k, v in json.loads((first / NAME).read_text()).items() if k != "sha256"})
    assert sum(s.rows for s in after.shards) == sum(s.rows for s in before.shards) - 1
    found = verify(str(first))
    assert not found.damaged
    assert [one.signed for one in found.shards.values()] == ["not signed"]


def test_columns_of_blurred_faces_are_told_too_and_an_update_leaves_room_for_a_signature(
    root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "pool", tmp_path / "pool")
    folder = run(tmp_path, f"write.publish.sign_key={make_key(tmp_path / 'key')}")
    find = {"weights": str(save_face_finder(tmp_path / "faces.onnx")), "side": 256}
    more = [f"screen={{faces: {{find: {json.dumps(find)}, blur: true}}}}"]
    given = [f"sources.pool={tmp_path / 'pool'}", f"workdir={tmp_path / 'run'}", "map=null", "write.num_shards=2"]
    run_config(load_config("dedup", [*given, *more]), Flags(update=True))
    assert [one.signed for one in verify(str(folder)).shards.values()] == ["not signed"]
    run(tmp_path, *more, f"write.publish.sign_key={tmp_path / 'key'}")
    assert [one.signed for one in verify(str(folder)).shards.values()] != ["not signed"]

    schema = pq.read_schema(folder / "data/part-00000.parquet")
    fields = json.loads((folder / "croissant.json").read_text())["recordSet"][0]["field"]
    assert [one["name"] for one in fields] == schema.names
    assert {"blurred", "blurred_faces"} < set(schema.names)
    assert all(one["description"] for one in fields)


def test_publish_null_writes_none_of_it(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "pool", tmp_path / "pool")
    first = run(tmp_path, "write.publish=null")
    assert sorted(path.name for path in first.iterdir()) == ["README.md", "data"]


def test_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no day; write YYYY-MM-DD"):
        load_config("dedup", ["sources.pool=x", "write.publish.date_published=yesterday"])


def test_every_column_of_shards_has_a_text_for_croissant() -> None:
    assert all(field.metadata and field.metadata[b"doc"] for field in (*SHARD_COLUMNS, *BLUR_COLUMNS))
