import math

import pytest

from curate.trainer.schedules import linear_then_constant, warmup_cosine


def test_warmup_is_linear_and_reaches_start_at_its_end():
    values = [warmup_cosine(s, start=2.0, end=0.5, num_steps=20, warmup=4) for s in range(5)]
    assert values == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])


def test_cosine_equals_closed_form_after_warmup():
    for step in range(4, 20):
        wanted = 0.5 + 0.75 * (1 + math.cos(math.pi * (step - 4) / 16))
        assert warmup_cosine(step, start=2.0, end=0.5, num_steps=20, warmup=4) == pytest.approx(wanted)


def test_cosine_is_halfway_in_the_middle_and_at_end_from_the_last_step_on():
    assert warmup_cosine(10, start=0.04, end=0.4, num_steps=20) == pytest.approx(0.22)
    assert [warmup_cosine(s, start=0.04, end=0.4, num_steps=20) for s in (20, 99)] == [0.4, 0.4]


def test_cosine_upwards_never_falls():
    values = [warmup_cosine(s, start=0.992, end=1.0, num_steps=50) for s in range(51)]
    assert values == sorted(values)


def test_linear_then_constant():
    values = [linear_then_constant(s, start=0.04, end=0.07, num_steps=3) for s in range(5)]
    assert values == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])


def test_linear_of_no_steps_is_its_end():
    assert linear_then_constant(0, start=0.04, end=0.07, num_steps=0) == 0.07
