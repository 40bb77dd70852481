"""The families of inputs by name."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from benchmarks.hostile import archives, names, pictures, sets, sidecars, tables, urls, weights
from benchmarks.hostile.case import Case, Picture
from benchmarks.hostile.server import Hosts, serving
from curate.errors import ConfigError

Inputs = Iterable[Case | Picture]

FAMILIES: dict[str, Callable[[int, Hosts], Inputs]] = {
    "pictures": lambda seed, hosts: pictures.pictures(seed),
    "names": lambda seed, hosts: names.cases(seed),
    "folders": lambda seed, hosts: names.folder_cases(seed),
    "archives": lambda seed, hosts: archives.cases(seed),
    "tables": lambda seed, hosts: tables.cases(seed),
    "sidecars": lambda seed, hosts: sidecars.cases(seed),
    "servers": urls.server_cases,
    "addresses": urls.address_cases,
    "lists": lambda seed, hosts: urls.list_cases(seed),
    "url-tables": urls.table_cases,
    "weights": lambda seed, hosts: weights.cases(seed),
    "configs": lambda seed, hosts: weights.config_cases(seed),
    "sets": lambda seed, hosts: sets.cases(seed),
}


@contextmanager
def choose(only: Sequence[str], *, seed: int, name: str = "") -> Iterator[Mapping[str, Inputs]]:
    """The inputs of some families, or of all, while the servers are there that some of them need.

    Raises:
        ConfigError: there is no family of that name.
    """
    unknown = [family for family in only if family not in FAMILIES]
    if unknown:
        raise ConfigError(f"--only {unknown[0]}: no such family; there are: {', '.join(FAMILIES)}")
    with serving(seed) as hosts:
        chosen = {family: FAMILIES[family](seed, hosts) for family in only or FAMILIES}
        yield {family: (one for one in inputs if name in one.name) for family, inputs in chosen.items()}
