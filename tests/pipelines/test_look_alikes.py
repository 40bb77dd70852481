"""Letters of one head are not copies of each other: by default they stay, and the run says so."""

import logging
import re
from pathlib import Path

import pytest

import curate
from benchmarks.domains import draw_domain
from curate.stages.copies.deduplicate import Deduplicate

NUM = 14


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Distinct letters, a copy of the first as a JPEG; held out: another letter, and a copy of the second."""
    root = tmp_path_factory.mktemp("letters")
    for role in ("pool", "heldout"):
        (root / role).mkdir()
    letters = draw_domain("pages", NUM + 1, seed=4)
    for i, letter in enumerate(letters[:NUM]):
        letter.save(root / "pool" / f"{i:02}.png")
    letters[0].save(root / "pool" / "copy.jpg", quality=70)
    letters[NUM].save(root / "heldout" / "other.png")
    letters[1].save(root / "heldout" / "copy.jpg", quality=70)
    return {role: str(root / role) for role in ("pool", "heldout")}


@pytest.fixture(scope="module")
def judged(sources: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> curate.Run:
    workdir = tmp_path_factory.mktemp("judged") / "run"
    return curate.run("dedup", sources=sources, workdir=str(workdir), **SMALL)


SMALL = {"executor": {"threads": 1}}


def test_letters_stay_and_copies_of_them_go(judged: curate.Run) -> None:
    summary = judged.summary
    assert (summary.listed, summary.duplicates, summary.contaminated) == (NUM + 1, 1, 1)
    key = dict(judged.tables["catalog"].to_pandas()[["image_id", "key"]].to_numpy().tolist())
    rows = judged.tables["duplicates"].to_pandas()
    gone = {key[row.image_id]: row.verdict for row in rows.itertuples() if row.verdict != "kept"}
    assert gone.pop("01.png") == "benchmark"
    assert list(gone.items()) in ([("copy.jpg", "duplicate")], [("00.png", "duplicate")])


def test_it_is_told_before_the_verdicts_and_in_report_and_card(
    judged: curate.Run, sources: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = list(judged.tables)
    assert names.index("internal/crowds") < names.index("duplicates")
    page = Path(judged.report).read_text()
    assert "pictures look alike" in page
    assert "copies.crowds=trust" in page
    assert "Pictures that look alike" in page
    card = (Path(judged.shards).parent / "README.md").read_text()
    assert "look alike" in card
    with caplog.at_level(logging.WARNING, logger="curate"):
        trusted = curate.run(
            "dedup", sources=sources, workdir=str(tmp_path / "run"), copies={"crowds": "trust"}, write=None
        )
    assert not [record for record in caplog.records if "look alike" in record.getMessage()]
    # What the default guards against: the letters chain together, and the held-out one takes them all.
    assert trusted.summary.duplicates + trusted.summary.contaminated > NUM - 3
    assert "internal/crowds" not in trusted.tables


def test_without_verification_only_hashes_join_letters(sources: dict[str, str], tmp_path: Path) -> None:
    run = curate.run("dedup", sources=sources, workdir=str(tmp_path / "run"), copies={"verify": False}, write=None)
    assert (run.summary.duplicates, run.summary.contaminated) == (1, 1)
    stage, table = run.finished.only(Deduplicate)
    (gone,) = [row for row in table.read_all().to_pylist() if row["verdict"] == "duplicate"]
    lines = stage.explain(run.finished.place(gone["image_id"]), table, run.finished)
    assert any(re.search(r"by hash, the threshold is 0\.68", line) for line in lines)
