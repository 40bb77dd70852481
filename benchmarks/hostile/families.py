"""The families of inputs by name."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from benchmarks.hostile import archives, names
from benchmarks.hostile.case import Case, Picture
from benchmarks.hostile.pictures import pictures
from curate.errors import ConfigError

FAMILIES: dict[str, Callable[[int], Iterable[Case | Picture]]] = {
    "pictures": pictures,
    "names": names.cases,
    "folders": names.folder_cases,
    "archives": archives.cases,
}


@contextmanager
def choose(only: Sequence[str], *, seed: int, name: str = "") -> Iterator[Mapping[str, Iterable[Case | Picture]]]:
    """The inputs of some families, or of all, while what they need is there.

    Raises:
        ConfigError: there is no family of that name.
    """
    unknown = [family for family in only if family not in FAMILIES]
    if unknown:
        raise ConfigError(f"--only {unknown[0]}: no such family; there are: {', '.join(FAMILIES)}")
    chosen = only or list(FAMILIES)
    yield {family: (one for one in FAMILIES[family](seed) if name in one.name) for family in chosen}
