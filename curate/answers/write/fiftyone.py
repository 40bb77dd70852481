"""A data set that FiftyOne imports as `FiftyOneImageClassificationDataset`; FiftyOne itself is not needed to write it.

    fiftyone.Dataset.from_dir("OUT", dataset_type=fiftyone.types.FiftyOneImageClassificationDataset)

Pictures lie in `data/`, and `labels.json` holds, by the name of each without its suffix, a label with attributes:
https://docs.voxel51.com/user_guide/dataset_creation/datasets.html. The label is the source's own where images have one;
where they have none and not all stay, it is the verdict. Everything else that is known becomes an attribute.
"""

import json
import posixpath
from typing import Any

from curate.answers.write.files import Files, Link
from curate.answers.write.images import LABEL, Images
from curate.answers.write.output import Output
from curate.answers.write.written import Count

FIELDS = frozenset(["id", "label", "confidence", "logits", "tags"])
"""What every classification of FiftyOne has, so that no attribute may be called so."""


def write_fiftyone(images: Images, out: Output, count: Count, *, link: Link | None = None) -> None:
    """Pictures in `data/`, and `labels.json`."""
    files = Files(images, out, "data")
    files.write(count, link=link)
    label = images.own_names().get(LABEL) or "verdict"
    with out.publish("labels.json") as file:
        file.write(b'{"labels": {')
        for number, (name, row) in enumerate(files.described()):
            entry = f"{json.dumps(posixpath.splitext(name)[0])}: {json.dumps(_labeled(row, label))}"
            file.write(f"{',' if number else ''}\n{entry}".encode())
        file.write(b"\n}}\n")


def _labeled(row: dict[str, Any], label: str) -> dict[str, Any]:
    """A classification with attributes, those that are known."""
    known = ((name, value) for name, value in row.items() if value is not None and name != label)
    attributes = {f"source_{name}" if name in FIELDS else name: value for name, value in known}
    value = row.get(label)
    return {"label": None if value is None else str(value), "attributes": attributes}
