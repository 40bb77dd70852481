"""Licenses, authors and domains under the names that sources have for them; what is not known is called so."""

from typing import Any

import pytest

from curate.sources.attribution import UNKNOWN, Known, license_name


@pytest.mark.parametrize(
    ("name", "url", "version", "flickr", "found"),
    [
        ("CC BY-SA 4.0", None, None, False, "CC-BY-SA-4.0"),
        ("cc-by-nc-nd-3.0", None, None, False, "CC-BY-NC-ND-3.0"),
        ("by-nc", None, "2.0", False, "CC-BY-NC-2.0"),
        ("by", None, None, False, "CC-BY"),
        ("Attribution-NonCommercial-ShareAlike License", None, None, False, "CC-BY-NC-SA"),
        ("Attribution License", "http://creativecommons.org/licenses/by/2.0/", None, False, "CC-BY-2.0"),
        ("Creative Commons Attribution-Share Alike 4", None, None, False, "CC-BY-SA-4.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/3.0/de/", None, None, False, "CC-BY-NC-SA-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", None, None, False, "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", None, None, False, "CC-PDM-1.0"),
        ("cc0", None, None, False, "CC0-1.0"),
        ("CC0 1.0", None, None, False, "CC0-1.0"),
        ("pdm", None, "1.0", False, "CC-PDM-1.0"),
        ("4", None, None, True, "CC-BY-2.0"),
        ("4", None, None, False, "number 4 of its source"),
        ("99", None, None, True, "number 99 of its source"),
        ("All Rights Reserved", None, None, False, "All Rights Reserved"),
        ("byte", None, None, False, "byte"),
        (None, "https://example.org/terms", None, False, "https://example.org/terms"),
        (None, None, None, False, UNKNOWN),
        ("x" * 500, None, None, False, "x" * 80),
    ],
)
def test_license_names(name: str | None, url: str | None, version: str | None, flickr: bool, found: str) -> None:
    assert license_name(name, url, version=version, flickr=flickr) == found


ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "laion": (
        {"URL": "https://www.a.example/x.jpg", "TEXT": "a cat", "LICENSE": "?", "NSFW": "UNLIKELY"},
        {"license": UNKNOWN, "domain": "a.example", "caption": "a cat", "year": UNKNOWN},
    ),
    "wikimedia": (
        {
            "LicenseShortName": "CC BY-SA 3.0",
            "Artist": "A",
            "Credit": "Own work",
            "DescriptionUrl": "https://c.example/w",
        },
        {"license": "CC-BY-SA-3.0", "author": "A", "credit": "Own work", "domain": "c.example"},
    ),
    "yfcc": (
        {
            "licensename": "Attribution License",
            "licenseurl": "http://creativecommons.org/licenses/by/2.0/",
            "unickname": "N",
            "uid": "1@N00",
            "datetaken": "2011-05-06 07:08:09.0",
            "downloadurl": "http://farm1.staticflickr.com/x.jpg",
            "pageurl": "http://www.flickr.com/photos/1/2/",
        },
        {"license": "CC-BY-2.0", "author": "N", "year": "2011", "domain": "farm1.staticflickr.com"},
    ),
    "openverse": (
        {
            "license": "by-nc",
            "license_version": "4.0",
            "creator": "C",
            "foreign_landing_url": "https://p.example/1",
            "attribution": '"T" by C',
        },
        {"license": "CC-BY-NC-4.0", "author": "C", "attribution": '"T" by C', "domain": "p.example"},
    ),
    "open images": (
        {
            "OriginalURL": "https://o.example/1.jpg",
            "License": "https://creativecommons.org/licenses/by/2.0/",
            "Author": "D",
        },
        {"license": "CC-BY-2.0", "author": "D", "domain": "o.example"},
    ),
    "coco": (
        {"license": 3, "flickr_url": "http://farm9.staticflickr.com/1.jpg", "date_captured": "2013-11-14 17:02:52"},
        {"license": "CC-BY-NC-ND-2.0", "year": "2013", "domain": "farm9.staticflickr.com"},
    ),
    "of shards": ({"source_url": "https://s.example/a", "source_source_url": "x"}, {"domain": "s.example"}),
    "seconds": ({"timestamp": 1_400_000_000}, {"year": "2014", "license": UNKNOWN, "domain": UNKNOWN}),
    "nothing": (
        {"width": 3, "url": "not a url", "license": None, "date": "once"},
        {"domain": UNKNOWN, "year": UNKNOWN},
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_known_sources(name: str) -> None:
    row, wanted = ROWS[name]
    known = Known.among(row)
    methods = {"license": known.license, "domain": known.domain, "year": known.year}
    found = {fact: methods[fact](row) if fact in methods else known.value(row, fact) for fact in wanted}
    assert found == wanted


def test_a_column_that_says_nothing_leaves_the_word_to_the_next() -> None:
    row = {"author": "", "creator": "unknown", "artist": "A"}
    assert Known.among(row).value(row, "author") == "A"


@pytest.mark.parametrize("url", ["http://[", "http://\udcff/", "https://", "http://a.example:99999/", "//x"])
def test_a_strangers_url_is_no_error(url: str) -> None:
    known = Known.among(["url"])
    assert known.domain({"url": url}) in (UNKNOWN, "a.example", "\udcff")
