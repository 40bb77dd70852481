"""Headers of archives on object stores: the same members, in few requests and few bytes."""

import io
import random
import tarfile
from typing import Any

import pytest

from curate.sources.headers import BLOCK_BYTES, HeaderFile


class Asked(io.BytesIO):
    """A file that counts what is read of it."""

    requests = num_bytes = 0

    def read(self, size: Any = -1) -> bytes:
        data = super().read(size)
        self.requests, self.num_bytes = self.requests + 1, self.num_bytes + len(data)
        return data


def write(members: list[tuple[str, int]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, size in members:
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(b"x" * size))
    return file.getvalue()


def listed(file: Any) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        return [(member.name, member.size, member.offset_data) for member in archive]


@pytest.mark.parametrize("seed", range(4))
def test_all_members_are_found_whatever_their_sizes(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.choice([0, 3, 700, 5000, 40_000, 300_000]) for _ in range(120)]
    data = write([(f"{number}{'n' * draw.choice([1, 150])}.jpg", size) for number, size in enumerate(sizes)])
    assert listed(HeaderFile(io.BytesIO(data))) == listed(io.BytesIO(data))


def test_large_images_cost_a_small_range_each_whatever_lies_beside_them() -> None:
    parts = (("jpg", 150_000), ("json", 900), ("txt", 80))
    data = write([(f"{n}.{kind}", size) for n in range(150) for kind, size in parts])
    file = Asked(data)
    assert len(listed(HeaderFile(file))) == 450
    assert file.requests < 1.15 * 150
    assert file.num_bytes < 0.04 * len(data)


def test_small_images_are_streamed() -> None:
    data = write([(f"{n}.jpg", 6000) for n in range(1000)])
    file = Asked(data)
    assert len(listed(HeaderFile(file))) == 1000
    assert file.requests <= len(data) / BLOCK_BYTES + 3
    assert file.num_bytes <= len(data) + BLOCK_BYTES
