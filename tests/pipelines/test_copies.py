"""`threshold: auto`: planted copies choose the thresholds of any model, in a space that was fitted to the pool."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import curate
from curate.engine.finished import Finished
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.ops.vectors import VectorSpec, to_float32, unpack
from curate.pipelines.copies import Copies
from curate.pipelines.dedup import Dedup
from curate.recipe import find_recipe, load_config
from curate.running import run_config
from curate.samples.bundled import PHOTOS
from curate.samples.pool import make_pool
from curate.stages.copies.calibrate import CalibrationFigures
from curate.stages.copies.copy_space import read_space
from curate.stages.copies.deduplicate import DeduplicateFigures
from curate.stages.copies.planted import read_planted
from curate.stages.search.neighbors import FindNeighbors

KEEP = ["copies.frames=keep-every"]
PLANT = ("copies.threshold=auto", "copies.embed.model=lite0", "copies.calibration.plant.copies_each=2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("auto")
    make_pool(root / "samples", num_images=90, seed=2)
    sources = [f"sources.{role}={root / 'samples' / role}" for role in ("pool", "curated", "heldout")]
    run_config(load_config("dedup", [*sources, f"workdir={root / 'run'}", *PLANT, "executor.threads=2"]), Flags())
    return Store(str(root / "run"))


def vectors_of(store: Store, name: str) -> dict[int, np.ndarray]:
    rows = store.table(name).read_all()
    spec = VectorSpec.of(rows.schema)
    stored, at = unpack(rows["vector"].combine_chunks(), spec)
    return dict(zip(rows["image_id"].to_numpy()[at].tolist(), to_float32(stored, spec), strict=True))


def test_planted_originals_have_the_vectors_of_the_pool(finished: Store) -> None:
    planted = read_planted(finished.table("internal/planted/copy"), half=0)
    known = vectors_of(finished, "embeddings/copy")
    originals = planted.number == 0
    assert 20 < originals.sum() < 60
    cosine = [planted.vectors[row] @ known[planted.image_ids[row]] for row in np.flatnonzero(originals)]
    assert min(cosine) > 0.97  # decoded at another size
    assert len(np.unique(planted.vectors, axis=0)) > 2 * originals.sum()


def test_vectors_in_the_space_are_the_projected_ones(finished: Store) -> None:
    space = read_space(finished.table("internal/space/copy"))
    for name, projected in (
        ("embeddings/copy", "internal/space/embeddings"),
        ("internal/embeddings/within_border", "internal/space/within"),
    ):
        vectors, found = vectors_of(finished, name), vectors_of(finished, projected)
        assert vectors.keys() == found.keys()
        assert len(vectors) > 3
        for image_id, vector in list(vectors.items())[:20]:
            assert space.project(vector[None])[0] @ found[image_id] > 0.999


def test_the_measured_rule_is_that_of_every_stage(finished: Store) -> None:
    measured = CalibrationFigures.of(finished.table("internal/thresholds/copy"))

    def resolved(name: str, *fields: str) -> list[float]:
        found = finished.table(name).complete_manifest().resolved
        return [found[field] for field in fields]

    both = ("threshold", "heldout_threshold")
    assert resolved("internal/candidates/near", *both) == [measured.floor] * 2
    assert resolved("internal/neighbors/copy", *both) == [measured.sure] * 2
    assert resolved("internal/candidates/pairs", *both) == [measured.sure] * 2
    assert resolved("internal/crowds", "alike") == [measured.alike]
    assert resolved("internal/neighbors/aligned", *both) == [measured.pool.threshold, measured.heldout.threshold]
    assert measured.heldout.threshold <= measured.pool.threshold
    assert measured.floor < measured.alike < measured.sure
    assert measured.pool.precision >= 0.99
    assert measured.pool.recall > 0.4
    assert DeduplicateFigures.of(finished.table("duplicates")).duplicate > 0


def test_too_few_images_and_two_ways_to_judge_are_errors(tmp_path: Path) -> None:
    make_pool(tmp_path / "samples", num_images=40, seed=2)
    given = [f"sources.pool={tmp_path / 'samples' / 'pool'}", f"workdir={tmp_path / 'run'}", *PLANT]
    with pytest.raises(ConfigError, match="at least 50 are needed"):
        run_config(load_config("dedup", given), Flags())
    with pytest.raises(ConfigError, match="threshold=auto measures how pairs are verified; set verify=auto, or"):
        load_config("dedup", [*given, "copies.verify=false"])
    with pytest.raises(ConfigError, match="threshold=auto measures the thresholds; leave heldout_threshold=0.7 out"):
        load_config("dedup", [*given, "copies.heldout_threshold=0.7"])


def test_where_thresholds_are_measured_or_known_doubtful_pairs_are_verified() -> None:
    given = {"model": "lite0"}
    assert Copies(embed=given, threshold="auto").verifies
    assert Copies(embed=given, threshold="auto", verify=True).verifies
    assert not Copies(embed=given).verifies
    known = {"model": "lite0-copy"}
    assert Copies(embed=known).verifies
    assert not Copies(embed=known, verify=False).verifies
    assert Copies(embed=known, threshold=0.9).verifies
    assert not Copies(embed=known, threshold=0.9, verify=False).verifies
    assert not Copies(embed=given, threshold=0.9).verifies


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("neighbors.threshold", "threshold"),
        ("neighbors.heldout_threshold", "heldout_threshold"),
        ("judge.least_cosine", "threshold"),
        ("judge.heldout_least_cosine", "heldout_threshold"),
    ],
)
def test_thresholds_are_set_in_one_place(tmp_path: Path, key: str, instead: str) -> None:
    given = [f"sources.pool={tmp_path}", f"workdir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=rf"{key}=0.9: set copies\.{instead}=0.9 instead"):
        load_config("dedup", [*given, f"copies.{key}=0.9"])


def declared(tmp_path: Path, *changes: str) -> dict[str, Any]:
    given = [f"sources.pool={tmp_path}", f"workdir={tmp_path / 'run'}"]
    config = load_config("dedup", [*given, *changes])
    p = find_recipe(config.recipe).outline(Store(config.workdir), config)
    return {name: stage for step in p.steps for name, stage in step.stages.items()}


def test_a_given_threshold_goes_to_the_stages_that_it_changes(tmp_path: Path) -> None:
    """Above the model's floor nothing is searched or laid over anything again."""
    known, given = declared(tmp_path), declared(tmp_path, "copies.threshold=0.95")
    assert {name for name in known if known[name] != given[name]} == {
        "internal/neighbors/copy",
        "internal/neighbors/aligned",
    }
    within = declared(tmp_path, "copies.threshold=0.8")
    assert {name for name in known if known[name] != within[name]} == {"internal/neighbors/aligned"}
    heldout = declared(tmp_path, "copies.heldout_threshold=0.8")
    assert {name for name in known if known[name] != heldout[name]} == {"internal/neighbors/aligned"}
    below = declared(tmp_path, "copies.threshold=0.5")
    near, pairs = below["internal/candidates/near"], below["internal/candidates/pairs"]
    assert (near.threshold, near.heldout_threshold, pairs.floor, pairs.heldout_floor) == (0.5, 0.5, 0.5, None)
    apart = declared(tmp_path, "copies.heldout_threshold=0.5")["internal/candidates/pairs"]
    assert (apart.floor, apart.heldout_floor) == (0.7, 0.5)
    alone = declared(tmp_path, "copies.threshold=0.8", "copies.verify=false")["internal/neighbors/copy"]
    assert (alone.threshold, alone.heldout_threshold) == (0.8, 0.78)


def test_heldout_images_compared_more_strictly_than_the_pool_are_told(tmp_path: Path) -> None:
    for changes in ([], ["copies.verify=false"]):
        stages = declared(tmp_path, "copies.threshold=0.8", "copies.heldout_threshold=0.9", *changes)
        judge = stages["internal/neighbors/copy" if changes else "internal/neighbors/aligned"]
        nobody = Finished(Store(tmp_path), "dedup", {}, ())
        (text,) = judge.warn(nobody.store.table("none"), nobody)
        assert "Set copies.heldout_threshold to 0.8 at most, or leave it out" in text


@pytest.mark.parametrize("borders", [True, False])
def test_borders_are_left_to_the_config_for_embeddings_and_hashes(tmp_path: Path, borders: bool) -> None:
    given = [f"sources.pool={tmp_path}", f"workdir={tmp_path / 'run'}", f"copies.borders={str(borders).lower()}"]
    config = load_config("dedup", given)
    p = find_recipe(config.recipe).outline(Store(config.workdir), config)
    stages = {name: stage for step in p.steps for name, stage in step.stages.items()}
    inputs = {name: step.inputs for step in p.steps for name in step.stages}
    assert ("internal/embeddings/within_border" in stages) == borders
    assert bool(inputs["internal/candidates/near"]["within"]) == borders
    assert stages["internal/neighbors/pdq"].lists.borders == borders


@pytest.mark.parametrize("search", ["neighbors", "hash_neighbors"])
def test_lists_are_set_in_one_place(tmp_path: Path, search: str) -> None:
    given = [f"sources.pool={tmp_path}", f"workdir={tmp_path / 'run'}"]
    config = load_config("dedup", [*given, "copies.build_lists.num_probes=7"])
    steps = find_recipe(config.recipe).outline(Store(config.workdir), config).steps
    searches = [stage for step in steps for stage in step.stages.values() if isinstance(stage, FindNeighbors)]
    assert [stage.lists.num_probes for stage in searches] == [7, 7]
    with pytest.raises(ConfigError, match=rf"{search}\.lists: set build_lists instead"):
        load_config("dedup", [*given, f"copies.{search}.lists.num_probes=7"])


def test_frames_of_bursts_are_kept_where_the_config_says_so(tmp_path: Path) -> None:
    given = [f"sources.pool={tmp_path}", f"workdir={tmp_path / 'run'}"]
    for named, every in (([], None), (["copies.frames=keep-every"], 10), ([*KEEP, "copies.keep_every=4"], 4)):
        config = load_config("dedup", [*given, *named])
        assert isinstance(config, Dedup)
        assert config.copies.judges.keep_every == every
    with pytest.raises(ConfigError, match="deduplicate.keep_every=4: set frames=keep-every and keep_every=4 instead"):
        load_config("dedup", [*given, "copies.deduplicate.keep_every=4"])


def test_of_a_video_every_so_manieth_frame_stays(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    still = np.asarray(Image.open(sorted(PHOTOS.rglob("*.jpg"))[0]).convert("RGB").resize((300, 220)))
    for frame in range(9):  # a camera that moves slowly
        Image.fromarray(still[:200, 2 * frame : 2 * frame + 280]).save(pool / f"frame{frame}.png")
    (pool / "frame4b.png").write_bytes((pool / "frame4.png").read_bytes())
    frames = {"frames": "keep-every", "keep_every": 4}
    (group,) = curate.find_copies(str(pool), copies=frames, executor={"threads": 1})
    assert [image.key for image in group.images if image.kept] == ["frame0.png", "frame4.png", "frame8.png"]
    assert (len(group.images), group.kept.key) == (10, "frame0.png")
    assert {image.key for image in group.copies} == {f"frame{name}.png" for name in (1, 2, 3, "4b", 5, 6, 7)}
