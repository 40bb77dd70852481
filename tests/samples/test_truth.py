"""The truth of a pool as a file, and what its rows say of copies and subjects."""

from pathlib import Path

import pytest

from curate.errors import ConfigError
from curate.samples.truth import NEAR_KINDS, TruthRow, read_truth, write_truth

ORIGINAL = TruthRow("pool/1.jpg", "birds", "original", "", "photos/birds/owl.jpg")
FRAME = TruthRow("pool/0.jpg", "video_sea", "frame", "", "frames/sea_0_00.jpg")


def test_what_is_written_is_read_in_order_of_the_files(tmp_path: Path) -> None:
    write_truth(tmp_path / "truth.csv", [ORIGINAL, FRAME])
    found = read_truth(tmp_path / "truth.csv")
    assert list(found.items()) == [(FRAME.file, FRAME), (ORIGINAL.file, ORIGINAL)]


def test_copies_show_the_picture_of_their_original_and_frames_their_scene() -> None:
    kinds = (*NEAR_KINDS, "exact_copy", "heldout_copy", "original", "view", "frame", "junk_noise")
    copies = {kind for kind in kinds if TruthRow("f", "c", kind, "o", "s").is_copy}
    assert copies == {*NEAR_KINDS, "exact_copy", "heldout_copy"}
    assert (ORIGINAL.subject, FRAME.subject) == ("photos/birds/owl.jpg", "video_sea")


def test_absent_and_foreign_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; give the truth.csv"):
        read_truth(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("file,kind\nx,y\n")
    with pytest.raises(ConfigError, match="lacks the columns category, copy_of, source"):
        read_truth(tmp_path / "other.csv")
