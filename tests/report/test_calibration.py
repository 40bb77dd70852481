"""The section of calibration: the chosen thresholds, and the curves that they come from."""

from curate.report.run import Run
from curate.report.sections import calibration
from curate.tables import THRESHOLDS, planted_schema
from tests.report.workdir import Workdir, put, rows

USES = {"pool": 0.875, "heldout": 0.8}


def test_chosen_thresholds_stand_below_their_curves(workdir: Workdir) -> None:
    curve = [(None, 0.9 - 0.1 * step, 1 - 0.1 * step, 0.9 - 0.1 * step, 0.2 * step) for step in range(5)]
    measured = {"precision": 0.99, "precision_low": 0.9, "recall": 0.5}
    chosen = {use: {"threshold": at} | measured for use, at in USES.items()}
    listed = [(use, *values.values()) for use, values in chosen.items()]
    put(workdir.store, "thresholds/copy", [rows(THRESHOLDS, *listed, *curve)], stage="Calibrate", metrics=chosen)
    empty = planted_schema(8, model="toy", weights="").empty_table()
    put(workdir.store, "planted/copy", [empty], stage="PlantCopies", metrics={"images": 50, "copies": 150})
    found = str(calibration.section(Run.open(workdir.store)))
    assert "150 copies of 50 images" in found
    assert found.count('class="line') == 2
    assert "<td>within the pool</td>" in found
    assert "0.875" in found
    assert "0.800" in found


def test_runs_with_known_thresholds_have_no_section(workdir: Workdir) -> None:
    assert calibration.section(Run.open(workdir.store)) is None
