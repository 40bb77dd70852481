"""Frames counted without decoding any, against Pillow, which decodes."""

import io

import numpy as np
import pytest
from PIL import Image

from curate.ops.images.frames import count_frames
from tests.ops.images.pictures import encode, photo_bytes


def animation(form, frames):
    rng = np.random.default_rng(frames)
    pictures = [Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)) for _ in range(frames)]
    return encode(pictures[0], form, save_all=True, append_images=pictures[1:], duration=100)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_frames_are_those_of_pillow(form, frames):
    data = animation(form, frames)
    assert count_frames(data) == Image.open(io.BytesIO(data)).n_frames == frames


def test_pages_and_still_pictures_are_one_frame():
    assert count_frames(photo_bytes()) == 1
    assert count_frames(animation("TIFF", 3)) == 1
    assert count_frames(b"no picture") == 1


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "AVIF"])
def test_cut_and_damaged_files_are_counted_as_far_as_they_go(form):
    data = animation(form, 5)
    rng = np.random.default_rng(0)
    for cut in rng.integers(0, len(data), 200).tolist():
        assert 1 <= count_frames(data[:cut]) <= 5
    for _ in range(200):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 8).tolist():
            damaged[place] = int(rng.integers(256))
        assert count_frames(bytes(damaged)) >= 1
