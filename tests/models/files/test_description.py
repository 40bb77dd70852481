import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from curate.errors import WeightsError
from curate.models.files.description import find_description, save_tensors


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_are_readable_as_the_umask_says(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        path = save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_description_beside_the_tensors_is_found(tmp_path: Path) -> None:
    path = save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {"vit": 1})
    assert find_description(path) == {"vit": 1}
    weights = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(1)}, weights)
    assert find_description(weights) is None
    (tmp_path / "config.json").write_text('{"curate": {"vit": 2}}')
    assert find_description(weights) == {"vit": 2}
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="config.json: not JSON"):
        find_description(weights)
