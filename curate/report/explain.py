"""The story of one image: where it came from, which stage kept or dropped it, and why.

Each stage tells its own part (`Stage.explain`); here the image is found (`finding.py`) and the parts are put in order.
"""

from collections.abc import Iterator

from curate.engine.finished import Finished
from curate.report.finding import find_image
from curate.report.sections import outdated
from curate.text import visible


def explain(run: Finished, image: str) -> str:
    """Tell the story of one image, in lines of text.

    Args:
        image: image_id, key, SOURCE/KEY, uri, path, the last steps of one of these, or a part of a name.

    Raises:
        CurateError: no image or more than one fits; the message names candidates.
    """
    return "\n".join(_lines(run, find_image(run, image)))


def _lines(run: Finished, image_id: int) -> Iterator[str]:
    image = run.place(image_id)
    yield f"image {image_id} (part {image.part}, row {image.place})"
    for stage, table in run.tables:
        word = stage.explained_as or table.name.rpartition("/")[2]
        for number, line in enumerate(stage.explain(image, table, run)):
            yield f"  {word if number == 0 else '':<10} {visible(line, keep='')}"
    yield from (f"  {line}" for line in outdated(run))
