"""The files under a URL, in bytewise order: an object store, a web server, whatever fsspec knows.

All names are asked for in one listing, since a store gives a thousand of them at once and none costs a request of its
own; whoever lists holds an entry of a few hundred bytes for each.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from curate.errors import SourceError
from curate.retrying import describe_error, is_permanent, retry
from curate.sources.files import MAX_RUN_BYTES, RUN, File, fixed_part, is_glob, is_run, is_there
from curate.sources.left_out import LINK_OUT, leave_out
from curate.sources.limits import MAX_NAME_BYTES
from curate.sources.network import network, open_filesystem
from curate.sources.suffixes import PARQUET, is_hidden
from curate.sources.uri import encode_uri

if TYPE_CHECKING:
    from curate.sources.beside import Around, Surroundings

log = logging.getLogger(__name__)

MAX_WEB_FOLDERS = 100_000
"""Pages of folders of a web server that are followed."""


def find_remote(url: str, skipped: Counter[str], around: "Surroundings | None") -> Iterator[File]:
    """The files under a URL, the file itself, or the matches of a glob.

    Raises:
        SourceError: nothing is there, or it cannot be listed.
    """
    try:
        fs, path = open_filesystem(url)
        found = retry(lambda: _list_remote(fs, path), where=url, remote=True, patience=network().patience)
    except SourceError:
        raise
    except Exception as error:  # libraries of object stores raise their own kinds
        raise SourceError(f"{url}: cannot be listed ({describe_error(error)}); check the URL and the access") from error
    if not found:
        raise SourceError(f"{url}: nothing is there; check the URL")
    root = fixed_part(path) if is_glob(path) else path.rstrip("/")
    folders = _RemoteFolders(fs, root, found, whole=not is_glob(path))
    for folder in folders.find_runs(skipped):
        found = {name: info for name, info in found.items() if not name.startswith(f"{folder}/")}
    views = {} if around is None or path in found else folders.look_around(around)
    for name in sorted(found, key=str.encode):
        key = name.removeprefix(root).lstrip("/") or name.rsplit("/", 1)[-1]
        if any(is_hidden(step) for step in key.split("/")):
            leave_out(skipped, "hidden file", encode_uri(key.encode()))
        else:
            folder, _, last = name.rpartition("/")
            view = views.get(folder)
            if view is not None and last.encode() in view.refused:
                leave_out(skipped, view.refused[last.encode()], encode_uri(key.encode()))
            yield File(_remote_uri(fs, name), encode_uri(key.encode()), *_remote_facts(found[name]), view)


class _RemoteFolders:
    """The folders of a remote source; all names are known at once, and were asked for in one listing."""

    def __init__(self, fs: Any, root: str, found: dict[str, dict[str, Any]], *, whole: bool) -> None:
        self._fs, self._root, self._found, self._whole = fs, root, found, whole
        self._names: dict[str, list[bytes]] = {}

    def find_runs(self, skipped: Counter[str]) -> list[str]:
        """Folders that are workdirs of curate."""
        mark = f"/{RUN.decode()}"
        runs = [name.removesuffix(mark) for name in self._found if name.endswith(mark) and self._marks_run(name)]
        if self._whole and self._root in runs:
            url = _remote_uri(self._fs, self._root)
            raise SourceError(f"{url}: is a workdir of curate; give its pictures, as {url}/shards/data")
        for folder in sorted(runs):
            leave_out(skipped, "workdir of curate", self._key(folder))
        return runs

    def look_around(self, around: "Surroundings") -> dict[str, "Around"]:
        """What lies around the images of each folder; of what a glob matches, the folders are listed."""
        for name in self._found:
            folder, _, last = name.rpartition("/")
            self._names.setdefault(folder, []).append(last.encode())
        if not self._whole:
            self._names = {folder: self._list(folder) for folder in self._names}
        for folder in list(self._names):
            above = folder.rpartition("/")[0]
            while above not in self._names and f"{above}/".startswith(f"{self._root}/"):
                self._names[above] = []  # a folder of folders alone hands down the tables around it
                above = above.rpartition("/")[0]
        views: dict[str, Around] = {}
        for folder in sorted(self._names):  # a folder comes before those in it
            key = self._key(folder)
            views[folder] = around.enter(
                _remote_uri(self._fs, folder),
                f"{key}/" if key else "",
                self._names[folder],
                has=partial(self._has, folder),
                refused=partial(self._why_refused, folder),
                above=views.get(folder.rpartition("/")[0]),
                shard_table=self._shard_table(folder),
            )
        return views

    def _key(self, folder: str) -> str:
        return encode_uri(folder.removeprefix(self._root).lstrip("/").encode())

    def _marks_run(self, name: str) -> bool:
        with retry(lambda: self._fs.open(name, "rb"), where=name, remote=True) as file:
            return is_run(file.read(MAX_RUN_BYTES))

    def _list(self, folder: str) -> list[bytes]:
        try:
            entries = retry(lambda: self._fs.ls(folder, detail=False), where=folder, remote=True)
        except SourceError:
            raise
        except Exception:  # a store that gives files and no listings
            return []
        return [entry.rstrip("/").rpartition("/")[2].encode() for entry in entries]

    def _has(self, folder: str, name: bytes) -> bool:
        path = f"{folder}/{name.decode(errors='replace')}"
        if path.endswith("/"):
            return path[:-1] in self._names
        return path in self._found or (not self._whole and name in self._names.get(folder, ()))

    def _shard_table(self, folder: str) -> str | None:
        for suffix in sorted(PARQUET):
            table = _remote_uri(self._fs, folder + suffix)
            if folder + suffix in self._found or (folder == self._root and is_there(table)):
                return table
        return None

    def _why_refused(self, folder: str, name: bytes) -> str | None:
        info = self._found.get(f"{folder}/{name.decode()}", {})
        linked = info.get("islink") or info.get("type") == "link"
        return LINK_OUT if linked else None


def _list_remote(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    if is_glob(path):
        matches: dict[str, dict[str, Any]] = fs.glob(path, detail=True)
        return {name: info for name, info in matches.items() if info.get("type") != "directory"}
    if path.startswith(("http://", "https://")) and path.endswith("/"):  # a page of links, which `info` calls a file
        return _find_on_web(fs, path)
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        if not is_permanent(error, remote=True):  # fsspec's words for a server that is busy or away
            raise
        return {}
    if info.get("type") == "file":
        return {path: info}
    own_way = type(fs).find is not AbstractFileSystem.find or getattr(type(fs), "_find", None) not in (None, _WALKING)
    return dict(fs.find(path, detail=True)) if own_way else _walk_remote(fs, path)


_WALKING = AsyncFileSystem._find


def _walk_remote(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """What `find` gives, where that is fsspec's own walk: it leaves out folders that cannot be listed, whatever the
    reason. Here one that is busy is an error, and one that is gone is left out."""
    found: dict[str, dict[str, Any]] = {}
    folders, seen = [path], {path.rstrip("/")}
    while folders:
        folder = folders.pop()
        try:
            entries = retry(lambda: fs.ls(folder, detail=True), where=folder, remote=True, patience=network().patience)  # noqa: B023
        except FileNotFoundError as error:
            if folder == path:
                raise
            log.warning("%s: gone while its folder was listed (%s)", folder, describe_error(error))
            continue
        for entry in entries:
            name = entry["name"].rstrip("/")
            if entry.get("type") != "directory":
                found[entry["name"]] = entry
            elif name not in seen:
                seen.add(name)
                folders.append(name)
    return found


def _find_on_web(fs: Any, url: str) -> dict[str, dict[str, Any]]:
    """The files that the pages of a web server's folders link to.

    Such pages also link to the folder above them and to themselves in another order (`?C=M;O=A`), so that whoever
    follows all links ends up listing the whole server: only what lies below a page is followed.
    """
    found: dict[str, dict[str, Any]] = {}
    folders, known = [url], {url}
    while folders:
        if len(known) > MAX_WEB_FOLDERS:  # a server can make up links without end
            raise SourceError(
                f"{url}: pages link to more than {MAX_WEB_FOLDERS:,} folders below it; give those of the pictures, "
                "or a list of their URLs"
            )
        folder = folders.pop()
        for entry in fs.ls(folder, detail=True):
            name: str = entry["name"]
            if not name.startswith(folder) or name == folder or "?" in name or "#" in name or "/../" in name:
                continue
            if len(name) > MAX_NAME_BYTES:
                continue
            if not name.endswith("/"):
                found[name] = entry
            elif name not in known:
                known.add(name)
                folders.append(name)
    return found


def _remote_uri(fs: Any, name: str) -> str:
    return encode_uri(fs.unstrip_protocol(name).encode())


def _remote_facts(info: dict[str, Any]) -> tuple[int | None, int | None]:
    """Length and modification time, as far as the store tells."""
    names = ("mtime", "LastModified", "updated", "last_modified", "created")
    when: Any = next((info[name] for name in names if info.get(name) is not None), None)
    seconds = when.timestamp() if hasattr(when, "timestamp") else when
    modified = int(seconds * 1_000_000_000) if isinstance(seconds, int | float) else None
    return info.get("size"), modified
