import hashlib
import json
import os
from pathlib import Path

import pytest

from curate.models.files import digest
from curate.models.files.digest import hash_file


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weight file that counts as unchanged for long, and a cache of its own."""
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "SETTLED", 0.0)
    path = tmp_path / "model.pt"
    path.write_bytes(b"first")
    digest._hash.cache_clear()
    return path


def read(path: Path) -> str:
    """As another process would."""
    digest._hash.cache_clear()
    return hash_file(path)


def records(path: Path) -> list[Path]:
    return sorted((path.parent / "cache/digests").glob("*"))


def forge(path: Path) -> None:
    """Change what is remembered, so that it shows whether the file was read."""
    (place,) = records(path)
    place.write_text(json.dumps(json.loads(place.read_text()) | {"sha256": "f" * 64}))


def test_the_hash_follows_the_content(weights: Path) -> None:
    for content in (b"first", b"first", b"other bytes"):
        weights.write_bytes(content)
        assert read(weights) == sha256(content)
    assert len(records(weights)) == 1


def test_another_process_does_not_read_the_file_again(weights: Path) -> None:
    assert read(weights) == sha256(b"first")
    forge(weights)
    assert read(weights) == "f" * 64


def test_a_link_shares_the_digest_of_its_file(weights: Path) -> None:
    read(weights)
    forge(weights)
    link = weights.with_name("link.pt")
    link.symlink_to(weights)
    assert read(link) == "f" * 64


def test_other_bytes_of_the_same_size_and_age_are_read(weights: Path) -> None:
    read(weights)
    facts = weights.stat()
    weights.write_bytes(b"SECON")
    os.utime(weights, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert weights.stat().st_mtime_ns == facts.st_mtime_ns
    assert read(weights) == sha256(b"SECON")


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"file": 3, "sha256": "0"}'])
def test_a_damaged_record_is_ignored_and_made_anew(weights: Path, damage: str) -> None:
    read(weights)
    (place,) = records(weights)
    whole = place.read_text()
    place.write_text(damage)
    assert read(weights) == sha256(b"first")
    assert place.read_text() == whole


def test_a_file_that_has_just_changed_is_not_remembered(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "SETTLED", 3600.0)
    assert read(weights) == sha256(b"first")
    assert records(weights) == []


def test_a_cache_that_cannot_be_written_changes_nothing(weights: Path) -> None:
    (weights.parent / "cache").write_text("a file where the folder should be")
    assert read(weights) == sha256(b"first")
