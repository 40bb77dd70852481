"""Which files may be images, by name; whether they are is decided later, by content.

The rule: everything counts but hidden files and files whose suffix clearly says something else (`OTHER`,
`SIDECAR`, archives, Parquet); of the latter, those count that begin as a picture does, where looking is cheap (on
a local disk, in a tar). So a picture with a wrong, unknown or no suffix is found, a web page that calls itself
`.jpg` reaches inspection and is rejected there, and a `truth.csv` beside pictures is no image.
"""

import posixpath
import shlex

from curate.ops.images import formats


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HEAD_BYTES = formats.HEAD_BYTES
begins_as_image = formats.begins_as_image

IMAGE = formats.SUFFIXES
"""Suffixes that announce an image; they decide what `format: auto` takes a folder for."""

SIDECAR = frozenset({".json", ".txt", ".cls"})
"""Suffixes of files that describe the image of the same stem."""

OTHER = _words(
    """
    .csv .tsv .jsonl .ndjson .md .rst .html .htm .xml .css .js .ts .py .pyc .ipynb .sh .bat .c .h
    .cpp .java .go .rs .yaml .yml .toml .ini .cfg .conf .log .lock .pdf .doc .docx .xls .xlsx .ppt
    .pptx .odt .rtf .svg .npy .npz .pt .pth .pkl .pickle .h5 .hdf5 .mat .safetensors .onnx .ckpt
    .arrow .feather .avro .orc .db .sqlite .sqlite3 .lmdb .mdb .idx .index .crc .md5 .sha1 .sha256
    .sig .asc .mp4 .mov .avi .mkv .webm .m4v .mpg .mpeg .wmv .flv .mp3 .wav .flac .ogg .m4a .aac
    .srt .vtt .exe .dll .so .o .a .bin .iso .jar .ttf .otf .woff .woff2 .part .tmp .crdownload .bak
    .gz .bz2 .xz .zst .lz4 .zip .7z .rar .tgz .tbz2 .txz .tfrecord .tfrecords .rec .lst
    """
)
"""Suffixes that clearly say that a file is no image, so that it is skipped and counted."""

TAR = frozenset({".tar"})
TFRECORD = frozenset({".tfrecord", ".tfrecords"})
PARQUET = frozenset({".parquet", ".pq"})

_UNPACK = {
    ".tar.gz": "gunzip -k",
    ".tgz": "gunzip -k",
    ".tar.bz2": "bunzip2 -k",
    ".tbz2": "bunzip2 -k",
    ".tar.xz": "unxz -k",
    ".txz": "unxz -k",
    ".tar.zst": "unzstd",
    ".tar.lz4": "unlz4",
    ".zip": "unzip -n",
    ".7z": "7z x",
    ".rar": "unrar x",
}

MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",  # and a digit, and the digits of pi: names may begin so too
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\x04\x22\x4d\x18": ".lz4",
    b"PK\x03\x04": ".zip",
}
"""First bytes of compressed files, and the suffix they should have."""


def compressed_as(head: bytes) -> str | None:
    """The suffix of the compression that the first `HEAD_BYTES` of a file tell; None: of none."""
    for magic, suffix in MAGIC.items():
        if head.startswith(magic) and (suffix != ".bz2" or head[4:10] in (b"1AY&SY", b"\x17rE8P\x90")):
            return suffix
    return None


def suffix_of(name: str) -> str:
    """The last suffix in lower case with its dot, or ""; the query of a web address does not count."""
    if name.startswith(("http://", "https://")):
        name = name.split("?", 1)[0].split("#", 1)[0]
    return posixpath.splitext(name)[1].lower()


def is_hidden(name: str) -> bool:
    """Whether the name of a file or folder starts with a dot."""
    return posixpath.basename(name).startswith(".")


_NO_IMAGE = OTHER | SIDECAR | TAR | PARQUET


def may_be_image(name: str) -> bool:
    """Whether a file of that name is taken for an image as long as its content does not say otherwise."""
    return suffix_of(name) not in _NO_IMAGE and not is_hidden(name)


def why_not_image(name: str) -> str:
    """The heading under which a skipped file is counted."""
    return "hidden file" if is_hidden(name) else f"other file ({suffix_of(name)})"


def unpack_command(path: str) -> str | None:
    """The shell command that unpacks a compressed archive; None when the name is not one's."""
    for suffix, command in _UNPACK.items():
        if path.lower().endswith(suffix):
            return f"{command} {shlex.quote(path)}"
    return None
