"""What a picture itself says of its rights and its making, in the XMP that is embedded in it.

XMP is XML with names of many vocabularies. It is a stranger's text, so that little of it is believed: packets are
bounded, declarations of documents and entities end the reading, and of all names only those below are looked at. JPEG,
PNG and WebP say where a packet stands; of other formats the bytes are searched for one, as Adobe's XMP specification
(part 3, packet scanning) allows where it stands uncompressed.

Vocabularies: PLUS `DataMining` and IPTC Photo Metadata 2023.1, property Data Mining; IPTC `DigitalSourceType`; the TDM
Reservation Protocol; keywords of Dublin Core, among which `noai` and `noimageai` are in use.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple
from xml.parsers import expat

MAX_PACKET = 1 << 20
"""Bytes of a packet that are read."""
MAX_PACKETS = 4
"""Packets of a picture that are read."""
MAX_DEPTH = 64
"""Nested elements, beyond which the rest is not read."""
MAX_VALUES = 200
"""Values of one name that are kept."""
MAX_TEXT = 200
"""Characters of a value that are kept."""
PROPERTIES = {
    "http://ns.useplus.org/ldf/xmp/1.0/ DataMining": "data_mining",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/ DigitalSourceType": "source_type",
    "http://www.w3.org/ns/tdmrep/ reservation": "tdm",
    "http://purl.org/dc/elements/1.1/ subject": "keywords",
}
"""Name in XMP to what it is called here."""
SOURCE_TYPES = "digitalsourcetype/"
"""What stands before the code in the address of a digital source type."""
BY_MODEL = frozenset({"trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"})
"""Codes of pictures that a trained model has made, wholly or in part."""
NO_AI = frozenset({"noai", "noimageai"})
_PACKET = re.compile(rb"<(?:x:xmpmeta|rdf:RDF)\b.*?</(?:x:xmpmeta|rdf:RDF)>", re.DOTALL)
_JPEG_XMP, _JPEG_MORE = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_RESOURCE = "http://www.w3.org/1999/02/22-rdf-syntax-ns# resource"


class Embedded(NamedTuple):
    """What the metadata of a picture say."""

    reserved: str | None = None
    """What they reserve, in words; None: nothing."""
    source_type: str | None = None
    """Code of the IPTC digital source type, such as `digitalCapture` or `trainedAlgorithmicMedia`; None: not told."""


def read_embedded(data: bytes) -> Embedded:
    """What the XMP in an encoded picture says; nothing where there is none, or where it cannot be read."""
    found: dict[str, list[str]] = {}
    for packet in find_packets(data):
        for name, values in _read_packet(packet).items():
            found.setdefault(name, []).extend(values)
    types = [text.rpartition(SOURCE_TYPES)[2][:MAX_TEXT] for text in found.get("source_type", ()) if text]
    return Embedded(_reservation(found), types[0] if types else None)


def _reservation(found: dict[str, list[str]]) -> str | None:
    terms = [text.rpartition("/")[2] for text in found.get("data_mining", ())]
    told = [f"plus:DataMining: {term}" for term in terms if "PROHIBITED" in term]
    told += ["tdm:reservation: 1" for text in found.get("tdm", ()) if text == "1"]
    told += [f"keyword {text}" for text in found.get("keywords", ()) if text.lower() in NO_AI]
    return "; ".join(dict.fromkeys(told))[:MAX_TEXT] or None


# -- where packets stand ---------------------------------------------------------------------------------------------


def find_packets(data: bytes) -> list[bytes]:
    """The XMP packets in an encoded picture, in order."""
    if data[:2] == b"\xff\xd8":
        packets = _of_jpeg(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        packets = _of_png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        packets = (content for kind, content in _riff(data) if kind == b"XMP ")
    else:
        packets = _scanned(data)
    return [packet for packet, _ in zip(packets, range(MAX_PACKETS), strict=False) if 0 < len(packet) <= MAX_PACKET]


def _of_jpeg(data: bytes) -> Iterator[bytes]:
    """The packet, and what did not fit into its segment."""
    place, more, size = 2, list[tuple[int, bytes]](), 0
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xFF:  # filling
            place += 1
            continue
        if marker == 0xDA or length < 2:  # the picture itself
            break
        if marker == 0xE1:
            content = data[place + 4 : place + 2 + length]
            if content.startswith(_JPEG_XMP):
                yield content[len(_JPEG_XMP) :]
            elif content.startswith(_JPEG_MORE) and size <= MAX_PACKET:
                at = len(_JPEG_MORE) + 32  # after the digest of all of it, and its length
                more.append((int.from_bytes(content[at + 4 : at + 8], "big"), content[at + 8 :]))
                size += len(content)
        place += 2 + length
    if more:
        yield b"".join(piece for _, piece in sorted(more))


def _of_png(data: bytes) -> Iterator[bytes]:
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"iTXt" and data[place + 8 : place + 26] == b"XML:com.adobe.xmp\0":
            content = data[place + 26 : place + 8 + length]
            packed, rest = content[:1] == b"\1", content[2:]
            text = rest.split(b"\0", 2)[-1]  # after the language and the translated keyword
            yield _inflated(text) if packed else text
        elif kind == b"IEND":
            return
        place += 12 + length


def _inflated(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, MAX_PACKET)
    except zlib.error:
        return b""


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        yield kind, data[place + 8 : place + 8 + min(length, MAX_PACKET + 1)] if kind == b"XMP " else b""
        place += 8 + length + length % 2


def _scanned(data: bytes) -> Iterator[bytes]:
    for start in (b"<x:xmpmeta", b"<rdf:RDF"):
        place = data.find(start)
        for _ in range(MAX_PACKETS):  # each may be looked at to a megabyte
            found = None if place < 0 else _PACKET.match(data, place, place + MAX_PACKET)
            if found is not None:
                yield found[0]
                place = data.find(start, found.end())
        if data.find(start) >= 0:
            return


# -- what they say ---------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """The packet asks for what no metadata need."""


def _read_packet(packet: bytes) -> dict[str, list[str]]:
    """Values of the known properties, by what they are called here; what stands before an error counts."""
    found = _Values()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = found.start, found.end
    parser.CharacterDataHandler = found.text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    with contextlib.suppress(expat.ExpatError, _Refused, ValueError):
        parser.Parse(packet.strip(b"\0 \r\n\t"), True)
    return found.values


def _refuse(*_: object) -> None:
    raise _Refused


class _Values:
    """Collects the texts and addresses within known properties, as attributes or elements."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self._within: list[str] = []
        """What the open elements are called here, empty for others."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._within) >= MAX_DEPTH:
            raise _Refused
        self._within.append(PROPERTIES.get(name, self._within[-1] if self._within else ""))
        for key, value in attributes.items():
            known = self._within[-1] if key == _RESOURCE else PROPERTIES.get(key, "")
            self._add(known, value)

    def end(self, name: str) -> None:
        self._within.pop()

    def text(self, text: str) -> None:
        if self._within:
            self._add(self._within[-1], text)

    def _add(self, known: str, text: str) -> None:
        kept = " ".join(text.split())[:MAX_TEXT]
        values = self.values.setdefault(known, []) if known and kept else None
        if values is not None and len(values) < MAX_VALUES:
            values.append(kept)
