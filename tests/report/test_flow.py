"""The way from the pool to the result: each step tells why images left, and the page draws it."""

import itertools
import re

from curate.engine.show import FlowStep
from curate.report.flow import render_flow
from curate.stages.images.inspect import InspectFigures
from curate.stages.selection.write_shards import ShardFigures
from tests.report.test_markup import read
from tests.report.workdir import Workdir


def test_every_step_says_why_images_left(workdir: Workdir) -> None:
    found = workdir.run.flow()
    assert [(step.name, step.pool) for step in found] == [
        ("listed", 9),
        ("read", 9),
        ("accepted", 7),
        ("one of each copy", 6),
        ("compared with held-out images", 4),
        ("retrieved", 3),
        ("selected", 2),
        ("in the shards", 2),
    ]
    for before, after in itertools.pairwise(found):
        assert before.pool - sum(n for _, n in after.drops) == after.pool


def test_curated_images_are_counted_apart(workdir: Workdir) -> None:
    assert [step.curated for step in workdir.run.flow()] == [2, 2, 2, None, None, None, 2, 2]


def test_rejects_belong_to_the_role_of_their_source(workdir: Workdir) -> None:
    accepted = next(step for step in workdir.run.flow() if step.name == "accepted")
    assert accepted.drops == (("empty", 1), ("noise", 1))
    assert accepted.curated == 2
    rejected = {"pool": {"noise": 1}, "curated": {"empty": 1}, "heldout": {"noise": 1}}
    workdir.tell("images", InspectFigures(accepted=9, rejected=rejected))
    accepted = next(step for step in workdir.run.flow() if step.name == "accepted")
    assert (accepted.pool, accepted.curated, accepted.drops) == (8, 1, (("noise", 1),))


def test_images_on_a_removal_list_are_the_last_drop(workdir: Workdir) -> None:
    table = workdir.store.table("shards/data")
    shard = table.read(0)
    told = ShardFigures(num_bytes=1, removed=1)
    workdir.put("shards/data", workdir.stages["shards/data"], [shard.slice(1)], told)
    assert workdir.run.flow()[-1].drops == (("on the removal list", 1),)


def test_with_a_balanced_route_retrieval_drops_nobody(workdir: Workdir) -> None:
    workdir.tell("selection", workdir.selected(routes={"balance": 1, "sample": 1}))
    names = [step.name for step in workdir.run.flow()]
    assert "retrieved" not in names
    assert names[-1] == "in the shards"


def test_each_step_is_a_bar_as_wide_as_its_share_of_the_widest() -> None:
    steps = [FlowStep("listed", 75, 25), FlowStep("<kept>", 50, None, (("no_reason", 0), ("a_copy", 25)), "a < note")]
    page = render_flow(steps)
    assert re.findall(r'class="bar (\w)" style="width:([\d.]+)%"', page) == [
        ("a", "75.00"),
        ("b", "25.00"),
        ("a", "50.00"),
    ]
    text = read(page).text
    assert "<kept>" in text
    assert "-25 a copy" in text
    assert "no reason" not in text
    assert "a < note" in text
    assert "curated, added as they are" in text
    assert "curated" not in read(render_flow([FlowStep("listed", 3)])).text
