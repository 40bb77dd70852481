"""The way from the pool to the result: each step tells why images were kept out, and the page draws it."""

import itertools
import re

import pytest

from curate.engine.show import FlowStep
from curate.report.flow import WIDTH, render_flow, render_numbers
from curate.stages.images.inspect import InspectFigures
from curate.stages.selection.write_shards import ShardFigures
from tests.report.test_markup import read
from tests.report.workdir import Workdir

STEPS = [
    FlowStep("listed", 75, 25, station=True),
    FlowStep("<kept>", 50, None, (("no_reason", 0), ("<one>", 20), ("two", 5)), "a < note", "as <bad>", station=True),
    FlowStep("between", 40, 20, (("alike", 10),)),
    FlowStep("in the shards", 56, drops=(("gone", 1), ("late", 3)), kept_out="late", station=True, merged=True),
]


def assert_adds_up(steps: list[FlowStep]) -> None:
    """What is left and what was kept out are together what the step before left."""
    for before, step in itertools.pairwise(steps):
        assert step.before(before) == step.pool + step.num_dropped, step.name
        assert min([step.pool, *(number for _, number in step.drops)]) >= 0
        assert step.kept_out or not step.num_dropped


def test_every_step_says_why_images_left(workdir: Workdir) -> None:
    found = workdir.run.flow()
    assert [(step.name, step.pool) for step in found] == [
        ("listed", 9),
        ("usable", 7),
        ("not copies", 6),
        ("clean", 4),
        ("like curated images", 3),
        ("selected", 2),
        ("in the shards", 2),
    ]
    assert_adds_up(found)


def test_curated_images_are_counted_apart(workdir: Workdir) -> None:
    assert [step.curated for step in workdir.run.flow()] == [2, 2, None, None, None, 2, 2]


def test_rejects_belong_to_the_role_of_their_source(workdir: Workdir) -> None:
    usable = next(step for step in workdir.run.flow() if step.name == "usable")
    assert usable.drops == (("empty", 1), ("noise", 1))
    assert usable.curated == 2
    rejected = {"pool": {"noise": 1}, "curated": {"too_small": 1}, "heldout": {"noise": 1}}
    workdir.tell("images", InspectFigures(accepted=8, rejected=rejected, unavailable={"pool": 2}))
    usable = next(step for step in workdir.run.flow() if step.name == "usable")
    lost = (("noise", 1), ("could not be had, an error that may pass", 2))
    assert (usable.pool, usable.curated, usable.drops) == (6, 1, lost)


def test_images_on_a_removal_list_are_the_last_to_be_kept_out(workdir: Workdir) -> None:
    table = workdir.store.table("shards/data")
    shard = table.read(0)
    told = ShardFigures(num_bytes=1, removed=1)
    workdir.put("shards/data", workdir.stages["shards/data"], [shard.slice(1)], told)
    assert workdir.run.flow()[-1].drops == (("on the removal list", 1),)
    assert_adds_up(workdir.run.flow())


def test_with_a_balanced_route_retrieval_drops_nobody(workdir: Workdir) -> None:
    workdir.tell("selection", workdir.selected(routes={"balance": 1, "sample": 1}))
    names = [step.name for step in workdir.run.flow()]
    assert "like curated images" not in names
    assert names[-1] == "in the shards"


def test_every_branch_says_how_many_were_kept_out_and_why() -> None:
    found = read(render_flow(STEPS))
    words = re.findall(r"kept out(?!list)[^:]*: [\d,]+", found.text)
    assert words == ["kept out as <bad>: 25", "kept out: 10", "kept out late: 4"]
    assert "<one>: 20" in found.text
    assert "no_reason" not in found.text
    assert "a < note" in found.text
    assert "curated" not in read(render_flow([FlowStep("listed", 3)])).text


def test_streams_are_as_wide_as_their_share_of_the_widest() -> None:
    page = render_flow(STEPS)
    bars = re.findall(r'class="bar (\w)" style="width:([\d.]+)%"', page)
    assert bars == [("a", "75.00"), ("b", "25.00"), ("a", "50.00"), ("a", "40.00"), ("b", "20.00"), ("a", "56.00")]
    stays = [float(width) for width in re.findall(r'd="M0 0H([\d.]+)V', page)]
    assert stays == pytest.approx([WIDTH * share for share in (0.5, 0.4, 0.56)])
    few = render_flow([FlowStep("listed", 10**7), FlowStep("one", 1, drops=(("x", 10**7 - 1),))])
    assert float(re.findall(r'd="M0 0H([\d.]+)V', few)[0]) > 1  # still to be seen


def test_numbers_at_the_top_are_the_stations_with_what_was_kept_out_between() -> None:
    found = read(render_numbers(STEPS)).text
    assert found == "listed75+ 25 curated<kept>5025 kept outin the shards5614 kept out"


def test_nothing_listed_is_drawn_too() -> None:
    text = read(render_flow([FlowStep("listed", 0), FlowStep("usable", 0)])).text
    assert "usable0" in text
