"""Screening from end to end: scores are made once, rules change what follows from verdicts and read no picture."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from benchmarks.incremental import looking
from curate.answers.counts import Counts
from curate.answers.rows import Wanted, list_images
from curate.api import Run
from curate.cli.summary import _images
from curate.decisions import FILE, Decision, append_decisions
from curate.engine.freshness import Flags
from curate.engine.part_writer import PartWriter
from curate.engine.store import Store
from curate.errors import ConfigError, StaleTable
from curate.pipelines.screening import Screening
from curate.recipe import load_config
from curate.report.card import render_card
from curate.report.explain import explain
from curate.report.score_sweep import write_score_sweep
from curate.review.facts import read_facts
from curate.review.queues import Queues
from curate.running import run_config
from curate.samples.bundled import PHOTOS
from curate.stages.images.pictures import PictureStage, Seen
from curate.stages.screening.scoring import PictureScores
from curate.sweeping import sweep_of_score
from curate.tables import score
from curate.workdir import find_tables

DARK = "screen.drop={luma: {below: 60}}"
FOLLOWING = ["scores", "duplicates", "selection", "internal/map", "internal/own_columns", "shards/data"]
"""What rules change, and the shards behind it."""


class ScoreLuma(PictureScores):
    """How bright a picture is, and whether it is wide."""

    def score_names(self) -> tuple[str, ...]:
        return ("luma", "wide")

    def columns(self) -> list[pa.Field]:
        doc = "mean luma, 0..255"
        luma = score(
            "luma", pa.float32(), doc, model="mean 1.0", weights="ab" * 32, preset={"below": 60}, check="faces"
        )
        return [luma, score("wide", pa.bool_(), "whether the picture is wider than high", sensitive=True)]

    def prepare(self, seen: Seen) -> dict[str, Any] | None:
        if seen.picture is None:
            return None
        luma = float(np.asarray(seen.picture.convert("L")).mean())
        return {"luma": luma, "wide": seen.picture.width > seen.picture.height}


class ScoreOther(PictureScores):
    """Another score of the pass."""

    def score_names(self) -> tuple[str, ...]:
        return ("red",)

    def columns(self) -> list[pa.Field]:
        return [score("red", pa.float32(), "mean of red, 0..255")]

    def prepare(self, seen: Seen) -> dict[str, Any] | None:
        return None if seen.picture is None else {"red": float(np.asarray(seen.picture)[..., 0].mean())}


def stages_of(screening: Screening) -> dict[str, PictureStage]:
    return {"internal/scores/luma": ScoreLuma()}


@pytest.fixture(autouse=True, scope="module")
def _scored() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Screening, "looked_at", property(stages_of))
        yield


class World:
    """A workdir over a pool of photographs: some dark, with a copy each, and a curated set."""

    def __init__(self, samples: Path, workdir: Path) -> None:
        self.samples, self.workdir = samples, workdir

    def run(self, *more: str, update: bool = True, executor: str = "in_process") -> tuple[list[str], dict[str, int]]:
        """Tables that changed, and how many images were looked at for what."""
        roles = [f"sources.{role}={self.samples / role}" for role in ("pool", "curated")]
        cheap = ["copies.borders=false", "copies.crowds=trust", "copies.verify=false", "executor.threads=1"]
        with looking() as looked:
            config = load_config("dedup", [*roles, f"workdir={self.workdir}", "rows_per_part=5", *cheap, *more])
            changed = run_config(config, Flags(update=update)).changed
        return changed, {key: count for key, count in looked.items() if count}

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """Rows by key."""
        store = Store(self.workdir)
        keys = store.table("catalog").read_all(["image_id", "key"])
        key = dict(zip(*(column.to_pylist() for column in keys.columns), strict=True))
        return {key[row["image_id"]]: row for row in store.table(table).read_all().to_pylist()}

    def parts(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.workdir)): p.read_bytes() for p in sorted(self.workdir.rglob("part-*"))}

    def listed(self, wanted: Wanted, **options: Any) -> dict[str, dict[str, Any]]:
        rows = list_images(find_tables(Store(self.workdir)), wanted, **options)
        return {row["key"]: row for batch in rows for row in batch.to_pylist()}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("screening")
    photos = sorted(PHOTOS.rglob("*.jpg"))[:9]
    for folder in ("pool", "curated"):
        (root / folder).mkdir()
    for number, path in enumerate(photos):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((320, 320))
        if number in (2, 5):  # dark ones, with a copy that is a little brighter
            picture.point(lambda value: value // 8).save(root / f"pool/dark{number}.png")
            picture.point(lambda value: 64 + value // 8).save(root / f"pool/twin{number}.png")
            continue
        folder = "curated" if number == 8 else "pool"
        picture.point(lambda value: 80 + value // 2).save(root / folder / f"photo{number}.png")
    return root


@pytest.fixture(scope="module")
def plain(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run without screening, which no test changes."""
    world = World(samples, tmp_path_factory.mktemp("plain") / "run")
    world.run()
    return world


@pytest.fixture(scope="module")
def scored(plain: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same with scores and no rule, which no test changes."""
    workdir = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(plain.workdir, workdir)
    world = World(plain.samples, workdir)
    world.run("screen={}")
    return world


@pytest.fixture
def world(scored: World, tmp_path: Path) -> World:
    shutil.copytree(scored.workdir, tmp_path / "run")
    return World(scored.samples, tmp_path / "run")


def test_scores_without_rules_change_no_row_of_another_table(plain: World, scored: World) -> None:
    rows = {name: data for name, data in scored.parts().items() if "scores" not in name}
    unlike = {name.rpartition("/")[0] for name in plain.parts() if rows[name] != plain.parts()[name]}
    assert unlike <= {"duplicates", "selection", "internal/own_columns", "internal/map", "shards/data"}  # footers alone
    for table in ("duplicates", "selection", "internal/map"):
        one, other = (Store(run.workdir).table(table).read_all() for run in (plain, scored))
        assert one.equals(other)
    assert all(row["luma"] is not None for row in scored.rows("scores").values())


def test_a_run_that_screens_no_more_has_the_bytes_of_one_that_never_did(plain: World, world: World) -> None:
    changed, looked = world.run()
    assert not looked
    assert set(changed) <= set(FOLLOWING)
    left = {name: data for name, data in world.parts().items() if "scores" not in name}
    assert left == plain.parts()


@pytest.mark.parametrize(("before", "now"), [((), ("screen={}",)), (("screen={}",), ())])
def test_screening_that_comes_or_goes_needs_an_update(
    plain: World, tmp_path: Path, before: tuple[str, ...], now: tuple[str, ...]
) -> None:
    """What a list named must not come back because a key was forgotten."""
    shutil.copytree(plain.workdir, tmp_path / "run")
    world = World(plain.samples, tmp_path / "run")
    world.run(*before)
    parts = world.parts()

    with pytest.raises(StaleTable, match=r"scores: (not there -> read|read -> left out)"):
        world.run(*now, update=False)

    assert world.parts() == parts
    world.run(*now)
    assert Store(world.workdir).table("duplicates").complete_manifest().inputs.get("scores", []) == list(
        ("scores",) if now else ()
    )


def test_other_rules_read_no_picture_and_make_verdicts_anew(world: World) -> None:
    for rule in (DARK, "screen.drop={luma: {below: 40}, wide: true}", "screen.where=luma > 100 and width >= 10"):
        changed, looked = world.run(rule, "write=null")
        assert not looked, rule
        assert set(changed) <= set(FOLLOWING), rule
        assert "scores" in changed
    with pytest.raises(
        StaleTable, match=r"scores was made with another configuration: drop.luma: None -> .*'below': 60.0"
    ):
        World(world.samples, world.workdir).run(DARK, update=False)


def test_every_reject_has_its_reason_score_and_model(world: World) -> None:
    world.run("screen.drop={luma: preset}")
    dark = {key for key, row in world.rows("scores").items() if key.startswith("dark")}
    rejected = {key: row for key, row in world.rows("scores").items() if row["reject"]}
    assert set(rejected) == dark
    field = Store(world.workdir).table("scores").schema().field("luma")
    assert field.metadata[b"curate.model"] == b"mean 1.0"
    for row in rejected.values():
        assert (row["reject"], row["rule"], row["with_copies"]) == ("luma", "luma below 60", False)
        assert row["value"] == pytest.approx(row["luma"])
        number = row["detail"].removeprefix("luma is ").removesuffix(", below 60 is rejected")
        assert float(number) == pytest.approx(row["luma"], abs=1e-4)
    listed = world.listed(Wanted.rejected)
    assert {key: row["reason"] for key, row in listed.items()} == dict.fromkeys(dark, "luma")
    assert all(row["score"] == rejected[key]["value"] and row["detail"] for key, row in listed.items())
    story = explain(find_tables(Store(world.workdir)), next(iter(dark)))
    assert "screened   rejected: luma: luma is" in story
    assert "the score is by mean 1.0, weights abababababab" in story
    card = render_card(find_tables(Store(world.workdir)))
    assert "luma below 60: 2 images kept out, score by mean 1.0" in card
    assert "faces and other personal data" not in card
    assert "watermarks" in card


def test_the_twin_of_a_rejected_image_stays_unless_copies_go_too(world: World) -> None:
    assert world.rows("duplicates")["twin2.png"]["component_size"] == 2
    world.run(DARK)
    verdicts = {key: row["verdict"] for key, row in world.rows("duplicates").items()}
    assert [verdicts[key] for key in ("dark2.png", "twin2.png", "dark5.png")] == ["screened", "kept", "screened"]
    world.run("screen.drop={luma: {below: 60, with_copies: true}}")
    rows, ids = world.rows("duplicates"), world.rows("catalog")
    assert {key for key, row in rows.items() if row["verdict"] == "screened"} == {
        key for key in rows if key.startswith(("dark", "twin"))
    }
    assert rows["twin2.png"]["partner_id"] == ids["dark2.png"]["image_id"]
    listed = world.listed(Wanted.rejected)
    assert listed["twin2.png"]["reason"] == "screened"
    assert listed["twin2.png"]["partner_key"] == "dark2.png"
    assert not {key for key in world.listed(Wanted.selected) if key.startswith(("dark", "twin"))}


def test_what_a_person_keeps_stays_whatever_rules_say(world: World) -> None:
    append_decisions(world.workdir / FILE, [Decision("dark2.png", "keep")])
    world.run(DARK)
    rows = world.rows("duplicates")
    assert (rows["dark2.png"]["verdict"], rows["dark5.png"]["verdict"]) == ("kept", "screened")
    run = find_tables(Store(world.workdir))
    steps = {step.name: step for step in run.flow()}
    assert steps["within the rules"].drops == (("luma", 1),)
    assert steps["within the rules"].note == "1 image kept by your decision"
    assert world.listed(Wanted.kept)["dark2.png"]["reason"] == "decision"


def test_a_review_has_what_rules_reject_but_for_sensitive_pictures(world: World) -> None:
    world.run("screen.drop={luma: {below: 60}, wide: true}")
    run, ids = find_tables(Store(world.workdir)), world.rows("catalog")
    dark = {ids[key]["image_id"] for key in ("dark2.png", "dark5.png")}
    queues = Queues(run).all
    assert set(queues["screened-luma"].items.ids.tolist()) == dark
    assert "screened-wide" not in queues
    assert not dark & set(queues["groups"].items.ids.tolist())
    facts, _ = read_facts(run, Queues(run).verdicts, np.array(sorted(dark)))[min(dark)]
    assert (facts["verdict"], facts["reason"]) == ("rejected", "luma")
    assert facts["detail"].startswith("luma is ")
    world.run("screen.drop={wide: true}", "screen.show_sensitive=true")
    assert "screened-wide" in Queues(find_tables(Store(world.workdir))).all


def test_numbers_of_the_way_add_up(world: World) -> None:
    world.run("screen.drop={luma: {below: 60, with_copies: true}}")
    run = find_tables(Store(world.workdir))
    steps = run.flow()
    for before, step in itertools.pairwise(steps):
        assert before.pool - step.num_dropped == step.pool, step.name
    counts = Counts.of(run)
    assert (counts.listed, counts.kept, counts.rejected) == (10, 6, 4)
    assert len(world.listed(Wanted.rejected)) == counts.rejected
    assert Run(Store(world.workdir)).summary.rejected == {"luma": 2, "screened": 2}
    assert dict(_images(run))["screened"] == "4 (2 luma; 2 with a copy of theirs)"
    append_decisions(world.workdir / FILE, [Decision("dark2.png", "keep")])
    world.run(DARK)
    assert Run(Store(world.workdir)).summary.rejected == {"luma": 1}
    assert dict(_images(find_tables(Store(world.workdir))))["screened"] == "1 (1 luma)"


def test_where_takes_what_is_false_or_null_and_tells_which(world: World) -> None:
    world.run("screen.where=luma >= 60 and not wide or key like 'dark%'")
    rows = world.rows("scores")
    for key, row in rows.items():
        holds = (row["luma"] >= 60 and not row["wide"]) or key.startswith("dark")
        assert (row["reject"] is None) == (holds or key == "photo8.png")  # which is curated
        if row["reject"]:
            assert row["detail"].endswith("wanted is luma >= 60 and not wide or key like 'dark%'")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("screen.drop={lumma: preset}", r"screen.drop.lumma: no score of this run is called so; did you mean luma\?"),
        ("screen.drop={luma: true}", r"screen.drop.luma=true: the score is float, give bounds"),
        ("screen.drop={wide: {above: 1}}", r"screen.drop.wide: true or false, which has no bounds; write true"),
        ("screen.drop={wide: preset}", r"screen.drop.wide=preset: there is none for this score"),
        ("screen.drop={luma: {}}", "give above, below or both"),
        ("screen.drop={wide: false}", r"screen.drop.wide=false: leave the rule out"),
        ("screen.where=luma >", "screen.where: .*cannot be read at its end"),
        ("screen.where=luma = 'dark'", "screen.where: luma = 'dark': luma is a number; 'dark' is text"),
        ("screen.where=licence = 'by'", r"screen.where: no column is called licence; it is neither a fact"),
    ],
)
def test_rules_that_cannot_be_are_errors(world: World, rule: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        world.run(rule)


def test_a_score_that_comes_or_goes_leaves_the_others_and_opens_each_picture_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"internal/scores/red": ScoreOther(), "internal/scores/luma": ScoreLuma()}
    monkeypatch.setattr(Screening, "looked_at", property(lambda _: both))
    before = world.parts()
    changed, looked = world.run("screen={}", "write=null")
    assert "internal/scores/red" in changed
    assert "internal/scores/luma" not in changed
    assert "embeddings/copy" not in changed
    assert {key: number for key, number in looked.items() if "embed" in key} == {}
    monkeypatch.setattr(Screening, "looked_at", property(stages_of))
    changed, looked = world.run("screen={}", "write=null")
    assert not looked
    after = world.parts()
    for table in ("images", "embeddings", "internal/scores/luma"):
        kept = {name: data for name, data in before.items() if name.startswith(table)}
        assert kept == {name: after[name] for name in kept}


def test_a_run_that_ends_anywhere_goes_on_to_equal_bytes(
    plain: World, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = ("screen.drop={luma: {below: 60, with_copies: true}}", "screen.where=luma > 70 and not wide")
    world.run(*rules)
    shutil.copytree(plain.workdir, tmp_path / "killed")
    killed, close, closed = World(plain.samples, tmp_path / "killed"), PartWriter.close, itertools.count(1)

    def dying(writer: PartWriter) -> None:
        close(writer)
        if next(closed) in (1, 3, 6, 10):  # all rows are there, and the part is not
            raise KeyboardInterrupt

    monkeypatch.setattr(PartWriter, "close", dying)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            killed.run(*rules)
    killed.run(*rules)
    assert killed.parts() == world.parts()


def test_a_sweep_counts_what_each_threshold_takes(world: World) -> None:
    world.run(DARK)
    run = find_tables(Store(world.workdir))
    found = sweep_of_score(run, "luma")
    luma = np.array([row["luma"] for key, row in world.rows("scores").items() if key != "photo8.png"], np.float64)
    assert [row.value for row in found.rows if row.now] == [60.0]
    for row in found.rows:
        assert (row.above, row.below) == ((luma > row.value).sum(), (luma < row.value).sum())
        assert [value for _, value in row.nearest_above] == sorted(luma[luma > row.value])[:6]
    assert "screen.drop.luma.above=" in found.command or "'above'" in found.command
    page = Path(write_score_sweep(run, found))
    assert page == world.workdir / "report/thresholds/luma.html"
    assert "Thresholds of luma" in page.read_text()
    assert not world.run(DARK)[0]
    assert page.exists()
    world.run("screen.drop={luma: {below: 80}}", "write=null")
    assert not page.exists()  # it told of other rejects
    with pytest.raises(ConfigError, match="--score lumen: no score of this run is called so; did you mean luma"):
        sweep_of_score(run, "lumen")
    with pytest.raises(ConfigError, match="--score wide: holds bool"):
        sweep_of_score(run, "wide")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("screen.looks=[blurr]", "screen.looks: .*no look is called blurr; did you mean blur"),
        ("screen.looks=sharp", "screen.looks: .*no look is called sharp; there are: blur, "),
        ("screen.faces=blurr", "screen.faces: .*of faces also score or blur"),
        ("screen.drop={blur: {abov: 1}}", "screen.drop.blur.bounds.abov: unknown key; did you mean 'above'"),
        ("screen.drop={blur: 0.8}", r"screen.drop.blur: no rule; give bounds such as \{above: 0.8\}, preset or true"),
        ("screen.where=width = = 3", "screen.where: .*cannot be read at character 9"),
    ],
)
def test_a_wrong_value_is_told_once_at_its_key(given: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        load_config("dedup", ["sources.pool=pool", "workdir=run", given])
    assert len(str(error.value).splitlines()) == 2


def test_one_look_is_given_by_its_name_alone() -> None:
    screen = load_config("dedup", ["sources.pool=pool", "workdir=run", "screen.looks=blur"]).screen
    assert screen.looks == ("blur",)
    assert load_config("dedup", ["sources.pool=pool", "workdir=run", "screen.looks=true"]).screen.looks is True
