import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import SourceError
from curate.sources.uri import decode_uri, encode_uri, is_remote


@given(st.binary(max_size=60))
def test_any_bytes_survive_the_escape(raw: bytes) -> None:
    assert decode_uri(encode_uri(raw)) == raw


@given(st.text(alphabet=st.sampled_from("\\x4fa0é\n%/"), max_size=20))
def test_texts_that_look_like_escapes_survive_the_escape(text: str) -> None:
    assert decode_uri(encode_uri(text.encode())) == text.encode()


@given(st.text(max_size=30).filter(lambda text: "\\" not in text and not any("\ud800" <= c <= "\udfff" for c in text)))
def test_readable_names_stay_as_they_are(text: str) -> None:
    assert encode_uri(text.encode()) == text


def test_undecodable_bytes_and_backslashes_are_escaped() -> None:
    assert encode_uri(b"a\xffb\\x41") == r"a\xffb\\x41"


def test_lone_backslash_is_an_error() -> None:
    with pytest.raises(SourceError, match="lone backslash"):
        decode_uri("a\\b")


def test_urls_are_remote_and_paths_are_not() -> None:
    assert is_remote("s3://bucket/a")
    assert is_remote("memory://a")
    assert not is_remote("/data/a://b")
    assert not is_remote("a.jpg")
