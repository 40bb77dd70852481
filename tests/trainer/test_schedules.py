import math

import pytest

from curate.trainer.schedules import (
    Piece,
    begun,
    changed_from,
    constant,
    describe,
    linear_then_constant,
    value_at,
    warmup_constant,
    warmup_cosine,
)

COSINE = warmup_cosine(2.0, 0.5, num_steps=20, warmup=4)


def test_warmup_is_linear_and_reaches_start_at_its_end():
    assert [value_at(COSINE, s) for s in range(5)] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])


def test_cosine_equals_closed_form_after_warmup():
    for step in range(4, 20):
        wanted = 0.5 + 0.75 * (1 + math.cos(math.pi * (step - 4) / 16))
        assert value_at(COSINE, step) == pytest.approx(wanted)


def test_cosine_is_halfway_in_the_middle_and_at_end_from_the_last_step_on():
    schedule = warmup_cosine(0.04, 0.4, num_steps=20)
    assert value_at(schedule, 10) == pytest.approx(0.22)
    assert [value_at(schedule, s) for s in (20, 99)] == [0.4, 0.4]


def test_cosine_upwards_never_falls():
    values = [value_at(warmup_cosine(0.992, 1.0, num_steps=50), s) for s in range(51)]
    assert values == sorted(values)


def test_linear_then_constant():
    values = [value_at(linear_then_constant(0.04, 0.07, num_steps=3), s) for s in range(5)]
    assert values == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])


def test_linear_of_no_steps_is_its_end():
    assert value_at(linear_then_constant(0.04, 0.07, num_steps=0), 0) == 0.07


def test_a_constant_schedule_warms_up_and_never_ends():
    assert [value_at(warmup_constant(2.0, warmup=2), s) for s in (0, 1, 2, 10**9)] == [0.0, 1.0, 2.0, 2.0]
    assert value_at(warmup_constant(2.0), 0) == 2.0


def test_a_change_leaves_what_lies_before_it():
    changed = changed_from(COSINE, (Piece(6, 8, value_at(COSINE, 6), 9.0), constant(1.0, 12)))
    assert [value_at(changed, s) for s in range(7)] == [value_at(COSINE, s) for s in range(7)]
    assert [value_at(changed, s) for s in (8, 11, 12, 19)] == [9.0, 9.0, 1.0, 1.0]
    assert begun(changed, 6) == begun(COSINE, 6)
    assert begun(changed, 7) != begun(COSINE, 7)


def test_a_schedule_is_told_in_words():
    assert describe(COSINE) == "from 0: 0 to 2 (linear) until 4, from 4: 2 to 0.5 (cosine) until 20"
    assert describe((constant(0.1),)) == "from 0: 0.1"
