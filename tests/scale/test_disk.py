from pathlib import Path

from curate.scale.disk import BLOCK, disk_rates


def test_a_folder_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    assert min(disk_rates(tmp_path, num_bytes=2 * BLOCK)) > 0
    assert list(tmp_path.iterdir()) == []
