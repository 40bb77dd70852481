"""License and attribution of an image, by the columns that the common sources of pictures call them.

Every source has other names for the same fact, and most say nothing at all. What is recognized here is what these
sources document: img2dataset and LAION (`url`, `URL`, `LICENSE`, where `?` means that nobody knows), Wikimedia Commons
(`LicenseShortName`, `Artist`, `Credit`), Flickr and YFCC100M (`licensename`, `licenseurl`, `unickname`, `pageurl`),
Openverse (`license` with `license_version`, `creator`, `foreign_landing_url`), Open Images (`License`, `Author`,
`OriginalLandingURL`) and COCO (`license` as a number, `flickr_url`). Names are compared without case, spaces, `_`, `-`
and `/`. A license is told by its SPDX name where its text or URL says which one it is, and else as the source gives it:
a guess would be worse than "unknown".

Sources: the fields of the Wikimedia `extmetadata`, of YFCC100M (arXiv:1503.01817, section 2), of the Openverse API, of
the Open Images CSV, of the COCO annotation format, and Flickr's `flickr.photos.licenses.getInfo`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self
from urllib.parse import urlsplit

FACTS: dict[str, tuple[str, ...]] = {
    "license": (
        "license",
        "licence",
        "licensename",
        "licencename",
        "licenseshortname",
        "licensetype",
        "usageterms",
        "rights",
        "copyright",
        "copyrightstatus",
    ),
    "license URL": ("licenseurl", "licenceurl", "licenselink", "rightsurl", "webstatement"),
    "license version": ("licenseversion",),
    "author": (
        "author",
        "authorname",
        "creator",
        "artist",
        "photographer",
        "ownername",
        "unickname",
        "usernickname",
        "owner",
        "uid",
        "usernsid",
    ),
    "author URL": ("authorurl", "authorprofileurl", "creatorurl", "ownerurl", "userurl"),
    "attribution": ("attribution", "attributiontext", "attributionhtml"),
    "credit": ("credit", "creditline", "courtesy"),
    "title": ("title", "objectname"),
    "page": (
        "foreignlandingurl",
        "originallandingurl",
        "pageurl",
        "landingurl",
        "landingpage",
        "descriptionurl",
        "pagelink",
        "sourceurl",
        "flickrurl",
    ),
    "URL": ("url", "imageurl", "originalurl", "downloadurl", "fullurl", "cocourl", "imgurl", "contenturl"),
    "date": (
        "datetaken",
        "datecaptured",
        "datetimeoriginal",
        "dateuploaded",
        "publisheddate",
        "datecreated",
        "createdon",
        "timestamp",
        "date",
    ),
    "caption": ("caption", "text", "alttext", "description", "title"),
}
"""By fact: the columns that tell it, best first; of several the first that says something counts."""
TOLD = ("license", "license URL", "author", "author URL", "attribution", "credit", "title", "page", "URL")
"""Facts whose coverage a summary tells."""
SILENT = frozenset({"", "?", "-", "n/a", "na", "nan", "none", "null", "unknown", "not specified", "unspecified"})
"""Values that say nothing, in small letters."""
MAX_TEXT = 80
"""Characters of a license that are kept."""
UNKNOWN = "unknown"

_FLICKR = {
    0: "All-Rights-Reserved",
    1: "CC-BY-NC-SA-2.0",
    2: "CC-BY-NC-2.0",
    3: "CC-BY-NC-ND-2.0",
    4: "CC-BY-2.0",
    5: "CC-BY-SA-2.0",
    6: "CC-BY-ND-2.0",
    7: "No known copyright restrictions",
    8: "US-Government-Work",
    9: "CC0-1.0",
    10: "CC-PDM-1.0",
}
"""Flickr's numbers, which COCO took over."""
_FLICKR_HOSTS = ("flickr.com", "staticflickr.com")
_URL = re.compile(r"https?://(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)(?:/(\d\.\d))?", re.I)
_WORDS = re.compile(
    r"(?:cc|creative commons)?[ _-]*(?:by|attribution)"
    r"(?P<terms>(?:[ _-]*(?:nc|nd|sa))*)[ _-]*v?(?P<version>\d(?:\.\d)?)?"
)
_LONG = {"noncommercial": "nc", "non-commercial": "nc", "noderivatives": "nd", "noderivs": "nd"}
_LONG |= {"no derivatives": "nd", "sharealike": "sa", "share-alike": "sa", "share alike": "sa"}
_YEAR = re.compile(r"\s*(1[89]\d\d|20\d\d)\b")
_EPOCH = (0, 4_102_444_800)
"""Seconds of the years 1970 to 2100."""


def plain_name(column: str) -> str:
    """A column's name as names are compared."""
    return re.sub(r"[\s_/-]+", "", column).lower()


@dataclass(frozen=True)
class Known:
    """Which columns of a table tell which fact."""

    columns: Mapping[str, tuple[str, ...]]
    """By fact: the columns that are there, best first."""

    @classmethod
    def among(cls, columns: Iterable[str]) -> Self:
        """The recognized ones among some columns, a prefix `source_` of the shards left aside."""
        by_plain: dict[str, list[str]] = {}
        for column in columns:
            by_plain.setdefault(plain_name(column), []).append(column)
            if column.startswith("source_"):
                by_plain.setdefault(plain_name(column.removeprefix("source_")), []).append(column)
        found = {fact: [c for name in names for c in by_plain.get(name, ())] for fact, names in FACTS.items()}
        return cls({fact: tuple(dict.fromkeys(columns)) for fact, columns in found.items()})

    @property
    def needed(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(column for columns in self.columns.values() for column in columns))

    def value(self, row: Mapping[str, Any], fact: str) -> str | None:
        """What an image's row says of a fact; None: nothing."""
        texts = (_text(row.get(column)) for column in self.columns[fact])
        return next((text for text in texts if text is not None), None)

    def license(self, row: Mapping[str, Any]) -> str:
        """The license of an image: its SPDX name where that is clear, else as the source gives it, or `unknown`."""
        name, url, version = (self.value(row, fact) for fact in ("license", "license URL", "license version"))
        flickr = any(_is_flickr(self.value(row, fact)) for fact in ("URL", "page"))
        return license_name(name, url, version=version, flickr=flickr)

    def domain(self, row: Mapping[str, Any]) -> str:
        """The host of the picture's URL, or of its page, without `www.`; `unknown` where no column tells one."""
        hosts = (_host(self.value(row, fact)) for fact in ("URL", "page"))
        return next((host for host in hosts if host), UNKNOWN)

    def year(self, row: Mapping[str, Any]) -> str:
        """The year of a picture, by the first of its dates; `unknown` where none is told."""
        text = self.value(row, "date")
        if text is None:
            return UNKNOWN
        found = _YEAR.match(text)
        return found[1] if found else _year_of_seconds(text)


@lru_cache(maxsize=4096)
def license_name(name: str | None, url: str | None = None, *, version: str | None = None, flickr: bool = False) -> str:
    """The SPDX name of a license, or what is given of it.

    Args:
        name: its text, such as `CC BY-SA 4.0`, `by-nc` or a URL.
        url: where it stands.
        version: `4.0`, where the name leaves it out.
        flickr: whether a number is one of Flickr's.
    """
    by_url = next((found for text in (url, name) if text and (found := _of_url(text))), None)
    if by_url:
        return by_url
    if name is None:
        return url[:MAX_TEXT] if url else UNKNOWN
    if re.fullmatch(r"\d+(\.0)?", name):
        number = int(float(name))
        return _FLICKR[number] if flickr and number in _FLICKR else f"number {name} of its source"
    return _of_words(name, version) or name[:MAX_TEXT]


def _of_url(text: str) -> str | None:
    found = _URL.search(text)
    if found is None:
        return None
    kind, code, version = found[1].lower(), found[2].lower(), found[3]
    if kind == "publicdomain":
        return {"zero": "CC0-1.0", "mark": "CC-PDM-1.0"}.get(code, f"CC-{code}")
    return "-".join(["CC", code.upper(), *([version] if version else [])])


def _of_words(name: str, version: str | None) -> str | None:
    text = name.lower().removesuffix(" license").removesuffix(" licence").strip()
    if re.fullmatch(r"cc[ _-]?0([ _-]?1\.0)?|cc-zero|(creative commons )?zero", text):
        return "CC0-1.0"
    if text in ("pdm", "cc-pdm", "public domain mark", "pdm 1.0"):
        return "CC-PDM-1.0"
    for long, short in _LONG.items():
        text = text.replace(long, short)
    found = _WORDS.fullmatch(text)
    if found is None:
        return None
    terms = re.findall("nc|nd|sa", found["terms"] or "")
    told = found["version"] or version
    told = f"{told}.0" if told and "." not in told else told
    return "-".join(["CC", "BY", *(term.upper() for term in terms), *([told] if told else [])])


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return None if text.lower() in SILENT else text


def _host(url: str | None) -> str | None:
    if url is None or "://" not in url[:16]:
        return None
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return None
    return host.removeprefix("www.").rstrip(".") if host else None


def _is_flickr(url: str | None) -> bool:
    host = _host(url) or ""
    return any(host == name or host.endswith(f".{name}") for name in _FLICKR_HOSTS)


def _year_of_seconds(text: str) -> str:
    """Of a number of seconds or milliseconds since 1970."""
    import datetime

    try:
        seconds = float(text)
    except ValueError:
        return UNKNOWN
    seconds = seconds / 1000 if seconds > _EPOCH[1] else seconds
    if not _EPOCH[0] < seconds < _EPOCH[1]:
        return UNKNOWN
    return str(datetime.datetime.fromtimestamp(seconds, datetime.UTC).year)
