"""`shards/croissant.json`: the data set as Croissant tells of it, for search engines, loaders and whoever audits it.

Croissant 1.1 (MLCommons, JSON-LD on schema.org) with its vocabulary of responsible AI (RAI 1.0). Each shard is a
FileObject with size and SHA-256, all of them together the FileSet from which the records are read, and each column a
field with its meaning. What the run knows it says itself: where the pictures came from, what was done to them and what
was not looked for. What only the publisher knows (`write.publish`) is left out where he does not say it.

No path of a machine, no address with a secret and no time of a clock is in it, so that equal shards get equal bytes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from curate import __version__
from curate.config import without_folder
from curate.engine.finished import Finished
from curate.engine.numbers import count, plural
from curate.engine.show import FlowStep
from curate.report.sections import facts
from curate.shard_manifest import DATA, ShardManifest
from curate.stages.selection.publish import Publish
from curate.stages.selection.write_shards import WriteShards
from curate.tables import BLUR_COLUMNS, SHARD_COLUMNS

CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
PARQUET = "application/x-parquet"
RECORDS, FILES = "images", "shards"
"""Names of the record set and of the set of files."""
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field"),
            *("fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath"),
            *("key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace"),
            *("samplingRate", "separator", "source", "subField", "transform"),
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
"""The context of the specification, appendix 1, and the namespace of PROV-O."""
TYPES = {
    pa.bool_(): "sc:Boolean",
    pa.int32(): "cr:Int32",
    pa.int64(): "cr:Int64",
    pa.float32(): "cr:Float32",
    pa.float64(): "cr:Float64",
    pa.string(): "sc:Text",
}
SHOWN_CLASSES = 100
"""Names of classes that the description of a column tells at most."""


def render_croissant(
    run: Finished,
    write: WriteShards,
    manifest: ShardManifest,
    schema: pa.Schema,
    *,
    publish: Publish,
    unchecked: Sequence[str],
) -> bytes:
    """The whole file; equal shards and settings give equal bytes.

    Args:
        schema: that of the shards.
        unchecked: what was not looked for, in words.
    """
    found = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": publish.name or run.name,
        "description": publish.description or _description(run, manifest),
        "conformsTo": list(CONFORMS_TO),
        "license": publish.license,
        "url": publish.url,
        "creator": [{"@type": "sc:Organization", "name": name} for name in publish.creators],
        "datePublished": publish.date_published,
        "version": publish.version,
        "citeAs": publish.citation,
        "keywords": ["images", "self-supervised", "curated", without_folder(run.recipe)],
        "isLiveDataset": False,
        **dict(_responsible(run, publish, unchecked)),
        **_provenance(run),
        "distribution": [*_files(manifest), _file_set(manifest)],
        "recordSet": [_records(write, schema)],
    }
    told = {key: value for key, value in found.items() if value not in (None, [], ())}
    return (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def left_out(publish: Publish) -> list[str]:
    """What Croissant asks every data set for and the publisher has not said, as keys of the config."""
    needed = {"license": publish.license, "url": publish.url, "creators": publish.creators}
    needed |= {"date_published": publish.date_published}
    return [f"write.publish.{name}" for name, value in needed.items() if not value]


def _description(run: Finished, manifest: ShardManifest) -> str:
    rows = sum(shard.rows for shard in manifest.shards)
    listed = 0 if run.catalog is None else run.catalog.num_rows()
    return (
        f"{plural(rows, 'image')} in {plural(len(manifest.shards), 'shuffled Parquet shard')}, "
        f"chosen from {count(listed)} listed images by the recipe {without_folder(run.recipe)} of curate."
    )


def _files(manifest: ShardManifest) -> Iterator[dict[str, Any]]:
    for shard in manifest.shards:
        yield {
            "@type": "cr:FileObject",
            "@id": shard.name,
            "name": shard.name.rpartition("/")[2],
            "description": plural(shard.rows, "image"),
            "contentUrl": shard.name,
            "contentSize": f"{shard.num_bytes} B",
            "encodingFormat": PARQUET,
            "sha256": shard.sha256,
        }


def _file_set(manifest: ShardManifest) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": FILES,
        "name": FILES,
        "description": f"All {plural(len(manifest.shards), 'shard')}",
        "encodingFormat": PARQUET,
        "includes": f"{DATA}/*.parquet",
    }


def _records(write: WriteShards, schema: pa.Schema) -> dict[str, Any]:
    classes = {} if isinstance(write.classes, str) else write.classes
    docs = {field.name: _doc(field) for field in (*SHARD_COLUMNS, *BLUR_COLUMNS)}
    fields = []
    for field in schema:
        doc = docs.get(field.name) or f"of the sources, {_told(classes.get(field.name))}; null where they do not say"
        fields.append(_field(field, doc))
    return {
        "@type": "cr:RecordSet",
        "@id": RECORDS,
        "name": RECORDS,
        "description": "One record an image.",
        "key": {"@id": _id("image_id")},
        "field": fields,
    }


def _told(names: Sequence[str] | None) -> str:
    if names is None:
        return "as they give it"
    more = ", ..." if len(names) > SHOWN_CLASSES else ""
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(names[:SHOWN_CLASSES]))
    return f"a number of {plural(len(names), 'class', 'classes')}: {shown}{more}"


def _doc(field: pa.Field) -> str:
    return (field.metadata or {}).get(b"doc", b"").decode()


def _id(*names: str) -> str:
    """An IRI for names of strangers: unique, and without characters that an IRI may not hold."""
    return "/".join([RECORDS, *(quote(name, safe="") for name in names)])


def _field(field: pa.Field, doc: str) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": FILES}, "extract": {"column": field.name}}
    found: dict[str, Any] = {"@type": "cr:Field", "@id": _id(field.name), "name": field.name, "description": doc}
    dtype = field.type
    if field.name == "image":
        return found | {"dataType": "sc:ImageObject", "source": source | {"transform": {"jsonPath": "bytes"}}}
    if pa.types.is_list(dtype):
        found |= {"isArray": True, "arrayShape": "-1"}
        dtype = dtype.value_type
    if pa.types.is_struct(dtype):
        return found | {"subField": [_sub_field(field.name, inner, source) for inner in dtype]}
    return found | {"dataType": TYPES[dtype], "source": source}


def _sub_field(column: str, field: pa.Field, source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": _id(column, field.name),
        "name": field.name,
        "description": _doc(field),
        "dataType": TYPES[field.type],
        "source": {**source, "transform": {"jsonPath": field.name}},
    }


def _responsible(run: Finished, publish: Publish, unchecked: Sequence[str]) -> Iterator[tuple[str, Any]]:
    said = publish.responsible
    sources = "; ".join(facts(run).get("Sources", []))
    yield "rai:dataCollection", f"Pictures of these sources were listed: {sources}." if sources else None
    yield "rai:dataPreprocessingProtocol", [step_text(step) for step in run.flow()]
    yield "rai:dataLimitations", [f"Not screened for: {text}" for text in unchecked]
    yield "rai:dataBiases", said.biases
    yield "rai:dataUseCases", said.use_cases
    yield "rai:dataSocialImpact", said.social_impact
    yield "rai:dataCollectionTimeFrame", list(said.time_frame)
    yield "rai:personalSensitiveInformation", said.personal_information
    yield "rai:dataReleaseMaintenancePlan", said.maintenance


def step_text(step: FlowStep) -> str:
    """A step on the way to the result, in one line of plain text."""
    curated = f" and {count(step.curated)} curated" if step.curated else ""
    reasons = "; ".join(f"{reason}: {count(number)}" for reason, number in step.drops if number)
    note = f"; {step.note}" if step.note else ""
    return f"{step.name}: {count(step.pool)}{curated}{f' (kept out: {reasons})' if reasons else ''}{note}"


def _provenance(run: Finished) -> dict[str, Any]:
    """What the data set was made from, and by what: sources by their names in the config, which are no paths."""
    names = dict.fromkeys(run.parts.source)
    label = f"curate-vision {__version__}, recipe {without_folder(run.recipe)}"
    return {
        "prov:wasDerivedFrom": [{"@type": "prov:Entity", "prov:label": name} for name in names],
        "prov:wasGeneratedBy": {"@type": "prov:Activity", "prov:label": label},
    }
