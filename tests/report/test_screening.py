"""The section of screening: bounds, counts, and pictures of what was kept out."""

from curate.report.pictures import Pictures
from curate.report.run import Run
from curate.report.sections import screening
from curate.tables import SCREENED
from tests.report.workdir import HOSTILE, Workdir, put, rows


def test_images_kept_out_are_shown_by_their_reason(workdir: Workdir) -> None:
    i = workdir.ids
    judged = [
        (i["a.jpg"], 0.5, 0.45, False),
        (i["b.jpg"], 0.95, 0.45, True),
        (i["left.jpg"], 0.4, 0.45, False),
        (i[HOSTILE], None, 0.01, True),
    ]
    metrics = {"junk": 2, "too_alike": 1, "low": 0.1, "high": 0.9}
    parts = [rows(SCREENED, *sorted(judged)), rows(SCREENED), rows(SCREENED)]
    put(workdir.store, "screened", parts, stage="Screen", metrics=metrics)
    found = str(screening.section(Run.open(workdir.store), Pictures(workdir.store)))
    assert "2 images kept out of the balanced draw, 1 of them as more alike" in found
    assert "low 0.100" in found
    assert "images (log)" in found
    assert "high 0.900" in found
    assert found.count("<figure") == 2
    assert found.index("Kept out: too alike") < found.index("Kept out: like nothing else")


def test_runs_without_screening_have_no_section(workdir: Workdir) -> None:
    assert screening.section(Run.open(workdir.store), Pictures(workdir.store)) is None
