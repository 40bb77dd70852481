"""A Hugging Face data set: Parquet shards with the pictures, which `datasets.load_dataset("OUT")` reads as they are."""

import itertools
from collections.abc import Iterator

import pyarrow as pa

from curate.answers.write.images import Images
from curate.answers.write.output import Output
from curate.answers.write.sharding import count_shards, cut_shards
from curate.answers.write.written import Count
from curate.sealing import SealedWriter
from curate.stages.selection.own_columns import arrow_types
from curate.tables import HF_IMAGE, huggingface_schema

GROUP_BYTES = 32 << 20
"""Bytes of pictures in a row group, about: what a reader holds at once."""


def write_huggingface(images: Images, out: Output, count: Count, *, shard_bytes: int) -> None:
    """`data/train-00000-of-00012.parquet` and so on."""
    total, schema = count_shards(images, shard_bytes), _schema(images)
    for shard, pieces in itertools.groupby(cut_shards(images, shard_bytes), key=lambda piece: piece[0]):
        name = f"data/train-{shard:05d}-of-{total:05d}.parquet"
        if out.has(name):
            count.have(sum(len(rows) for _, rows in pieces))
            continue
        with out.publish(name) as file:
            writer = SealedWriter(file, schema, compression="zstd", use_dictionary=False)
            try:
                for _, rows in pieces:
                    for group in _groups(images, rows, schema, count):
                        writer.write_table(group)
            except BaseException:
                writer.abandon()
                raise
            writer.close()


def _schema(images: Images) -> pa.Schema:
    """The picture, its provenance and the sources' own columns."""
    names, types = images.own_names(), arrow_types(images.own_columns)
    own = [pa.field(names[name], types[name]) for name in images.own_columns]
    return huggingface_schema([pa.field("image", HF_IMAGE), *images.fields, *own])


def _groups(images: Images, rows: pa.RecordBatch, schema: pa.Schema, count: Count) -> Iterator[pa.Table]:
    """Some images with their bytes, a row group at a time."""
    columns = {name: rows[name] for name in images.columns} | images.own_values(rows)
    told = pa.table(columns)
    held: list[int] = []
    pictures: list[dict[str, object]] = []
    num_bytes = 0
    for place, (key, read) in enumerate(zip(rows["key"].to_pylist(), images.read(rows), strict=True)):
        if read.data is None:
            count.lose()
            continue
        held.append(place)
        pictures.append({"bytes": read.data, "path": key})
        num_bytes += len(read.data)
        if num_bytes >= GROUP_BYTES:
            yield _group(told, held, pictures, schema)
            count.have(len(held))
            held, pictures, num_bytes = [], [], 0
    if held:
        yield _group(told, held, pictures, schema)
        count.have(len(held))


def _group(told: pa.Table, held: list[int], pictures: list[dict[str, object]], schema: pa.Schema) -> pa.Table:
    rows = told.take(pa.array(held))
    columns = {"image": pa.array(pictures, HF_IMAGE), **{name: rows[name] for name in rows.column_names}}
    return pa.table({name: columns[name] for name in schema.names}, schema)
