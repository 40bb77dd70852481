"""The evaluation against planted truth, on runs whose right answers are known by construction."""

import csv
import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import TableError
from curate.ops.entropy import normalized_entropy
from curate.samples.check import check_against_truth, format_check
from curate.samples.truth import TRUTH_COLUMNS
from curate.tables import CATALOG, DUPLICATES, IMAGES, SELECTION

TRUTH = [  # file, category, kind, copy_of, source
    ("pool/00.jpg", "birds", "original", "", "photos/birds/a.jpg"),
    ("pool/01.jpg", "birds", "near_crop", "pool/00.jpg", "photos/birds/a.jpg"),
    ("pool/02.jpg", "birds", "near_flip", "pool/00.jpg", "photos/birds/a.jpg"),
    ("pool/03.jpg", "birds", "view", "pool/00.jpg", "photos/birds/a.jpg"),
    ("pool/04.jpg", "birds", "near_crop", "pool/03.jpg", "photos/birds/a.jpg"),
    ("pool/05.jpg", "birds", "exact_copy", "pool/00.jpg", "photos/birds/a.jpg"),
    ("pool/06.jpg", "fish", "original", "", "photos/fish/b.jpg"),
    ("pool/07.jpg", "video_sea", "frame", "", "frames/sea_0_00.jpg"),
    ("pool/08.jpg", "video_sea", "frame", "pool/07.jpg", "frames/sea_0_01.jpg"),
    ("pool/09.jpg", "fish", "heldout_copy", "heldout/fish/c.jpg", "photos/fish/c.jpg"),
    ("pool/10.jpg", "fish", "heldout_copy", "heldout/fish/c.jpg", "photos/fish/c.jpg"),
    ("pool/11.jpg", "junk", "junk_noise", "", ""),
    ("pool/12.jpg", "junk", "junk_tiny", "", ""),
    ("heldout/fish/c.jpg", "fish", "heldout", "", "photos/fish/c.jpg"),
    ("curated/fish/d.jpg", "fish", "curated", "", "photos/fish/d.jpg"),
]
REJECTS = {"pool/11.jpg": "noise", "pool/12.jpg": "too_small"}
PERFECT = {  # components by file
    **dict.fromkeys(["pool/00.jpg", "pool/01.jpg", "pool/02.jpg", "pool/05.jpg"], 0),
    **dict.fromkeys(["pool/03.jpg", "pool/04.jpg"], 3),
    "pool/06.jpg": 6,
    **dict.fromkeys(["pool/07.jpg", "pool/08.jpg"], 7),
    **dict.fromkeys(["pool/09.jpg", "pool/10.jpg"], 9),
}
SELECTED = ("pool/00.jpg", "pool/06.jpg", "pool/07.jpg", "curated/fish/d.jpg")


def rows_of(schema, rows):
    blank = dict.fromkeys(schema.names)
    return pa.Table.from_pylist([{**blank, **row} for row in rows], schema=schema)


def write(workdir, name, table):
    (workdir / name).mkdir(parents=True)
    half = len(table) // 2
    pq.write_table(table[:half], workdir / name / "part-00000.parquet")
    pq.write_table(table[half:], workdir / name / "part-00001.parquet")


@pytest.fixture
def run(tmp_path):
    def make(components=PERFECT, *, rejects=REJECTS, benchmark=(9,), selected=SELECTED):
        workdir = tmp_path / "run"
        ids = {row[0]: i for i, row in enumerate(TRUTH)}
        roles = {file: file.split("/")[0] for file in ids}
        catalog = [
            {"image_id": i, "source": "s", "role": roles[file], "uri": f"/data/p/{file}", "key": file}
            for file, i in ids.items()
        ]
        write(workdir, "catalog", rows_of(CATALOG, catalog))
        images = [{"image_id": i, "reject": rejects.get(file)} for file, i in ids.items()]
        write(workdir, "images", rows_of(IMAGES, images))
        seen, duplicates = set(), []
        for file, component in components.items():
            verdict = "benchmark" if component in benchmark else "duplicate" if component in seen else "kept"
            seen.add(component)
            duplicates.append(
                {"image_id": ids[file], "component_id": component, "component_size": 1, "verdict": verdict}
            )
        write(workdir, "duplicates", rows_of(DUPLICATES, duplicates))
        if selected is not None:
            chosen = [{"image_id": ids[file], "clusters": [], "origins": [], "repeats": 1} for file in selected]
            write(workdir, "selection", rows_of(SELECTION, chosen))
        truth = tmp_path / "truth.csv"
        with truth.open("w", newline="") as file:
            csv.writer(file).writerows([TRUTH_COLUMNS, *TRUTH])
        return workdir, truth

    return make


def test_perfect_run_is_perfect(run):
    report = check_against_truth(*run())
    assert json.loads(json.dumps(report)) == report
    assert (report["accepted"], report["unmatched"]) == (11, 0)
    assert {kind: counts["recall"] for kind, counts in report["near"].items()} == {"near_crop": 1.0, "near_flip": 1.0}
    assert report["exact"] == {"planted": 1, "found": 1, "recall": 1.0, "missed": []}
    assert {k: report["pairs"][k] for k in ("planted", "true", "false", "f1")} == {
        "planted": 5,  # 00 01 02 make three, 03 04 one, 09 10 one
        "true": 5,
        "false": 0,
        "f1": 1.0,
    }
    assert report["junk"]["share_right"] == 1.0
    assert report["junk"]["good_rejected"] == {}
    assert report["contamination"] == {
        "copies": 2,
        "components": 1,
        "components_gone": 1,
        "left": [],
        "clean_lost": [],
    }
    assert report["frames"] == {"video_sea": {"accepted": 2, "kept": 1, "selected": 1}}


def test_pairs_equal_brute_force_for_any_components(run):
    components = dict(zip(PERFECT, [0, 0, 2, 0, 2, 2, 6, 6, 7, 6, 9], strict=True))
    pairs = check_against_truth(*run(components))["pairs"]
    truth = {row[0]: row for row in TRUTH}
    roots = dict(zip(PERFECT, "aaaabb", strict=False)) | {"pool/09.jpg": "c", "pool/10.jpg": "c"}
    planted = true = false = 0
    for a, b in itertools.combinations([file for file in PERFECT if truth[file][2] != "exact_copy"], 2):
        same_root = a in roots and roots.get(a) == roots.get(b)
        frames = truth[a][2] == truth[b][2] == "frame"
        planted += same_root
        if components[a] == components[b]:
            true += same_root
            false += truth[a][4] != truth[b][4] and not frames
    assert (pairs["planted"], pairs["true"], pairs["false"]) == (planted, true, false)
    assert pairs["precision"] == true / (true + false)
    assert pairs["recall"] == true / planted


def test_two_views_and_two_frames_count_neither_way(run):
    joined = {file: 0 if c == 3 else c for file, c in PERFECT.items()}
    pairs = check_against_truth(*run(joined))["pairs"]
    assert (pairs["precision"], pairs["recall"], pairs["mixed_components"]) == (1.0, 1.0, [])


def test_two_photographs_joined_are_named(run):
    joined = {file: 0 if c == 6 else c for file, c in PERFECT.items()}
    pairs = check_against_truth(*run(joined))["pairs"]
    assert pairs["false"] == 3  # fish with 00, 01, 02; the exact copy is left out
    assert pairs["mixed_components"] == [["photos/birds/a.jpg", "photos/fish/b.jpg"]]


def test_missed_copies_are_named(run):
    apart = PERFECT | {"pool/04.jpg": 4, "pool/05.jpg": 5}
    report = check_against_truth(*run(apart))
    assert report["near"]["near_crop"]["missed"] == ["pool/04.jpg"]
    assert report["near"]["near_crop"]["recall"] == 0.5
    assert report["near_recall"] == 2 / 3
    assert report["exact"]["missed"] == ["pool/05.jpg"]


def test_junk_accepted_or_rejected_otherwise_is_told_by_kind(run):
    report = check_against_truth(*run(rejects={"pool/11.jpg": "corrupt", "pool/06.jpg": "uniform"}))
    junk = report["junk"]
    assert (junk["planted"], junk["right"]) == (2, 0)
    assert junk["reasons"] == {"junk_noise": {"corrupt": 1}, "junk_tiny": {"accepted": 1}}
    assert junk["good_rejected"] == {"pool/06.jpg": "uniform"}


def test_surviving_contamination_and_clean_losses_are_named(run):
    apart = PERFECT | {"pool/10.jpg": 10}
    dirty = check_against_truth(*run(apart, benchmark=(9, 6)))["contamination"]
    assert (dirty["components"], dirty["components_gone"]) == (2, 1)
    assert dirty["left"] == ["pool/10.jpg"]
    assert dirty["clean_lost"] == ["pool/06.jpg"]


def test_entropy_compares_pool_and_selection_over_the_same_categories(run):
    entropy = check_against_truth(*run())["entropy"]
    assert entropy["pool"] == pytest.approx(normalized_entropy([6, 3, 2]))  # birds, fish, video
    assert entropy["selection"] == pytest.approx(normalized_entropy([1, 2, 1]))
    assert entropy["selection_from_pool"] == pytest.approx(1.0)
    assert entropy["gain"] == pytest.approx(entropy["selection"] - entropy["pool"])


def test_run_without_a_selection_has_no_entropy(run):
    report = check_against_truth(*run(selected=None))
    assert report["entropy"] is None
    assert "entropy" not in format_check(report)


def test_text_tells_the_figures(run):
    text = format_check(check_against_truth(*run()))
    for line in (
        "pairs within components: precision 1.0000, recall 1.0000, f1 1.0000",
        "contaminated components gone: 1 of 1 (2 copies of held-out pictures); clean images lost with them: 0",
        "video_sea          2 -> 1 kept, 1 selected",
        "junk rejected for the right reason: 2 of 2",
    ):
        assert line in text


def test_scenes_can_count_as_one_category(run):
    workdir, truth = run()
    text = truth.read_text().replace("pool/08.jpg,video_sea", "pool/08.jpg,video_hill")
    truth.write_text(text)
    entropy = check_against_truth(workdir, truth)["entropy"]
    assert entropy["pool"] == pytest.approx(normalized_entropy([6, 3, 1, 1]))
    assert entropy["video_as_one"]["pool"] == pytest.approx(normalized_entropy([6, 3, 2]))


def test_absent_and_foreign_files_are_errors(run, tmp_path):
    workdir, truth = run()
    other = tmp_path / "other.csv"
    other.write_text(",".join(TRUTH_COLUMNS) + "\nelsewhere/1.jpg,birds,original,,a\n")
    with pytest.raises(TableError, match="no pool image is named in"):
        check_against_truth(workdir, other)
    with pytest.raises(TableError, match=r"catalog: holds no part-\*.parquet"):
        check_against_truth(tmp_path / "nowhere", truth)
