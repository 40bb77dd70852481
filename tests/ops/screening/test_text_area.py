"""Areas of planted lines of text, and what is none."""

import numpy as np
import pytest

from curate.ops.screening.text_area import ENLARGED, find_text, text_share


def lines(shape=(320, 480), *, places, value=0.9):
    found = np.zeros(shape, np.float32)
    for left, top, right, bottom in places:
        found[top:bottom, left:right] = value
    return found


def test_a_line_is_enlarged_by_what_training_had_shrunk_it():
    ((middle, size, _),) = find_text(lines(places=[(50, 100, 250, 112)]))
    width, height = 200, 12  # the region is dilated by a pixel, and its rectangle runs between centers of pixels
    grown = ENLARGED * width * height / (width + height)
    assert sorted(size) == pytest.approx([height + grown, width + grown], abs=1.5)
    assert middle == pytest.approx((149.5, 105.5), abs=1)


def test_share_counts_what_lines_cover_once():
    one = text_share(lines(places=[(50, 100, 250, 112)]))
    grown = ENLARGED * 200 * 12 / 212
    assert one == pytest.approx((200 + grown) * (12 + grown) / (320 * 480), rel=0.1)
    apart = text_share(lines(places=[(50, 100, 250, 112), (50, 200, 250, 212)]))
    assert apart == pytest.approx(2 * one, rel=0.01)
    near = text_share(lines(places=[(50, 100, 250, 112), (50, 116, 250, 128)]))
    assert one < near < 1.9 * one


def test_specks_doubtful_regions_and_whole_objects_are_no_text():
    assert text_share(lines(places=[])) == 0
    assert find_text(lines(places=[(50, 100, 250, 101), (300, 100, 302, 102)])) == []
    assert find_text(lines(places=[(50, 100, 250, 112)], value=0.4)) == []
    assert find_text(lines(places=[(100, 60, 300, 250)])) == []


def test_the_share_of_a_full_page_is_high_and_never_above_one():
    page = lines(places=[(5, top, 475, top + 10) for top in range(5, 310, 20)])
    assert 0.8 < text_share(page) <= 1
