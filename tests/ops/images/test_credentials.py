"""Content Credentials: what a manifest says is read, within bounds, and nothing is fetched or believed beyond it."""

import importlib.util
import io
import json
import random
from typing import Any

import pytest
from PIL import Image

from curate.errors import MissingExtra
from curate.ops.images import credentials
from curate.ops.images.credentials import MAX_JSON, Credentials, describe
from curate.ops.images.decoding import read_picture_credentials
from tests.ops.images.content_credentials import plain_jpeg, with_credentials
from tests.sources.serving import serving

needs_package = pytest.mark.skipif(importlib.util.find_spec("c2pa") is None, reason="c2pa-python is not installed")


@needs_package
def test_a_signed_picture_tells_its_origin_and_permission() -> None:
    data = with_credentials(
        source_type="trainedAlgorithmicMedia",
        training={"cawg.ai_generative_training": "notAllowed", "cawg.data_mining": "allowed"},
    )
    found = read_picture_credentials(data, "JPEG")
    assert found == Credentials("valid", "Test camera 3", "Nobody", "notAllowed", "trainedAlgorithmicMedia")


@needs_package
def test_a_picture_that_was_changed_since_is_invalid() -> None:
    data = bytearray(with_credentials(source_type="digitalCapture"))
    data[-60] ^= 1
    found = read_picture_credentials(bytes(data), "JPEG")
    assert found is not None
    assert (found.signature, found.source_type) == ("invalid", "digitalCapture")


@needs_package
def test_a_picture_without_a_manifest_has_none_and_is_not_looked_at() -> None:
    assert read_picture_credentials(plain_jpeg(), "JPEG") is None
    assert read_picture_credentials(plain_jpeg() + b"jumb c2pa", "JPEG") is None
    assert read_picture_credentials(with_credentials(), "BMP") is None


@needs_package
def test_a_manifest_on_a_server_is_not_fetched() -> None:
    with serving({"/m.c2pa": b"x"}) as served:
        file = io.BytesIO()
        packet = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f'<rdf:Description xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{served.url}/m.c2pa"/>'
            "</rdf:RDF></x:xmpmeta>"
        )
        Image.open(io.BytesIO(plain_jpeg())).save(file, "JPEG", xmp=packet.encode())
        assert read_picture_credentials(file.getvalue() + b"jumb c2pa", "JPEG") in (None, Credentials("unreadable"))
        assert served.requests.total() == 0


@needs_package
def test_flipped_bits_never_do_more_than_spoil_the_manifest() -> None:
    data, rng = with_credentials(source_type="digitalCapture"), random.Random(0)
    for _ in range(20):
        changed = bytearray(data)
        for _ in range(8):
            changed[rng.randrange(2, 12_000)] ^= 1 << rng.randrange(8)
        found = read_picture_credentials(bytes(changed), "JPEG")
        assert found is None or found.signature in ("valid", "invalid", "unreadable")


def store(*manifests: dict[str, Any], state: str = "Valid") -> Credentials:
    named = {f"urn:{number}": one for number, one in enumerate(manifests)}
    return describe(json.dumps({"active_manifest": "urn:0", "manifests": named}), state)


def actions(*types: str, label: str = "c2pa.actions.v2") -> dict[str, Any]:
    return {
        "label": label,
        "data": {"actions": [{"digitalSourceType": f"http://x/digitalsourcetype/{t}"} for t in types]},
    }


def test_what_a_picture_was_made_from_counts_as_its_making() -> None:
    edited, origin = {"assertions": [actions("humanEdits")]}, {"assertions": [actions("trainedAlgorithmicMedia")]}
    assert store(edited, origin).source_type == "trainedAlgorithmicMedia"
    assert store(edited).source_type == "humanEdits"
    assert store({"assertions": [actions("digitalCapture", label="c2pa.actions__1")]}).source_type == "digitalCapture"


@pytest.mark.parametrize(
    ("entries", "training"),
    [
        ({"c2pa.ai_training": {"use": "allowed"}, "c2pa.data_mining": {"use": "constrained"}}, "constrained"),
        ({"c2pa.ai_inference": {"use": "notAllowed"}}, None),
        ({"c2pa.ai_training": {"use": "allowed"}}, "allowed"),
        ({"c2pa.ai_training": {"use": "whatever"}}, None),
        ({"c2pa.ai_training": "notAllowed"}, None),
        ([1, 2], None),
    ],
)
def test_the_strictest_word_on_training_counts(entries: Any, training: str | None) -> None:
    assertion = {"label": "c2pa.training-mining", "data": {"entries": entries}}
    assert store({"assertions": [assertion]}).training == training


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", "[" * 100_000, '{"manifests": 3, "active_manifest": 3}', '"' + "x" * (MAX_JSON + 1) + '"'],
)
def test_a_store_that_is_none_is_unreadable(text: str) -> None:
    assert describe(text, "Valid") == Credentials("unreadable")


def test_values_of_other_kinds_are_left_aside() -> None:
    odd = {
        "claim_generator_info": [3],
        "claim_generator": {"a": 1},
        "signature_info": [],
        "assertions": [3, {"label": 4}],
    }
    assert store(odd, state="Nothing") == Credentials("unreadable")
    long = store({"claim_generator": "x \n" * 500, "assertions": {}})
    assert long.generator is not None
    assert len(long.generator) <= 200


def test_without_the_package_the_error_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(MissingExtra, match=r"c2pa-python is not installed; .*curate-vision\[c2pa\]"):
        credentials.package_version()
