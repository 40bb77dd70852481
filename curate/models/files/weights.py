"""Where weight files are: at a path, an https URL or on a model hub; looked up in caches, fetched only when asked."""

import hashlib
import os
import re
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from curate.errors import WeightsError, first_line
from curate.opening import check_regular

MAX_DOWNLOAD = 16 << 30
"""Bytes above which a download is given up: nothing larger is a backbone."""
TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up."""
CHUNK = 1 << 20
"""Bytes read from the network at a time."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the Hugging Face hub."""

    repo: str
    """Its owner and name, OWNER/NAME."""
    names: tuple[str, ...]
    """Names under which the weights may be there; the first that exists is taken."""

    @property
    def url(self) -> str:
        """Where a browser downloads it."""
        return f"https://huggingface.co/{self.repo}/resolve/main/{self.names[0]}"


def is_url(weights: str) -> bool:
    """Whether the text is a URL, of any scheme, and no path."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", weights) is not None


def locate(weights: str | None, hub: HubFile | None, *, model: str, fetch: bool, howto: str) -> Path | None:
    """The weight file on this machine.

    Args:
        weights: a path or https URL that the user gave; None: the hub's file.
        model: id of the model, for messages.
        fetch: download the file if it is not on this machine yet.
        howto: what the user can do where there is no file, for messages.

    Returns:
        The file; None where it is not here and `fetch` is False.

    Raises:
        WeightsError: a given path does not exist, or a download failed.
    """
    if weights is not None and not is_url(weights):
        try:
            return find_weight_file(weights)
        except WeightsError as error:
            raise WeightsError(f"{model}: {error}; correct `weights`, or {howto}") from error
    if weights is not None:
        return download(weights) if fetch else cached_download(weights)
    if hub is None:
        return None
    return _from_hub(hub, model=model, howto=howto) if fetch else _in_hub_cache(hub)


def find_weight_file(path: str | Path) -> Path:
    """The file that holds the weights: `path` itself, or the one inside a Hugging Face folder.

    Raises:
        WeightsError: there is none.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise WeightsError(f"{path}: no such weight file")
    if not path.is_dir():
        return _regular(path)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return _regular(path / name)
    raise WeightsError(f"{path}: a folder without model.safetensors or pytorch_model.bin")


def _regular(file: Path) -> Path:
    """The file, unless opening or reading it could wait for ever; libraries open it by its name."""
    try:
        check_regular(file)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read as weights: {error.strerror or error}") from error
    return file


def _in_hub_cache(hub: HubFile) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in hub.names:
        found = try_to_load_from_cache(hub.repo, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _from_hub(hub: HubFile, *, model: str, howto: str) -> Path:
    here = _in_hub_cache(hub)
    if here is not None:
        return here
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    problem: Exception | None = None
    for name in hub.names:
        try:
            return Path(hf_hub_download(hub.repo, name, etag_timeout=TIMEOUT))
        except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError, but it means: not reachable
            problem = error
            break
        except EntryNotFoundError as error:
            problem = error
        except Exception as error:  # the client lets errors of its HTTP library through, whichever that is
            problem = error
            break
    reason = first_line(problem) if problem else "nothing to fetch"
    raise WeightsError(
        f"{model}: its weights are not on this machine and {hub.repo} did not give them ({reason}); {howto}"
    ) from problem


def cache_dir() -> Path:
    """Folder of downloaded weights and of digests: $CURATE_CACHE, else `curate` in the user's cache folder."""
    named = os.environ.get("CURATE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "curate"


def cached_download(url: str) -> Path | None:
    """The file that `download(url)` has left; None where it has not run yet."""
    path = _download_place(url)
    return path if path.is_file() else None


def _download_place(url: str) -> Path:
    plain = url.partition("#")[0]
    name = re.sub(r"[^\w.-]", "_", plain.rpartition("/")[2]) or "weights"
    return cache_dir() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


def download(url: str, *, max_bytes: int = MAX_DOWNLOAD) -> Path:
    """Fetch an https URL once into the cache; `#sha256=HEX` at its end pins the content.

    Raises:
        WeightsError: not https, unreachable, larger than `max_bytes`, or other content than pinned.
    """
    if not url.startswith("https://"):
        raise WeightsError(f"{url}: only https URLs and local paths are weights")
    here = cached_download(url)
    if here is not None:
        return here
    plain, _, fragment = url.partition("#")
    target = _download_place(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            found = _stream(plain, file, max_bytes=max_bytes)
        pinned = fragment.removeprefix("sha256=").lower()
        if fragment and found != pinned:
            raise WeightsError(f"{plain}: content has sha256 {found}, pinned is {pinned}; is the URL right?")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _stream(url: str, file: IO[bytes], *, max_bytes: int) -> str:
    """Copy the content of the URL into the open file, and return its SHA-256 (hex)."""
    seen, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            while chunk := response.read(CHUNK):
                size += len(chunk)
                if size > max_bytes:
                    raise WeightsError(f"{url}: larger than {max_bytes} bytes; this is no weight file")
                seen.update(chunk)
                file.write(chunk)
    except (urllib.error.URLError, OSError) as error:
        raise WeightsError(
            f"{url}: download failed ({error}); fetch it by hand and give its path as `weights`"
        ) from error
    return seen.hexdigest()
