"""Entries that are perceptual hashes name the pictures near them, as brute force finds these."""

import numpy as np
import pyarrow as pa
import pytest

from curate.ops.images.hashes import HASH_BYTES, dihedral
from curate.sources.entries import PDQ_BITS, Entries, normalize_entry

NUM = 60
HASHES = np.random.default_rng(3).integers(0, 256, (NUM, HASH_BYTES), np.uint8)
WITHIN = np.random.default_rng(4).integers(0, 256, (NUM, HASH_BYTES), np.uint8)


def tables() -> tuple[pa.Table, pa.Table]:
    names = [f"{row}.jpg" for row in range(NUM)]
    catalog = pa.table({"source": ["pool"] * NUM, "key": names, "uri": [f"/pool/{name}" for name in names]})
    hashes = [None if row % 7 == 6 else HASHES[row].tobytes() for row in range(NUM)]
    within = [WITHIN[row].tobytes() if row % 5 == 2 else None for row in range(NUM)]
    digests = pa.array([bytes(HASH_BYTES)] * NUM, pa.binary(32))
    kind = pa.binary(HASH_BYTES)
    return catalog, pa.table(
        {"sha256": digests, "pdq": pa.array(hashes, kind), "pdq_within_border": pa.array(within, kind)}
    )


def off(digest: np.ndarray, bits: int) -> str:
    return (digest ^ np.packbits(np.arange(8 * HASH_BYTES) < bits)).tobytes().hex()


def hits(*entries: str) -> set[tuple[int, str]]:
    return {(hit.row, hit.entry) for hit in Entries.of(entries).hits(*tables())}


def test_an_entry_names_what_lies_within_its_radius() -> None:
    usual, strict = f"pdq:{off(HASHES[1], PDQ_BITS)}", f"pdq:{off(HASHES[2], 11)}~10"
    wide, border = f"pdq:{off(HASHES[3], 40)}~40", f"pdq:{off(WITHIN[7], 3)}"
    beyond, gone = f"pdq:{off(HASHES[4], PDQ_BITS + 1)}", f"pdq:{off(HASHES[6], 0)}"
    assert hits(usual, strict, wide, border, beyond, gone) == {(1, usual), (3, wide), (7, border)}


def test_turned_copies_are_named_too() -> None:
    turned = {f"pdq:{form.tobytes().hex()}" for form in dihedral(HASHES[:1])[0]}
    assert hits(*turned) == {(0, entry) for entry in turned}


def test_an_image_is_named_by_each_of_several_entries() -> None:
    near, name = f"pdq:{off(HASHES[1], 4)}", "1.jpg"
    assert hits(near, name) == {(1, near), (1, name)}
    assert Entries.of([near, name]).named(*tables()).nonzero()[0].tolist() == [1]


def test_hashes_are_read_only_where_an_entry_is_one() -> None:
    assert Entries.of(["1.jpg"]).columns == ["sha256"]
    assert Entries.of([f"pdq:{off(HASHES[1], 0)}"]).columns == ["sha256", "pdq", "pdq_within_border"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("PDQ:" + "AB" * 32, "pdq:" + "ab" * 32),
        ('"pdq:' + "ab" * 32 + '~31"', "pdq:" + "ab" * 32),
        ("pdq:" + "ab" * 32 + "~08", "pdq:" + "ab" * 32 + "~8"),
        ("pdq:" + "ab" * 31, "pdq:" + "ab" * 31),
        ("AB" * 32, "ab" * 32),
    ],
)
def test_hashes_are_written_in_one_way(text: str, normal: str) -> None:
    assert normalize_entry(text) == normal
    assert normalize_entry(normal) == normal


def test_a_radius_beyond_what_means_anything_names_nothing() -> None:
    entry = f"pdq:{off(HASHES[1], 0)}~99"
    assert hits(entry) == set()
    assert Entries.of([entry, f"pdq:{off(HASHES[1], 1)}"]).near([HASHES[1].tobytes()]) == {f"pdq:{off(HASHES[1], 1)}"}
