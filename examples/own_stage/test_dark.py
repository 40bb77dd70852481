"""Run by `pytest test_dark.py`, in this folder."""

from pathlib import Path

from PIL import Image

import curate


def test_dark_images_are_counted(tmp_path: Path) -> None:
    for name, low in (("night", 0), ("day", 120)):
        (tmp_path / "pool").mkdir(exist_ok=True)
        Image.linear_gradient("L").point([low + v // 4 for v in range(256)]).save(tmp_path / f"pool/{name}.png")
    run = curate.run("dark.yaml", workdir=tmp_path / "run", sources={"pool": str(tmp_path / "pool")})
    values = run.tables["brightness"].read_all()["brightness"].to_pylist()
    assert [value < 0.3 for value in values] == [False, True]  # day, night
