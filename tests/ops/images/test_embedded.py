"""XMP is found wherever formats put it, read for a few names, and never trusted."""

import io
import zlib
from collections.abc import Callable

import pytest
from PIL import Image, PngImagePlugin

from curate.ops.images.embedded import MAX_PACKET, Embedded, find_packets, read_embedded

PROHIBITED = "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"
BY_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
NAMES = (
    'xmlns:x="adobe:ns:meta/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:p="http://ns.useplus.org/ldf/xmp/1.0/" xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tdm="http://www.w3.org/ns/tdmrep/"'
)


def xmp(attributes: str = "", elements: str = "") -> bytes:
    description = f'<rdf:Description rdf:about="" {attributes}>{elements}</rdf:Description>'
    return f"<x:xmpmeta {NAMES}><rdf:RDF>{description}</rdf:RDF></x:xmpmeta>".encode()


def picture(form: str, packet: bytes) -> bytes:
    file, image = io.BytesIO(), Image.new("RGB", (8, 8))
    if form == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        image.save(file, form, pnginfo=info)
    elif form == "PNG packed":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=True)
        image.save(file, "PNG", pnginfo=info)
    elif form == "TIFF":
        image.save(file, form, tiffinfo={700: packet})
    else:
        image.save(file, form, xmp=packet)
    return file.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "PNG packed", "WEBP", "TIFF"])
def test_each_format_tells_what_its_packet_says(form: str) -> None:
    found = read_embedded(picture(form, xmp(f'p:DataMining="{PROHIBITED}" e:DigitalSourceType="{BY_MODEL}"')))
    assert found == Embedded("plus:DataMining: DMI-PROHIBITED-AIMLTRAINING", "trainedAlgorithmicMedia")
    assert read_embedded(picture(form, xmp())) == Embedded()


@pytest.mark.parametrize(
    ("attributes", "elements", "reserved"),
    [
        ("", f"<p:DataMining>{PROHIBITED}</p:DataMining>", "plus:DataMining: DMI-PROHIBITED-AIMLTRAINING"),
        ("", f'<p:DataMining rdf:resource="{PROHIBITED}"/>', "plus:DataMining: DMI-PROHIBITED-AIMLTRAINING"),
        ('p:DataMining="http://ns.useplus.org/ldf/vocab/DMI-ALLOWED"', "", None),
        ('p:DataMining="http://ns.useplus.org/ldf/vocab/DMI-UNSPECIFIED"', "", None),
        ('tdm:reservation="1"', "", "tdm:reservation: 1"),
        ('tdm:reservation="0"', "", None),
        ("", "<dc:subject><rdf:Bag><rdf:li>sea</rdf:li><rdf:li>NoAI</rdf:li></rdf:Bag></dc:subject>", "keyword NoAI"),
        ("", "<dc:subject><rdf:Bag><rdf:li>noaid</rdf:li></rdf:Bag></dc:subject>", None),
        ("", "<dc:title>noai</dc:title>", None),
        (
            f'p:DataMining="{PROHIBITED}" tdm:reservation="1"',
            "",
            "plus:DataMining: DMI-PROHIBITED-AIMLTRAINING; tdm:reservation: 1",
        ),
    ],
)
def test_each_way_to_reserve_is_read_and_permissions_are_not(
    attributes: str, elements: str, reserved: str | None
) -> None:
    assert read_embedded(picture("JPEG", xmp(attributes, elements))).reserved == reserved


def test_a_prefix_is_whatever_the_packet_calls_it() -> None:
    packet = xmp(f'p:DataMining="{PROHIBITED}"').replace(b"xmlns:p=", b"xmlns:zz=").replace(b" p:", b" zz:")
    assert read_embedded(picture("JPEG", packet)).reserved is not None
    other = xmp(f'p:DataMining="{PROHIBITED}"').replace(b"ns.useplus.org/ldf/xmp", b"example.org/xmp")
    assert read_embedded(picture("JPEG", other)).reserved is None


def test_what_did_not_fit_into_a_segment_of_a_jpeg_is_read_in_its_order() -> None:
    packet = xmp(f'p:DataMining="{PROHIBITED}"')
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + len(packet).to_bytes(4, "big")
    pieces = [(at, packet[at : at + 60]) for at in range(0, len(packet), 60)]
    segments = b""
    for at, piece in reversed(pieces):
        content = head + at.to_bytes(4, "big") + piece
        segments += b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    plain = picture("JPEG", xmp())
    assert read_embedded(plain[:2] + segments + plain[2:]).reserved is not None


@pytest.mark.parametrize(
    "packet",
    [
        b'<!DOCTYPE x [<!ENTITY a "b">]>' + xmp(f'p:DataMining="{PROHIBITED}"'),
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><x>&b;</x>',
        b"<a>" * 10_000,
        b"\xff\xfe\0\1" * 100,
        b"",
        b"x" * (MAX_PACKET + 1),
    ],
)
def test_a_hostile_packet_says_nothing(packet: bytes) -> None:
    chunk = b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + packet
    plain = picture("PNG", xmp())
    place = plain.index(b"IDAT") - 4
    data = (
        plain[:33] + (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + plain[place:]
    )
    assert read_embedded(data) == Embedded()


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"GIF89a" + b"<x:xmpmeta " * 400_000,
        lambda: b"\xff\xd8" + b"\xff\xe1\x00\x40http://ns.adobe.com/xmp/extension/\0" * 100_000,
        lambda: b"\xff\xd8" + b"\xff" * 4_000_000,
        lambda: b"RIFF\0\0\0\0WEBP" + b"XMP \0\0\0\0" * 400_000,
        lambda: b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0iTXt\0\0\0\0" * 300_000,
    ],
)
def test_bytes_made_to_cost_time_cost_little(make: Callable[[], bytes]) -> None:
    assert len(find_packets(make())) <= 4  # a search that grows with the square would not end


def test_cut_pictures_are_read_as_far_as_they_go() -> None:
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = picture(form, xmp(f'p:DataMining="{PROHIBITED}"'))
        for end in range(0, len(data), 7):
            assert read_embedded(data[:end]).source_type is None
