"""What the recipes declare: which tables, where they lie, and settings that leave steps out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from curate.decisions import Decision, append_decisions
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.recipe import find_recipe, load_config
from curate.stages.search.find_truth import FindTruth
from curate.stages.search.neighbors import FindNeighbors

OPENED_BY_PEOPLE = {"catalog", "images", "embeddings", "duplicates", "assignments", "selection", "shards", "pretrain"}
"""Folders of tables beside `internal`; with report, run.json and it they are as many as a person sees at a glance."""
NAMES = ("dedup", "semdedup", "hierarchical", "lvd142m", "quickstart")


def outline(name: str, workdir: Path, changes: Sequence[str] = ()) -> Pipeline:
    sources = [f"sources.{role}={workdir}" for role in ("pool", "curated", "heldout")]
    config = load_config(name, [*sources, f"workdir={workdir}", *changes])
    return find_recipe(config.recipe).outline(Store(config.workdir), config)


def stages(p: Pipeline) -> dict[str, Any]:
    return {name: stage for step in p.steps for name, stage in step.stages.items()}


@pytest.mark.parametrize("name", NAMES)
def test_working_tables_lie_under_internal(name: str, tmp_path: Path) -> None:
    tops = {table.split("/")[0] for table in outline(name, tmp_path).names}
    assert tops - {"internal"} <= OPENED_BY_PEOPLE


@pytest.mark.parametrize("name", NAMES)
def test_every_table_is_read_after_it_is_made(name: str, tmp_path: Path) -> None:
    made = set[str]()
    for step in outline(name, tmp_path).steps:
        assert {table for tables in step.inputs.values() for table in tables or ()} <= made
        made |= step.stages.keys()


@pytest.mark.parametrize(
    ("name", "changes", "made", "not_made"),
    [
        ("dedup", ["write=null"], ["duplicates"], ["selection", "shards/data"]),
        ("hierarchical", ["write=null"], ["selection"], ["shards/data"]),
        ("dedup", ["copies.hashes=false"], ["internal/neighbors/copy"], ["internal/neighbors/pdq"]),
        ("dedup", ["copies.verify=false"], ["internal/neighbors/copy"], ["internal/candidates/near"]),
        ("dedup", ["copies.threshold=auto"], ["internal/thresholds/copy", "internal/neighbors/aligned"], []),
        ("dedup", ["copies.borders=false"], ["internal/candidates/near"], ["internal/embeddings/within_border"]),
        ("dedup", ["copies.crowds=trust"], ["internal/neighbors/aligned"], ["internal/crowds"]),
        ("hierarchical", ["junk=null"], ["assignments"], ["internal/junk", "internal/neighbors/density"]),
        ("lvd142m", ["retrieval.retrieve.route=cluster"], ["internal/retrieved"], ["internal/nearest/ranked"]),
        ("lvd142m", ["retrieval.retrieve.sample.refill=true"], ["internal/nearest/matched"], ["internal/junk"]),
        ("quickstart", ["evaluate=null"], ["pretrain", "internal/junk"], ["internal/evaluation"]),
    ],
)
def test_settings_add_steps_and_leave_them_out(
    name: str, changes: list[str], made: list[str], not_made: list[str], tmp_path: Path
) -> None:
    names = outline(name, tmp_path, changes).names
    assert set(made) <= set(names)
    assert not set(not_made) & set(names)


@pytest.mark.parametrize("name", NAMES)
def test_decisions_are_read_by_what_judges_and_selects_and_by_nothing_else(name: str, tmp_path: Path) -> None:
    before = outline(name, tmp_path)
    append_decisions(tmp_path / "decisions.csv", [Decision("a.jpg", "keep")])
    after = outline(name, tmp_path)
    assert set(after.names) - set(before.names) == {"internal/decisions"}
    reading = {
        table for s in after.steps if "internal/decisions" in (s.inputs.get("decided") or ()) for table in s.stages
    }
    similar = {"internal/semdedup/verdicts"} if name == "semdedup" else set()
    assert reading == {"internal/contaminated", "duplicates", "selection"} | similar
    assert outline(name, tmp_path, ["decisions=null"]).names == before.names


def test_recall_is_measured_from_the_threshold_of_the_search_on(tmp_path: Path) -> None:
    for changes in ([], ["copies.verify=false", "copies.threshold=0.8"]):
        found = stages(outline("dedup", tmp_path, changes))
        searches = {name.rpartition("/")[2]: s for name, s in found.items() if isinstance(s, FindNeighbors)}
        searches = {"copy" if name == "near" else name: stage for name, stage in searches.items()}
        truths = {name.rpartition("/")[2]: s for name, s in found.items() if isinstance(s, FindTruth)}
        assert searches.keys() == truths.keys() == {"copy", "pdq"}
        assert {n: s.threshold for n, s in searches.items()} == {n: s.threshold for n, s in truths.items()}


def test_refilled_retrieval_searches_deeper(tmp_path: Path) -> None:
    plain, refilled = (
        stages(outline("lvd142m", tmp_path, [f"retrieval.retrieve.sample.refill={refill}"]))["internal/nearest/ranked"]
        for refill in ("false", "true")
    )
    assert refilled.k == 8 * plain.k


@pytest.mark.parametrize("recipe", ["hierarchical", "lvd142m", "quickstart"])
def test_key_of_junk_in_earlier_versions_names_the_one_of_today(recipe: str) -> None:
    with pytest.raises(ConfigError, match=r"screening: the name of an earlier version; write `junk` instead"):
        load_config(recipe, ["screening.screen.z=3"])


def test_retrieval_without_curated_images_and_training_without_shards_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^sources.curated: recipe lvd142m retrieves from curated images"):
        outline("lvd142m", tmp_path, ["sources.curated=[]"])
    with pytest.raises(ConfigError, match=r"^write=null: the training reads the shards"):
        outline("quickstart", tmp_path, ["write=null"])
