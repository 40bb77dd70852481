"""Pictures on either side of a threshold, and what is said of them."""

import numpy as np
import pytest

from curate.engine.show import LIST_REJECTED, Gallery, Text
from curate.stages.screening.telling import around


@pytest.mark.parametrize(
    ("rejects", "gone", "stays", "words"),
    [("above", [2, 3], [1, 0], "up to 0.5"), ("below", [1, 0], [2, 3], "from 0.5 on")],
)
def test_each_side_is_named_and_a_command_lists_what_the_rule_rejects_alone(
    rejects: str, gone: list[int], stays: list[int], words: str
) -> None:
    blocks = list(around(np.arange(4), np.array([0.1, 0.4, 0.6, 0.9]), 0.5, rejects=rejects, blurred=False))

    texts = [block.text for block in blocks if isinstance(block, Text)]
    galleries = [block for block in blocks if isinstance(block, Gallery)]
    assert [[picture.image_id for picture in one.pictures] for one in galleries] == [gone, stays]
    assert f"{rejects} 0.5, kept out" in texts[0]
    assert f"{words}, within the rule" in texts[1]
    assert [one.rest for one in galleries] == [LIST_REJECTED, ""]
