"""Settings that are picked one after the other, each with its reason, around those that are given."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Pick(NamedTuple):
    """One setting, and why it is what it is."""

    key: str
    value: Any
    reason: str


class Picked:
    """Settings in the order in which they were picked; those that were given stay as they are."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = copied(given)
        if isinstance(self.values.get("objective"), str):
            self.values["objective"] = {"kind": self.values["objective"]}
        self.picks: list[Pick] = []

    def pick(self, key: str, value: Any, reason: str) -> Any:
        """Take `value` for a dotted key unless one was given; returns what counts."""
        given = self.get(key)
        if self.has(key):
            self.picks.append(Pick(key, given, "given"))
            return given
        _set(self.values, key, value)
        self.picks.append(Pick(key, value, reason))
        return value

    def take(self, lines: Iterable[tuple[str, Any, str]]) -> None:
        """Pick several settings, each a key, a value and a reason."""
        for key, value, reason in lines:
            self.pick(key, value, reason)

    def has(self, key: str) -> bool:
        """Whether there is a value at a dotted key."""
        *parents, leaf = key.split(".")
        return leaf in _at(self.values, parents)

    def get(self, key: str) -> Any:
        """The value at a dotted key; None: there is none."""
        *parents, leaf = key.split(".")
        return _at(self.values, parents).get(leaf)


def copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings, with mappings of their own."""
    return {key: copied(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _at(values: Mapping[str, Any], parents: list[str]) -> Mapping[str, Any]:
    for parent in parents:
        inner = values.get(parent)
        values = inner if isinstance(inner, Mapping) else {}
    return values


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            values[parent] = {}
        values = values[parent]
    values[leaf] = value
