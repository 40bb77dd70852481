"""THE data contract: every table, every column with its meaning, unit and dtype.

A table is a folder of `part-00000.parquet ...` and `_table.json` (see `curate/engine/table.py`). Rows are keyed by
`image_id = (part << 32) | row`, which locates an image in the catalog. Per-image tables named *aligned* keep
one row per catalog row, in the same parts and the same order, so joining them is a zip.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

ROLES = ("pool", "curated", "heldout")
POOL, CURATED, HELDOUT = range(len(ROLES))
"""Numbers of the roles: their places in `ROLES`."""

REJECT_REASONS = (
    "unavailable",  # a busy server, a broken connection: no verdict, the next run reads it again
    "unreadable",  # listed, but it cannot be had: vanished, no permission, a null in Parquet
    "empty",  # the file holds no bytes
    "not_an_image",  # no known image format: HTML, text, an unknown container
    "unsupported",  # a known format, or a kind of one, that is not read
    "too_large",  # more pixels, bytes or memory to decode than allowed (decompression bomb)
    "too_slow",  # decoding takes more CPU time than allowed (a bomb of scans, comments or tiny pieces)
    "truncated",  # an image format whose data end early
    "corrupt",  # an image format whose data do not decode
    "extreme_aspect",  # long side / short side above the limit
    "too_small",  # short side below the limit
    "uniform",  # one color all over
    "noise",  # neighboring pixels are uncorrelated
)
"""Why an image is rejected, in order of precedence: the first reason that holds is the one recorded."""


REPEATS = b"curate.repeats"
"""Key of a column's metadata: few of its values are distinct, so that each is stored once a row group."""


def column(name: str, dtype: pa.DataType, doc: str, *, nullable: bool = False, repeats: bool = False) -> pa.Field:
    """A documented column; the text travels in the Parquet schema. `repeats`: few of its values are distinct."""
    return pa.field(name, dtype, nullable=nullable, metadata={b"doc": doc} | ({REPEATS: b""} if repeats else {}))


IMAGE_ID = column("image_id", pa.int64(), "(part << 32) | row: locates the image in the catalog")
VECTOR_META = (b"curate.dtype", b"curate.dim", b"curate.model", b"curate.weights")

CATALOG = pa.schema(
    [
        IMAGE_ID,
        column("source", pa.string(), "name of the source, as in the config"),
        column("role", pa.string(), "pool, curated or heldout; one part holds one source"),
        column(
            "uri",
            pa.string(),
            "file of the image, or its URL, *** for its secrets: readable, undecodable bytes escaped as \\xNN",
        ),
        column(
            "offset",
            pa.int64(),
            "bytes from the start of a tar, CSV, TSV or JSONL; null: none of these",
            nullable=True,
        ),
        column("length", pa.int64(), "bytes of the encoded image; null where only reading tells", nullable=True),
        column("row", pa.int64(), "row in a Parquet file or a table of URLs, from 0; null: in neither", nullable=True),
        column("key", pa.string(), "name within the source: relative path, of an archive's member ARCHIVE/NAME"),
        column("modified", pa.int64(), "modification time, ns since the epoch; null: unknown", nullable=True),
        column(
            "sidecars",
            pa.list_(
                pa.struct(
                    [
                        pa.field("kind", pa.string()),
                        pa.field("name", pa.string()),
                        pa.field("offset", pa.int64()),
                        pa.field("length", pa.int64()),
                    ]
                )
            ),
            "what lies beside the image and describes it: json, caption or label with its suffix (in a tar its bytes), "
            "or a row (offset) of a table; empty: nothing does; null: not known from listing",
            nullable=True,
        ),
    ]
)

IMAGES = pa.schema(
    [
        IMAGE_ID,
        column("sha256", pa.binary(32), "of the encoded bytes; null: unreadable", nullable=True),
        column("num_bytes", pa.int64(), "of the encoded image; null: unreadable", nullable=True),
        column("width", pa.int32(), "pixels, after EXIF rotation; null: header not readable", nullable=True),
        column("height", pa.int32(), "pixels, after EXIF rotation; null: header not readable", nullable=True),
        column("format", pa.string(), "by content: JPEG, PNG, WEBP, ...; null: unknown", nullable=True),
        column("pdq", pa.binary(32), "256-bit PDQ hash; null when rejected", nullable=True),
        column(
            "pdq_within_border",
            pa.binary(32),
            "the same of what a border of one color surrounds; null where there is none",
            nullable=True,
        ),
        column("pdq_quality", pa.int16(), "PDQ's own gradient measure, 0..100; null when rejected", nullable=True),
        column("luma_std", pa.float32(), "standard deviation of luma, 0..128; null: not decoded", nullable=True),
        column(
            "smoothness",
            pa.float32(),
            "correlation of neighboring luma pixels, -1..1; null: not decoded",
            nullable=True,
        ),
        column("reject", pa.string(), "null when accepted, else one of REJECT_REASONS", nullable=True),
        column("detail", pa.string(), "what was found and what is needed; null when accepted", nullable=True),
        column(
            "left_out",
            pa.list_(pa.string()),
            "kinds of values that the source's own columns lost: not_unicode, invalid_json, ...; null: none",
            nullable=True,
        ),
        column(
            "extra",
            pa.string(),
            "the source's own columns (caption, URL, license, label) as one JSON object; null: none",
            nullable=True,
        ),
    ]
)

DIGESTS = pa.schema(
    [
        IMAGE_ID,
        column("md5", pa.binary(16), "of the encoded bytes; null: unreadable", nullable=True),
        column("sha1", pa.binary(20), "of the encoded bytes; null: unreadable", nullable=True),
    ]
)
"""Of HashBytes, aligned with the catalog."""

NEIGHBORS = pa.schema(
    [
        column("query_id", pa.int64(), "image that was looked up"),
        IMAGE_ID,
        column(
            "similarity",
            pa.float32(),
            "cosine; for hashes 1 - 2 * Hamming / 256; aligned: score of one picture laid over the other",
        ),
        column("kind", pa.string(), "embedding, hash, aligned or sha256"),
    ]
)

CHOSEN = pa.schema([IMAGE_ID])
"""Images that a later pass opens, ascending."""

CONTAMINATED = pa.schema([IMAGE_ID])
"""Pool and curated images that resemble a held-out one."""

CROWDS = pa.schema(
    [
        IMAGE_ID,
        column("groups", pa.int16(), "groups of images that it resembles, 63 at most; no hash ties one to another"),
        column("hash_groups", pa.int16(), "the same by perceptual hashes alone"),
    ]
)

PAIRS = pa.schema(
    [
        column("query_id", pa.int64(), "one image of the pair: held-out, or the smaller id of its role"),
        IMAGE_ID,
        column("similarity", pa.float32(), "cosine of their copy embeddings"),
    ]
)

REGISTERED = pa.schema(
    [
        *PAIRS,
        column(
            "agreement",
            pa.float32(),
            "correlation of details that 4 of 5 tiles reach, one picture laid over the other; -1: it cannot be",
        ),
        column("least_agreement", pa.float32(), "the same that 9 of 10 tiles reach"),
        column("num_points", pa.int32(), "points of both pictures that agree on how to lay one over the other"),
    ]
)

FEATURES = pa.schema(
    [
        IMAGE_ID,
        column(
            "points", pa.binary(), "x, y of each point as uint16 in 64ths of a pixel; null: not opened", nullable=True
        ),
        column("descriptors", pa.binary(), "64 bytes of each point: 128 values of four bits", nullable=True),
        column("picture", pa.binary(), "luma at 320 pixels, a JPEG", nullable=True),
    ]
)

SURROUNDINGS = pa.schema(
    [
        IMAGE_ID,
        column("middle", pa.float32(), "median of the agreements with what it resembles, by Fisher's transform"),
        column("spread", pa.float32(), "their standard deviation"),
    ]
)

SCORE_META = (b"curate.model", b"curate.weights")
SCORE_CHECK, SENSITIVE = b"curate.check", b"curate.sensitive"
SCORE = b"curate.score"
"""Key of the metadata of a column of scores; its value says what `preset` means as a rule, as JSON, or nothing."""


def score(
    name: str,
    dtype: pa.DataType,
    doc: str,
    *,
    model: str | None = None,
    weights: str | None = None,
    preset: Mapping[str, float] | None = None,
    check: str | None = None,
    sensitive: bool = False,
) -> pa.Field:
    """A column of scores of the images, null where it was not measured; what made it travels in the Parquet schema.

    Args:
        name: of the column, unique among all scores; a rule on it gives it as its reason.
        dtype: bool, an integer, a float or text.
        doc: what is measured, with unit and range.
        model: what measures it, with its version; None: arithmetic on the picture.
        weights: SHA-256 of the weights; None: there are none.
        preset: what a rule on it is where the config says `preset`: `above` or `below` and the threshold.
        check: what a rule on it looks for, of `engine.show.Check`, as the dataset card asks; None: none of these.
        sensitive: pictures that it finds are shown blurred.
    """
    known = zip(SCORE_META, (model, weights), strict=True)
    told = {key: text.encode() for key, text in known if text is not None}
    told |= {SCORE_CHECK: check.encode()} if check else {}
    told |= {SENSITIVE: b""} if sensitive else {}
    rule = json.dumps(preset).encode() if preset else b""
    return column(name, dtype, doc, nullable=True).with_metadata({b"doc": doc.encode(), SCORE: rule, **told})


def is_score(field: pa.Field) -> bool:
    """Whether a column was made by `score`."""
    return SCORE in (field.metadata or {})


FACE = pa.struct(
    [
        pa.field("left", pa.float32(), nullable=False),
        pa.field("top", pa.float32(), nullable=False),
        pa.field("right", pa.float32(), nullable=False),
        pa.field("bottom", pa.float32(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
    ]
)
FACE_BOXES = column(
    "faces",
    pa.list_(FACE),
    "box of each face as shares of the upright picture's width and height, 0..1, and confidence, 0..1, falling",
    nullable=True,
)

BLUR = b"curate.blur"
"""Key of a schema's metadata: how faces are blurred, as JSON."""
BLURS = pa.schema(
    [
        IMAGE_ID,
        column(
            "blurred_faces",
            pa.list_(FACE),
            "faces that are blurred where the picture is written, as in `faces`; null: they were not looked for",
            nullable=True,
        ),
    ]
)
"""Aligned with the catalog. A picture in which faces were not looked for is not written."""

SCREENED = pa.schema(
    [
        IMAGE_ID,
        column(
            "reject",
            pa.string(),
            "why a rule rejects it: the score that is out of bounds, listed, or where; null: no rule does",
            nullable=True,
        ),
        column("rule", pa.string(), "that rule: its bounds, the list, or the part of `where`", nullable=True),
        column("value", pa.float64(), "the score that decided; null: it is no number", nullable=True),
        column("detail", pa.string(), "what was found, in words", nullable=True),
        column("with_copies", pa.bool_(), "whether the rule takes all copies of it too", nullable=True),
    ]
)
"""What every table of `Screen` has; the columns of scores stand behind the id."""


def screened_schema(scores: Sequence[pa.Field]) -> pa.Schema:
    """Schema of `scores`, aligned with the catalog."""
    return pa.schema([IMAGE_ID, *scores, *list(SCREENED)[1:]])


VERDICTS = ("kept", "duplicate", "benchmark", "dropped", "screened")

DECISIONS = ("keep", "drop", "represent", "not-copies")
"""What a person may decide about an image, see `curate/decisions.py`."""

DECIDED = pa.schema(
    [
        IMAGE_ID,
        column("decision", pa.string(), "keep, drop, represent or not-copies"),
        column("other_id", pa.int64(), "not-copies: of this image alone; null: of none", nullable=True),
    ]
)
"""One row per decision, by image_id, then other_id: of keep, drop and represent one of an image at most; of a pair the
smaller id first."""

DUPLICATES = pa.schema(
    [
        IMAGE_ID,
        column("component_id", pa.int64(), "smallest image_id of its component, chains split; alone = its own"),
        column("component_size", pa.int32(), "pool images of the component"),
        column(
            "verdict",
            pa.string(),
            "kept, duplicate (of partner), benchmark (component touches heldout) or dropped (by a person)",
        ),
        column(
            "partner_id",
            pa.int64(),
            "the image that stays instead, or the heldout image that condemned the component; null when kept",
            nullable=True,
        ),
        column(
            "similarity",
            pa.float32(),
            "of the edge that decided: to the partner where there is one, else the "
            "strongest edge that tied the image to its component; null when kept",
            nullable=True,
        ),
        column(
            "kind",
            pa.string(),
            "evidence of that edge: sha256, embedding, aligned or hash; null when kept",
            nullable=True,
        ),
        column(
            "direct",
            pa.bool_(),
            "whether that edge leads to the partner, and not to another image of the component; null when kept",
            nullable=True,
        ),
    ]
)
"""One row per accepted pool image, in the catalog's parts and order (no rejects, no other roles). In a run that screens
there is one more verdict, screened: by a rule on the image itself, without a partner, or with the copies of a partner,
on which the rule is."""

JUDGED = DUPLICATES.append(
    column(
        "decision",
        pa.string(),
        "what a person decided about the image: keep, drop, represent or not-copies; null: nothing",
        nullable=True,
    )
)
"""`DUPLICATES` of a run with decisions. Where these alone kept or dropped an image, its partner and evidence tell what
it would have gone for."""

ASSIGNMENTS = pa.schema(
    [
        IMAGE_ID,
        column("cluster_id", pa.int32(), "leaf cluster"),
        column("similarity", pa.float32(), "cosine to its centroid"),
    ]
)
"""One row per embedded pool or curated image that reached clustering, in the catalog's parts and order."""

RANKED = pa.schema(
    [
        IMAGE_ID,
        column("cluster_id", pa.int32(), "its cluster"),
        column("rank", pa.int32(), "place in the cluster's order of preference, from 0"),
        column("similarity", pa.float32(), "largest cosine to an image before it; null: the first", nullable=True),
        column("partner_id", pa.int64(), "the image it is most like among those before it", nullable=True),
    ]
)
"""Of RankWithin: one row per embedded pool image, in order of (cluster_id, rank)."""

DENSITY = pa.schema([IMAGE_ID, column("density", pa.float32(), "mean cosine to its nearest neighbors")])
"""Of MeasureDensity: one row per pool image that has neighbors, in the catalog's parts and order."""

JUNK = pa.schema(
    [
        IMAGE_ID,
        column("density", pa.float32(), "mean cosine to its nearest neighbors; null: it has none", nullable=True),
        column("coherence", pa.float32(), "mean density of its leaf cluster; null: not known", nullable=True),
        column("junk", pa.bool_(), "true: left out where clusters are balanced"),
    ]
)
"""One row per pool image of `assignments`, in the catalog's parts and order."""

NEAREST = pa.schema(
    [
        column("query_id", pa.int64(), "curated image that asked"),
        IMAGE_ID,
        column("similarity", pa.float32(), "cosine of image and query"),
        column("rank", pa.int32(), "place of the image among those of its query, from 0: most similar first"),
    ]
)
"""Sorted by image_id within a part, so that a reader of one pool part skips the row groups of the others."""

RETRIEVED = pa.schema(
    [
        column(
            "query_id",
            pa.int64(),
            "curated image that asked; origin cluster: the query of the set that is nearest to the centroid",
        ),
        IMAGE_ID,
        column("similarity", pa.float32(), "cosine of image and query; origin cluster: of image and centroid"),
        column("origin", pa.string(), "sample or cluster"),
        column("set", pa.string(), "name of the curated source"),
    ]
)
"""In the catalog's parts, by image_id; no row for an image that nobody asked for, several for one asked for often."""

ORIGIN = pa.struct(
    [
        column("route", pa.string(), "curated, sample, cluster, balance, kept (all that passed) or decision"),
        column("set", pa.string(), "curated source; null for balance, kept and decision", nullable=True),
        column("query_id", pa.int64(), "the query; null where there is none", nullable=True),
    ]
)

SELECTION = pa.schema(
    [
        IMAGE_ID,
        column("clusters", pa.list_(pa.int32()), "cluster path, root first; empty where nothing was clustered"),
        column("origins", pa.list_(ORIGIN), "every route that chose the image, strongest first"),
        column("repeats", pa.int32(), "times the trainer shows it in an epoch, >= 1"),
    ]
)

LISTED = pa.schema(
    [
        IMAGE_ID,
        column("source", pa.string(), "name of the source, as in the config"),
        column("role", pa.string(), "pool, curated or heldout"),
        column("key", pa.string(), "name within the source: relative path, of an archive's member ARCHIVE/NAME"),
        column("uri", pa.string(), "file that holds the image, or its URL, *** for its secrets"),
        column("own_file", pa.bool_(), "whether that file holds this image alone; false: an archive or a table"),
        column("sha256", pa.string(), "of the encoded bytes, hex; null: unreadable", nullable=True),
        column("width", pa.int32(), "pixels, after EXIF rotation; null: header not readable", nullable=True),
        column("height", pa.int32(), "pixels, after EXIF rotation; null: header not readable", nullable=True),
        column(
            "verdict",
            pa.string(),
            "kept, dropped (another image stands for it), rejected (cannot be used, or by a rule), contaminated "
            "(touches held-out images) or unavailable (tried again by the next run); null: a held-out image that was "
            "compared",
            nullable=True,
        ),
        column(
            "selected",
            pa.bool_(),
            "whether the selection holds it and no removal list names it; null: there is no selection",
            nullable=True,
        ),
        column(
            "reason",
            pa.string(),
            "why it does not stay: duplicate, similar, benchmark, one of REJECT_REASONS, or the reason of a rule; "
            "screened: a rule on a copy, the partner; decision: a person kept or dropped it; null: it stays",
            nullable=True,
        ),
        column("detail", pa.string(), "what was found, in words; null: nothing to add", nullable=True),
        column("score", pa.float64(), "the score by which a rule rejects it; null: none does", nullable=True),
        column("partner_id", pa.int64(), "the image that it goes for, or would without a decision", nullable=True),
        column("partner_key", pa.string(), "key of the partner", nullable=True),
        column("partner_uri", pa.string(), "uri of the partner", nullable=True),
        column("similarity", pa.float32(), "of the pair of images that decided, 0..1; null: none did", nullable=True),
        column("evidence", pa.string(), "of that pair: sha256, embedding, aligned or hash; null: none", nullable=True),
        column("group", pa.int64(), "component of copies that it belongs to; null: it is alone", nullable=True),
        column("group_size", pa.int32(), "pool images of the component; null: it is alone", nullable=True),
        column("cluster", pa.int32(), "leaf cluster; null: nothing was clustered, or not this image", nullable=True),
    ]
)
"""Of `curate list` and `Run.list`: one row an image, joined from all tables that speak of it when they are asked."""

HF_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

SHARD_COLUMNS = pa.schema(
    [
        pa.field(
            "image",
            HF_IMAGE,
            nullable=False,
            metadata={"doc": "original bytes, unless `repaired`, and their key"},
        ),
        IMAGE_ID,
        column("key", pa.string(), "name within the source: relative path, of an archive's member ARCHIVE/NAME"),
        column("source", pa.string(), "name of the source"),
        column("role", pa.string(), "pool or curated"),
        column("width", pa.int32(), "pixels, after EXIF rotation"),
        column("height", pa.int32(), "pixels, after EXIF rotation"),
        column("sha256", pa.string(), "of the bytes as the source holds them, hex; where `repaired`, not those here"),
        column("clusters", pa.list_(pa.int32()), "cluster path, root first"),
        column("origins", pa.list_(ORIGIN), "every route that chose the image"),
        column("repeats", pa.int32(), "times the trainer shows it in an epoch, >= 1"),
        column(
            "reader_warning",
            pa.string(),
            "why `datasets` and plain Pillow fail to decode the picture; null: they do not",
            nullable=True,
        ),
        column(
            "repaired",
            pa.string(),
            "what readers would fail on without the repair of its metadata; null: bytes as in the source",
            nullable=True,
        ),
    ]
)
"""The shards' own columns; the sources' columns (caption, ...) follow them, in alphabetical order."""

BLUR_COLUMNS = pa.schema(
    [
        column(
            "blurred",
            pa.string(),
            "format that the picture was written in with its faces blurred, and what was not kept; null: it was not",
            nullable=True,
        ),
        BLURS.field("blurred_faces"),
    ]
)
"""Behind these, where faces are blurred: `image` holds other bytes than those of `sha256` where `blurred` says so."""
OWN_NAMES = frozenset([*SHARD_COLUMNS.names, *BLUR_COLUMNS.names])
"""Names in the shards that no column of a source may have."""


SHARD_ROWS = pa.schema(
    [
        IMAGE_ID,
        column("key", pa.string(), "name within the source, as in the shard"),
        column("sha256", pa.binary(32), "of the bytes as the source holds them"),
        column("stored", pa.binary(32), "of the bytes in the shard; null: the same", nullable=True),
        column("num_bytes", pa.int64(), "of these bytes"),
    ]
)
"""Of ListShardRows: which images each shard holds, in its order; `shards/manifest.json` vouches for it."""

ORIGINS = pa.schema(
    [
        column(
            "kind",
            pa.string(),
            "what is counted: all, source, domain, license, has (a fact that a source states), year, not_counted",
        ),
        column("name", pa.string(), "which one of it, such as a domain; empty for all"),
        column("images", pa.int64(), "images in the shards"),
        column("num_bytes", pa.int64(), "their encoded bytes"),
    ]
)
"""Of CountOrigins: where the images of the shards come from and under which terms, as their sources state it."""


def embeddings_schema(dim: int, *, dtype: str, model: str, weights: str) -> pa.Schema:
    """Schema of `embeddings/NAME`, aligned with the catalog; `dtype` is float16, float32 or bits."""
    return pa.schema(
        [
            IMAGE_ID,
            column("vector", vector_type(dim, dtype), "unit L2; null when rejected or not wanted", nullable=True),
        ],
        metadata=vector_metadata(dim, dtype, model=model, weights=weights),
    )


def examples_schema(dim: int, *, model: str, weights: str) -> pa.Schema:
    """Schema of EmbedExamples: pictures that others are compared with."""
    return pa.schema(
        [
            column("example", pa.string(), "path of the picture within its folder"),
            column("vector", vector_type(dim, "float32"), "unit L2"),
        ],
        metadata=vector_metadata(dim, "float32", model=model, weights=weights),
    )


def lists_schema(dim: int, *, dtype: str, model: str, weights: str) -> pa.Schema:
    """Schema of `lists/NAME`: vectors by coarse centroid, in order of (list_id, home first, image_id)."""
    return pa.schema(
        [
            column("list_id", pa.int32(), "inverted list"),
            column("home", pa.bool_(), "true: stored in its own list; false: a query probing this list"),
            IMAGE_ID,
            column("vector", vector_type(dim, dtype), "as in the embeddings"),
        ],
        metadata=vector_metadata(dim, dtype, model=model, weights=weights),
    )


def truth_schema(dim: int, *, dtype: str, model: str, weights: str) -> pa.Schema:
    """Schema of FindTruth: the neighbors of sampled queries, by brute force."""
    return pa.schema(
        [
            column("query_id", pa.int64(), "sampled image that asks"),
            IMAGE_ID,
            column("similarity", pa.float32(), "cosine"),
            column("vector", vector_type(dim, dtype), "of the image", repeats=True),
        ],
        metadata=vector_metadata(dim, dtype, model=model, weights=weights),
    )


def planted_schema(dim: int, *, model: str, weights: str) -> pa.Schema:
    """Schema of PlantCopies: sampled images and copies of them that were made to measure copy detection."""
    return pa.schema(
        [
            IMAGE_ID,
            column("copy", pa.int16(), "0: the image itself; 1...: copies of it"),
            column("edits", pa.string(), "what was done to it, in order"),
            column("vector", vector_type(dim, "float32"), "copy embedding, unit L2"),
            column("within", vector_type(dim, "float32"), "the same of what a border surrounds", nullable=True),
            *list(FEATURES)[1:],
        ],
        metadata=vector_metadata(dim, "float32", model=model, weights=weights),
    )


def space_schema(dim: int, *, model: str, weights: str) -> pa.Schema:
    """Schema of FitCopySpace: a projection of vectors of `dim` dimensions."""
    return pa.schema(
        [
            column("axis", pa.int32(), "-1: the mean, taken off first; 0...: directions, leading first"),
            column("vector", vector_type(dim, "float32"), "in the dimensions of the embedding"),
        ],
        metadata=vector_metadata(dim, "float32", model=model, weights=weights),
    )


def centroids_schema(dim: int, *, model: str, weights: str) -> pa.Schema:
    """Schema of `centroids`: float32 vectors of every level, level 0 the leaves."""
    return pa.schema(
        [
            column("level", pa.int16(), "0: leaves"),
            column("cluster_id", pa.int32(), "0..K-1 within its level"),
            column("parent_id", pa.int32(), "cluster_id one level up; null at the top", nullable=True),
            column("centroid", vector_type(dim, "float32"), "mean of its images (L2-normalized when spherical)"),
            column("num_images", pa.int64(), "images of the fitting sample assigned to it"),
        ],
        metadata=vector_metadata(dim, "float32", model=model, weights=weights),
    )


def clusters_schema(dim: int, *, model: str, weights: str) -> pa.Schema:
    """Schema of the centroids that `FitClusters` makes: with what they leave unexplained."""
    inertia = column(
        "inertia", pa.float64(), "sum of squared L2 distances to it: of its images, above the leaves of its children"
    )
    group = column(
        "group_id",
        pa.int32(),
        "of leaves: cluster_id on level -1, where groups of leaves are that a search goes by; of these: on level -2",
        nullable=True,
    )
    plain = centroids_schema(dim, model=model, weights=weights)
    return pa.schema([*plain, inertia, group], metadata=plain.metadata)


def vector_type(dim: int, dtype: str) -> pa.DataType:
    """Fixed-size binary that holds one vector: no list offsets, so a column is one contiguous buffer."""
    return pa.binary(dim // 8 if dtype == "bits" else dim * np.dtype(dtype).itemsize)


def vector_metadata(dim: int, dtype: str, *, model: str, weights: str) -> dict[bytes, bytes]:
    """What a reader needs to know of the vectors of a table."""
    return dict(zip(VECTOR_META, (dtype.encode(), str(dim).encode(), model.encode(), weights.encode()), strict=True))


def shards_schema(
    extra: dict[str, pa.DataType], classes: Mapping[str, Sequence[str]] | None = None, *, blur: bytes | None = None
) -> pa.Schema:
    """Schema of the shards; the `huggingface` metadata makes `datasets` decode `image` as a picture.

    Args:
        extra: types of the sources' own columns.
        classes: by own column of type int64, the names of its classes in the order of their numbers.
        blur: how faces are blurred, as JSON; None: they are not.
    """
    ours = [*SHARD_COLUMNS, *(BLUR_COLUMNS if blur else [])]
    own = [f.with_nullable(True) for f in ours]  # `datasets` matches nullable fields only
    fields = [*own, *(pa.field(name, dtype) for name, dtype in sorted(extra.items()))]
    schema = huggingface_schema(fields, classes or {})
    return schema.with_metadata({**schema.metadata, BLUR: blur}) if blur else schema


def huggingface_schema(fields: Sequence[pa.Field], classes: Mapping[str, Sequence[str]] | None = None) -> pa.Schema:
    """Schema whose metadata makes `datasets` decode the column `image` as a picture; `classes` as of the shards."""
    features: dict[str, Any] = {"info": {"features": {f.name: _hf_feature(f, classes or {}) for f in fields}}}
    return pa.schema(fields, metadata={b"huggingface": json.dumps(features).encode()})


def _hf_feature(field: pa.Field, classes: Mapping[str, Sequence[str]]) -> Any:
    if field.name in classes:
        return {"names": list(classes[field.name]), "_type": "ClassLabel"}
    return {"_type": "Image"} if field.name == "image" else _hf_type(field.type)


def _hf_type(dtype: pa.DataType) -> Any:
    """A list in brackets is the one form that every version of `datasets` reads: `List` came with 4, and `Sequence` of
    a struct means a struct of lists.
    """
    if pa.types.is_list(dtype):
        return [_hf_type(dtype.value_type)]
    if pa.types.is_struct(dtype):
        return {f.name: _hf_type(f.type) for f in dtype}
    names = {"double": "float64", "float": "float32"}
    return {"dtype": names.get(str(dtype), str(dtype)), "_type": "Value"}


VECTORS = pa.schema([IMAGE_ID, pa.field("vector", pa.null())])
"""What every table of vectors has: `vector` is fixed-size binary, described by the schema's metadata."""

MATCHED_VECTORS = pa.schema(
    [
        column("row", pa.int64(), "row of own embeddings: (file << 40) | row of the file"),
        IMAGE_ID,
    ]
)
"""Of MatchVectors and GroupMatches: which image each vector is of."""

EXAMPLES = pa.schema([pa.field("example", pa.string()), pa.field("vector", pa.null())])
"""What every table of examples has."""

TRUTH = pa.schema([*NEIGHBORS.remove(3), pa.field("vector", pa.null())])
"""What every table of truth has."""

CENTROIDS = pa.schema([pa.field("level", pa.int16()), pa.field("centroid", pa.null())])
"""What every table of centroids has."""

LISTS = pa.schema([pa.field("list_id", pa.int32()), pa.field("home", pa.bool_()), *VECTORS])
"""What every table of lists has."""

PLANTED = pa.schema(
    [
        IMAGE_ID,
        pa.field("copy", pa.int16()),
        pa.field("vector", pa.null()),
        pa.field("within", pa.null()),
        *list(FEATURES)[1:],
    ]
)
"""What every table of planted copies has."""

SPACE = pa.schema([pa.field("axis", pa.int32()), pa.field("vector", pa.null())])
"""What every table of a copy space has."""

THRESHOLDS = pa.schema(
    [
        column(
            "use",
            pa.string(),
            "pool, heldout: the chosen score of these pairs; floor, alike, sure: cosines; null: of the curve",
            nullable=True,
        ),
        column("threshold", pa.float32(), "score or cosine from which on a pair counts"),
        column("precision", pa.float32(), "share of the found pairs that are right, of those that are clear"),
        column("precision_low", pa.float32(), "its lower confidence bound, 95 %"),
        column("recall", pa.float32(), "share of the planted copies that find their original"),
    ]
)
"""Of CalibrateCopies: what planted copies measured."""

TRAINING_LOG = pa.schema(
    [
        column("step", pa.int64(), "iterations done"),
        column("name", pa.string(), "figure: loss, loss_dino, learning_rate, teacher_entropy, ..."),
        column("value", pa.float64(), "its value"),
    ]
)
"""Of Pretrain; figures of the clock are left out, so that equal runs give equal tables."""

RECALL = pa.schema(
    [
        column(
            "recall", pa.float64(), "share of the true pairs that were found, 0..1; null: none known", nullable=True
        ),
        column("recall_stderr", pa.float64(), "its standard error", nullable=True),
        column("recall_pairs", pa.int64(), "true pairs that were looked for"),
    ]
)
"""Of MeasureRecall: one row."""

OWN_COLUMNS = pa.schema(
    [
        column("name", pa.string(), "an own column of the sources; null: the first row, of all images", nullable=True),
        column("kind", pa.string(), "its type in the shards; null: they do not have it", nullable=True),
        column(
            "classes", pa.list_(pa.string()), "names of its classes, where all sources declare these", nullable=True
        ),
        column("mixed", pa.bool_(), "whether the sources declare different classes"),
        column("num_bytes", pa.int64(), "first row: encoded bytes of the selected images", nullable=True),
        column("num_left_out", pa.int64(), "first row: columns beyond those of the shards", nullable=True),
        column("left_out", pa.string(), "first row: one of these", nullable=True),
        column("uncounted", pa.bool_(), "first row: whether there are more than were counted", nullable=True),
    ]
)
"""Of FindColumns: what the selected images have beside their pictures."""

FIGURES = pa.schema(
    [
        column("name", pa.string(), "what was measured: Vendi score, images with a copy left, nearest to SOURCE"),
        column(
            "set",
            pa.string(),
            "of what: usable (the pool as it came, copies as the image that stays of them), deduplicated or selection",
        ),
        column("value", pa.float64(), "its value"),
        column("num_images", pa.int64(), "images it was measured on"),
    ]
)
"""Of DescribeSet: the curated set itself."""

MAP = pa.schema(
    [
        IMAGE_ID,
        column("x", pa.float32(), "place on the map, in no unit"),
        column("y", pa.float32(), "the same"),
        column("cluster", pa.int32(), "leaf cluster; null where nothing was clustered", nullable=True),
        column("verdict", pa.string(), "selected, kept or curated (both not selected), duplicate, benchmark, dropped"),
    ]
)
"""Of DrawMap: a sample of the embedded images in two dimensions, in order of their ids."""

EVALUATION = pa.schema(
    [
        column("backbone", pa.string(), "pretrained, initial, or gain: the difference, image by image"),
        column("metric", pa.string(), "parts: found by a part of it; knn: class by leave-one-out k-NN"),
        column("k", pa.int32(), "neighbors that vote; null: not a k-NN", nullable=True),
        column("num_images", pa.int64(), "labeled images"),
        column("value", pa.float64(), "0..1"),
        column("stderr", pa.float64(), "standard error of the value"),
    ]
)
