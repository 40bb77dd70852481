"""`threshold: auto`: planted copies choose the thresholds of any model, in a space that was fitted to the pool."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import curate
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.ops.vectors import VectorSpec, to_float32, unpack
from curate.pipelines.dedup import Dedup
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.bundled import PHOTOS
from curate.samples.pool import make_pool
from curate.stages.copies.calibrate import CalibrationFigures
from curate.stages.copies.copy_space import read_space
from curate.stages.copies.deduplicate import DeduplicateFigures
from curate.stages.copies.planted import read_planted
from curate.workdir import open_record

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
    space, projected = (
        read_space(finished.table("internal/space/copy")),
        vectors_of(finished, "internal/embeddings/space"),
    )
    for image_id, vector in list(vectors_of(finished, "embeddings/copy").items())[:20]:
        assert space.project(vector[None])[0] @ projected[image_id] > 0.999


def test_measured_thresholds_are_those_of_the_search(finished: Store) -> None:
    measured = CalibrationFigures.of(finished.table("internal/thresholds/copy"))
    found = finished.table("internal/neighbors/copy").complete_manifest().resolved
    assert found["threshold"] == measured.pool.threshold
    assert found["heldout_threshold"] == measured.heldout.threshold <= measured.pool.threshold
    assert measured.pool.precision >= 0.99
    assert measured.pool.recall > 0.4
    assert not any("candidates" in name for name in open_record(finished).tables)
    assert DeduplicateFigures.of(finished.table("duplicates")).duplicate > 0


def test_too_few_images_and_two_ways_to_judge_are_errors(tmp_path: Path) -> None:
    make_pool(tmp_path / "samples", num_images=40, seed=2)
    given = [f"sources.pool={tmp_path / 'samples' / 'pool'}", f"workdir={tmp_path / 'run'}", *PLANT]
    with pytest.raises(ConfigError, match="at least 50 are needed"):
        run_config(load_config("dedup", given), Flags())
    with pytest.raises(ConfigError, match="set verify=auto or false"):
        load_config("dedup", [*given, "copies.verify=true"])


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
