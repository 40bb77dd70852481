"""A folder of pictures with `metadata.jsonl`, as `datasets.load_dataset("imagefolder", data_dir=...)` reads it."""

import json

from curate.answers.write.files import Files, Link
from curate.answers.write.images import Images
from curate.answers.write.output import Output
from curate.answers.write.written import Count

METADATA = "metadata.jsonl"


def write_folder(images: Images, out: Output, count: Count, *, link: Link | None = None) -> None:
    """Pictures under their own names, and a line for each in `metadata.jsonl`."""
    files = Files(images, out)
    files.write(count, link=link)
    with out.publish(METADATA) as file:
        for name, row in files.described():
            line = json.dumps({"file_name": name, **row}, ensure_ascii=False)
            file.write(f"{line}\n".encode())
