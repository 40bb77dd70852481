"""What the measurement of lists rests on."""

from pathlib import Path

from benchmarks.lists import match, recall, write_list
from curate.samples.bundled import PHOTOS


def test_photographs_are_found_by_the_hash_of_pdqs_own_code() -> None:
    """Pictures are hashed from a smaller copy here, which must not cost lists their hits."""
    assert recall([str(path) for path in sorted(PHOTOS.glob("*/*.jpg"))[::12]]) > 0.95


def test_a_list_of_random_hashes_is_matched(tmp_path: Path) -> None:
    assert match(write_list(tmp_path / "list.txt", 200), 50) > 0
