"""What the lists and tables of a source may lead to."""

from functools import partial
from urllib.parse import urlsplit

from curate.filesystems import STORES, WEB, protocol_of
from curate.sources.addresses import permit_of
from curate.sources.config import Source
from curate.sources.lists import list_entries
from curate.sources.network import Reach
from curate.sources.roots import is_list
from curate.sources.secrets import Secrets


def reach_of(source: Source) -> Reach:
    """What is in force while a source is listed or read: the path is the user's own word, all else is a stranger's."""
    protocol = protocol_of(source.path)
    return Reach(
        permit_of(source.private_addresses, own=urlsplit(source.path).hostname if protocol in WEB else None),
        protocols=WEB | STORES | {protocol},
        secrets=Secrets(partial(list_entries, source.path)) if is_list(source) else None,
        where=source.path,
    )
