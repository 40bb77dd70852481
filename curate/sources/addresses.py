"""Which addresses a URL may lead to that a stranger wrote.

A list or table of URLs comes from the open web, and is fetched by machines that reach more than the web does: services
of their own, printers, and the metadata server of a cloud (169.254.169.254), which hands out keys. So an address that
is not of the public Internet is refused, unless the user allows it.

What is judged is the address that is connected to, not the text of the URL: `http://2130706433/`, `http://0177.1/` and
a name whose owner lets it resolve to 127.0.0.1 are all the same place, and a name that is looked up twice may give two
answers. Addresses of IPv6 that stand for one of IPv4 (mapped, 6to4, NAT64, Teredo) are judged as that one.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from curate.errors import SourceLost

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")

_MAPPED = ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("::ffff:0:0:0/96")
"""IPv4-compatible (deprecated), and translated by SIIT; IPv4-mapped is known to the standard library."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class PrivateAddress(SourceLost):
    """A URL that a stranger wrote leads to an address that is not of the public Internet."""

    def __init__(self, host: str) -> None:
        why = (
            f"its server {host!r} has a private address, which is not asked; to allow it, give the source "
            f"private_addresses: [{host}]"
        )
        super().__init__(why, why)
        self.host = host

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.host,)


@dataclass(frozen=True)
class Permit:
    """Which private addresses may be asked; public ones always may."""

    everything: bool = False
    names: frozenset[str] = frozenset()
    """Hosts as URLs write them, in lower case."""
    networks: tuple[IPNetwork, ...] = ()

    def allowed(self, host: str, addresses: Sequence[T], *, text: Callable[[T], str] = str) -> list[T]:
        """Of the addresses of a host, those that may be connected to.

        Args:
            text: gives the address as the system writes it.

        Raises:
            PrivateAddress: there are some, but none that may.
        """
        found = [address for address in addresses if self.allows(host, text(address))]
        if addresses and not found:
            raise PrivateAddress(host)
        return found

    def allows(self, host: str, address: str) -> bool:
        """Whether an address of a host may be connected to."""
        if self.everything or host.lower().rstrip(".") in self.names:
            return True
        found = parse_address(address)
        inner = _inner(found) or found
        return is_public(inner) or any(one in network for one in (found, inner) for network in self.networks)


PUBLIC = Permit()
"""For what strangers name."""
ANYTHING = Permit(everything=True)
"""For what the user named himself."""


def permit_of(allowed: bool | Iterable[str], *, own: str | None = None) -> Permit:
    """What a setting allows: all, none, or hosts and networks by name (`intranet.local`, `10.0.0.0/8`).

    Args:
        own: a host that the user named himself.
    """
    if isinstance(allowed, bool):
        return ANYTHING if allowed else Permit(names=frozenset([own.lower()] if own else []))
    names, networks = {own.lower()} if own else set(), []
    for text in allowed:
        network = as_network(text)
        if network is None:
            names.add(text.lower().strip("[]").rstrip("."))
        else:
            networks.append(network)
    return Permit(False, frozenset(names), tuple(networks))


def as_network(text: str) -> IPNetwork | None:
    """The network or single address that a text is; None: it is the name of a host.

    Raises:
        ValueError: a text with a slash that is no network.
    """
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        if "/" in text:
            raise
        return None


def parse_address(text: str) -> IPAddress:
    """The address that a socket names, without the zone of IPv6."""
    return ipaddress.ip_address(text.split("%", 1)[0])


def is_public(address: IPAddress) -> bool:
    """Whether an address is one of the public Internet, to which one connects."""
    if address.is_multicast or address.is_unspecified or address.is_reserved or not address.is_global:
        return False
    return not (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)


def _inner(address: IPAddress) -> IPAddress | None:
    """The address of IPv4 for which one of IPv6 stands; None: for none."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address.is_loopback or address.is_unspecified:
        return None
    if address in _NAT64 or any(address in network for network in _MAPPED):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def written_addresses(host: str) -> list[str]:
    """The address that a host is written as, in any notation that sockets take (`127.1`, `0x7f000001`); else none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError, ValueError):
        return []
    return [str(where[4][0]) for where in found]
