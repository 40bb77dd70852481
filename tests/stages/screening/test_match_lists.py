"""Lists name the images that hold their hashes, and nothing else is told of them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.ops.images.hashes import HASH_BYTES, dihedral
from curate.sources.hash_lists import HashList
from curate.stages.screening import list_facts as under_cache
from curate.stages.screening.list_facts import list_facts
from curate.stages.screening.match_lists import FACTS, ListFigures, MatchLists, needs_digests
from curate.tables import DIGESTS
from tests.stages.planted import given_table

NUM = 40
CONTENTS = [f"picture {number}".encode() for number in range(NUM)]
SHA256 = [hashlib.sha256(one).digest() for one in CONTENTS]
MD5 = [hashlib.md5(one).digest() for one in CONTENTS]
SHA1 = [hashlib.sha1(one).digest() for one in CONTENTS]
PDQ = np.random.default_rng(0).integers(0, 256, (NUM, HASH_BYTES), np.uint8)
WITHIN = np.random.default_rng(1).integers(0, 256, (NUM, HASH_BYTES), np.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))


def images(quality: int = 100) -> pa.Table:
    rows = [
        {
            "image_id": number,
            "sha256": SHA256[number],
            "pdq": PDQ[number].tobytes() if number % 10 != 9 else None,
            "pdq_within_border": WITHIN[number].tobytes() if number % 10 == 3 else None,
            "pdq_quality": quality,
        }
        for number in range(NUM)
    ]
    return pa.Table.from_pylist(rows, schema=FACTS)


def digests() -> pa.Table:
    rows = [{"image_id": number, "md5": MD5[number], "sha1": SHA1[number]} for number in range(NUM)]
    return pa.Table.from_pylist([rows[0] | {"md5": None, "sha1": None}, *rows[1:]], schema=DIGESTS)


def listed(tmp_path: Path, name: str, lines: list[str], **more: Any) -> HashList:
    path = tmp_path / f"{name}.txt"
    path.write_text("\n".join(lines))
    return HashList(name=name, path=str(path), **more)


def found(lists: list[HashList], rows: pa.Table | None = None) -> dict[int, tuple[str, str, int | None]]:
    """By image: its list, the kind of hash and the bits."""
    stage = MatchLists(lists=tuple(lists))
    table = pa.Table.from_batches(list(stage.run(0, images=rows or images(), digests=digests())))
    assert table.schema.equals(stage.output_schema(), check_metadata=True)
    assert table["image_id"].to_pylist() == list(range(NUM))
    assert {name for name in table.schema.names if name != "image_id"} == set(stage.score_names())
    named = table.filter(table["listed"].is_valid()).to_pylist()
    return {row["image_id"]: (row["listed"], row["listed_by"], row["listed_bits"]) for row in named}


def flipped(digest: np.ndarray, bits: int) -> str:
    """A hash that differs in its first bits."""
    mask = np.packbits(np.arange(8 * HASH_BYTES) < bits)
    return (digest ^ mask).tobytes().hex()


def test_each_kind_of_hash_names_its_images(tmp_path: Path) -> None:
    lists = [
        listed(tmp_path, "a", [SHA256[1].hex()], kind="sha256"),
        listed(tmp_path, "b", [MD5[2].hex(), SHA1[3].hex(), "00" * 16]),
        listed(tmp_path, "c", [flipped(PDQ[4], 31), flipped(PDQ[5], 32), flipped(WITHIN[13], 7)], kind="pdq"),
    ]
    assert found(lists) == {
        1: ("a", "sha256", None),
        2: ("b", "md5", None),
        3: ("b", "sha1", None),
        4: ("c", "pdq", 31),
        13: ("c", "pdq", 7),
    }


def test_turned_copies_are_named_where_the_list_says_so(tmp_path: Path) -> None:
    turned = [dihedral(PDQ[number : number + 1])[0, 1 + number % 7].tobytes().hex() for number in range(8)]
    assert found([listed(tmp_path, "a", turned, kind="pdq")]).keys() == set(range(8))
    assert found([listed(tmp_path, "b", turned, kind="pdq", oriented=False)]) == {}


def test_each_list_has_its_radius(tmp_path: Path) -> None:
    lines = [flipped(PDQ[4], 10), flipped(PDQ[5], 12)]
    strict = listed(tmp_path, "strict", lines, kind="pdq", radius=11)
    loose = listed(tmp_path, "loose", lines, kind="pdq", radius=31)
    assert found([strict, loose]) == {4: ("strict", "pdq", 10), 5: ("loose", "pdq", 12)}


def test_the_first_list_and_bytes_before_likeness_count(tmp_path: Path) -> None:
    near = listed(tmp_path, "near", [flipped(PDQ[4], 3)], kind="pdq")
    both = listed(tmp_path, "both", [f"pdq:{flipped(PDQ[4], 3)}", f"sha256:{SHA256[4].hex()}"])
    assert found([near, both]) == {4: ("near", "pdq", 3)}
    assert found([both, near]) == {4: ("both", "sha256", None)}


def test_hashes_of_smooth_pictures_say_nothing(tmp_path: Path) -> None:
    given = listed(tmp_path, "a", [flipped(PDQ[4], 0)], kind="pdq")
    assert found([given], images(quality=49)) == {}
    assert found([given.model_copy(update={"least_quality": 49})], images(quality=49)).keys() == {4}


def test_what_is_compared_makes_the_pins_and_copies_do_not(tmp_path: Path) -> None:
    given = listed(tmp_path, "a", [MD5[1].hex()])
    pins = MatchLists(lists=(given,)).pins()
    moved = listed(tmp_path, "b", [MD5[1].hex()]).model_copy(update={"name": "a", "with_copies": True})
    assert MatchLists(lists=(moved,)).pins() == pins
    assert MatchLists(lists=(given.model_copy(update={"radius": 30}),)).pins() != pins
    (tmp_path / "a.txt").write_text("\n".join([MD5[1].hex(), MD5[2].hex()]))
    assert MatchLists(lists=(given,)).pins() != pins
    assert found([given]).keys() == {1, 2}


def test_only_lists_with_such_hashes_need_a_pass_over_the_bytes(tmp_path: Path) -> None:
    pdq = listed(tmp_path, "a", [flipped(PDQ[4], 0)], kind="pdq")
    assert not needs_digests((pdq,))
    assert needs_digests((pdq, listed(tmp_path, "b", [MD5[1].hex()])))


def test_lists_are_counted_once_and_no_hash_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = listed(tmp_path, "a", [MD5[1].hex(), "photodna:x"])
    facts = list_facts(given)
    assert (facts.counts, facts.others) == ({"md5": 1}, {"photodna": 1})
    monkeypatch.setattr(under_cache, "read_list", None)
    assert list_facts(given) == facts
    kept = [path.read_text() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept
    assert not any(MD5[1].hex() in text for text in kept)


def test_figures_count_the_images_of_each_list(tmp_path: Path) -> None:
    lists = (listed(tmp_path, "a", [MD5[2].hex(), MD5[3].hex()]), listed(tmp_path, "b", [SHA1[5].hex()]))
    stage = MatchLists(lists=lists)
    rows = pa.Table.from_batches(list(stage.run(0, images=images(), digests=digests()))).to_pylist()
    table = given_table(tmp_path / "run", "internal/scores/listed", stage.output_schema(), [rows])
    figures = stage.summarize(table)
    assert {name: one.images for name, one in figures.lists.items()} == {"a": 2, "b": 1}
    assert figures.kinds == {"md5": 2, "sha1": 1}
    assert ListFigures.model_validate_json(figures.model_dump_json()) == figures
    assert not any(one.hex() in figures.model_dump_json() for one in (*MD5, *SHA1))
