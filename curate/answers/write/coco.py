"""A data set in the format of COCO: `images/` and `annotations.json`, as `pycocotools` and torchvision read them.

Categories are the labels that the sources give. A label is one of the whole image, so annotations have no boxes: tools
for detection find none to learn from.
"""

import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

from curate.answers.write.files import Files, Link
from curate.answers.write.images import LABEL, Images
from curate.answers.write.output import Output
from curate.answers.write.written import Count


def write_coco(images: Images, out: Output, count: Count, *, link: Link | None = None) -> None:
    """Pictures in `images/`, and `annotations.json`."""
    files, label = Files(images, out, "images"), images.own_names().get(LABEL)
    files.write(count, link=link)
    labels = {str(row[label]) for _, row in files.described() if row[label] is not None} if label else set[str]()
    category = {name: number for number, name in enumerate(sorted(labels), start=1)}
    with out.publish("annotations.json") as file:
        file.write(b'{"info": {"description": "images of a run of curate"}, "licenses": [],\n"categories": ')
        _write_list(file, ({"id": number, "name": name} for name, number in category.items()))
        file.write(b',\n"images": ')
        _write_list(file, (_image(name, row) for name, row in files.described()))
        file.write(b',\n"annotations": ')
        _write_list(file, _annotations(files, label, category))
        file.write(b"}\n")


def _image(name: str, row: dict[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in row.items() if value is not None and key != "image_id"}
    return {"id": row["image_id"], "file_name": name, **known}


def _annotations(files: Files, label: str | None, category: dict[str, int]) -> Iterator[dict[str, Any]]:
    labeled = ((row["image_id"], row[label]) for _, row in files.described() if row[label] is not None) if label else ()
    for number, (image_id, value) in enumerate(labeled, start=1):
        yield {"id": number, "image_id": image_id, "category_id": category[str(value)]}


def _write_list(file: IO[bytes], rows: Iterable[Any]) -> None:
    """A JSON list, one item a line."""
    file.write(b"[")
    for number, row in enumerate(rows):
        file.write(f"{',' if number else ''}\n{json.dumps(row, ensure_ascii=False)}".encode())
    file.write(b"]")
