"""The section of the levels: a row for each, and one for the assigned images."""

import re
from dataclasses import replace

from curate.report.run import Run
from curate.report.sections import levels
from tests.report.test_markup import read
from tests.report.workdir import Workdir


def test_every_level_has_its_figures(workdir: Workdir) -> None:
    made = levels.section(Run.open(workdir.store))
    rows = re.findall(r"<tr>(<td>.*?)</tr>", str(made))
    cells = [[read(cell).text.strip() for cell in re.findall(r"<td.*?</td>", row)] for row in rows]
    assert cells == [
        ["leaves", "2", "1", "1.88", "1.8", "1", "3", "3", "2"],  # 3 x (9 + 1) / 16
        ["level 1", "1", "0", "1.00", "1.0", "4", "4", "4", "1"],
        ["leaves in assignments, all images", "2", "0", "1.25", "1.8", "1", "3", "3", ""],
    ]
    assert str(made).count('class="line') == 2


def test_centroids_without_levels_have_no_section(workdir: Workdir) -> None:
    run = Run.open(workdir.store)
    centroids = run.manifests["centroids"]  # parsed once for all who read the same bytes: replaced, never changed
    run.manifests["centroids"] = replace(centroids, metrics={"clusters": centroids.metrics["clusters"]})
    assert levels.section(run) is None
