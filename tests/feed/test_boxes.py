import numpy as np
import pytest

from curate.feed.boxes import draw_box


def test_boxes_cover_the_asked_share_of_the_area_at_the_asked_aspect():
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box(300, 400, (0.2, 0.5), (3 / 4, 4 / 3), rng=rng) for _ in range(500)])
    top, left, height, width = boxes.T
    area, aspect = height * width / (300 * 400), width / height
    assert ((area > 0.195) & (area < 0.505)).all()
    assert ((aspect > 0.74) & (aspect < 1.35)).all()
    assert ((top >= 0) & (left >= 0) & (top + height <= 300) & (left + width <= 400)).all()
    assert abs(area.mean() - 0.35) < 0.02


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1)])
def test_boxes_of_extreme_images_stay_inside_and_centred(height, width):
    top, left, h, w = draw_box(height, width, (1.0, 1.0), (3 / 4, 4 / 3), rng=np.random.default_rng(0))
    assert 0 < h <= height
    assert 0 < w <= width
    assert (top, left) == ((height - h) // 2, (width - w) // 2)
