import io
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.mnist import encode_png
from benchmarks.shards import write_shard
from curate.feed.shards import read_index


def test_the_trainer_reads_back_the_same_files_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [encode_png(rng.integers(0, 256, (5, 7), dtype=np.uint8)) for _ in range(3)]
    jpeg = io.BytesIO()
    Image.new("RGB", (9, 4)).save(jpeg, format="JPEG")
    write_shard(tmp_path, [*files, jpeg.getvalue()], source="made")
    index = read_index(str(tmp_path))
    assert index.read_images(index.groups[0], range(4)) == [*files, jpeg.getvalue()]
