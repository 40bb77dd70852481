"""Decisions of the page: written to `decisions.csv` at once, taken back, and found again for the images shown."""

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypedDict

from curate.decisions import Decision, append_decisions, forget_decisions, read_decisions
from curate.sources.entries import HASH_COLUMNS, Entries, normalize_entry
from curate.sources.secrets import MARK, NUMBERED
from curate.text import visible


class Mark(TypedDict):
    """A decision as the page shows it."""

    image: str
    decision: str
    other: str
    note: str
    about: list[str]
    """The image or the pair that it is about, see `Decision.about`."""


@dataclass(frozen=True)
class _Done:
    """What one step did, to be undone."""

    written: tuple[Decision, ...]
    before: tuple[Decision, ...]
    """What the file said about the same images and pairs."""


class Marks:
    """The decisions of a run."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._done: list[_Done] = []
        self._lock = threading.Lock()

    def all(self) -> list[Decision]:
        """Those of the file as it is now: a person may have written to it meanwhile."""
        return read_decisions(self.path)

    @property
    def num_undo(self) -> int:
        """Steps that can be taken back."""
        return len(self._done)

    def write(self, decisions: Iterable[Decision]) -> None:
        """Write decisions as one step."""
        written = tuple(decisions)
        with self._lock:
            about = {decision.about for decision in written}
            before = tuple(decision for decision in self.all() if decision.about in about)
            append_decisions(self.path, written)
            self._done.append(_Done(written, before))

    def forget(self, about: tuple[str, str]) -> None:
        """Take one decision out of the file, as a step that can be taken back."""
        with self._lock:
            before = tuple(decision for decision in self.all() if decision.about == about)
            forget_decisions(self.path, before)
            self._done.append(_Done((), before))

    def undo(self) -> tuple[Decision, ...]:
        """Take the last step back; returns the decisions that it was about, none where there was no step."""
        with self._lock:
            if not self._done:
                return ()
            done = self._done[-1]
            forget_decisions(self.path, done.written)
            append_decisions(self.path, done.before)
            self._done.pop()
            return (*done.written, *done.before)


class MarkIndex:
    """Decisions by what they name."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self._by_name: dict[str, list[Decision]] = {}
        for decision in decisions:
            for name in {normalize_entry(name) for name in (decision.image, decision.other) if name}:
                self._by_name.setdefault(name, []).append(decision)
        self._entries = Entries(frozenset(self._by_name))

    def of(self, names: dict[str, Any]) -> list[Mark]:
        """Those about an image, by its source, key, uri and hashes as the tables have them."""
        if not self._by_name:
            return []
        called = [names["key"], names["uri"], f"{names['source']}/{names['key']}"]
        called += [re.sub(NUMBERED, MARK, name) for name in called[:2]]
        if names["sha256"] is not None:
            called.append(names["sha256"].hex())
        called += sorted(self._entries.near(filter(None, map(names.get, HASH_COLUMNS))))
        found = {one: None for name in dict.fromkeys(called) for one in self._by_name.get(name, [])}
        return [as_mark(decision) for decision in found]


def as_mark(decision: Decision) -> Mark:
    """A decision for the page."""
    image, other, note = (visible(text, keep="") for text in (decision.image, decision.other, decision.note))
    return Mark(image=image, decision=decision.decision, other=other, note=note, about=list(decision.about))
