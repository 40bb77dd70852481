"""Our networks beside numbers that other libraries gave: see `golden.py`."""

import pytest
import torch

from curate.models.nets.vit import VisionTransformer
from tests.models.nets.golden import CASES, SIZES, hold_keys, images, mask, planted_state, read, told

GOLDEN = read()


def test_every_case_has_its_numbers() -> None:
    assert GOLDEN.keys() == CASES.keys()


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_other_libraries(case: str) -> None:
    config, numbers = CASES[case], GOLDEN[case]
    network = VisionTransformer(config).eval()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(hold_keys(planted_state(shapes), config))
    seen = set()
    for size in SIZES:
        for masked in (False, True):
            key = f"{size[0]} x {size[1]}{', masked' if masked else ''}"
            if key not in numbers:
                continue
            seen.add(key)
            with torch.no_grad():
                found = told(network.forward_features(images(size), mask(size) if masked else None), size)
            assert found["cls"] == pytest.approx(numbers[key]["cls"], rel=1e-5, abs=1e-5), key
            assert found["norm"] == pytest.approx(numbers[key]["norm"], rel=1e-5), key
            assert found["product"] == pytest.approx(numbers[key]["product"], rel=1e-5, abs=1e-3), key
    assert seen == numbers.keys()
