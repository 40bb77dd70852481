"""What stands beside the shards and speaks of them: the card, Croissant, the summary, and the manifest of digests.

All are made from finished tables and the settings of the config, and from nothing that a clock or a machine tells, so
that they come out equal when nothing changed. They are written when a run ends, each anew only where it differs.
"""

from collections.abc import Iterator
from typing import NamedTuple

from curate.engine.finished import Finished
from curate.report.card import is_behind as card_is_behind
from curate.report.card import unchecked, write_card
from curate.report.croissant import render_croissant
from curate.report.summary import render_summary
from curate.sealed_json import dump_sealed
from curate.shard_manifest import ShardManifest
from curate.signing import sign
from curate.stages.selection.count_origins import CountOrigins, origins_of
from curate.stages.selection.list_rows import ListShardRows, manifest_of
from curate.stages.selection.publish import Publish
from curate.stages.selection.write_shards import CROISSANT, MANIFEST_FILE, SIGNATURE_FILE, SUMMARY, WriteShards


class Paper(NamedTuple):
    """A file beside the shards."""

    name: str
    data: bytes


def write_papers(run: Finished) -> None:
    """Write the card and the papers of a workdir's shards; nothing where the recipe makes none, or not yet.

    Raises:
        ConfigError: `write.publish.sign_key` is no key that can sign.
        MissingExtra: it is one, and `cryptography` is not installed.
    """
    write_card(run)
    for paper in _differing(run):
        if paper.name == MANIFEST_FILE:
            _drop_signature(run)
        run.store.write_bytes(paper.name, paper.data)
    found = _found(run)
    if found is None:
        return
    publish, manifest = found
    if publish.sign_key is not None:
        text = sign(_manifest_bytes(manifest), publish.sign_key, where="write.publish.sign_key")
        if run.store.read_bytes(SIGNATURE_FILE) != text:
            run.store.write_bytes(SIGNATURE_FILE, text)


def _drop_signature(run: Finished) -> None:
    """A signature is of one manifest; where another store shows through, an empty file stands for none."""
    run.store.remove(SIGNATURE_FILE)
    if run.store.exists(SIGNATURE_FILE):
        run.store.write_bytes(SIGNATURE_FILE, b"")


def papers_are_behind(run: Finished) -> bool:
    """Whether the card or a paper is missing, or says something else than the finished tables."""
    found = _found(run)
    unsigned = found is not None and found[0].sign_key is not None and not run.store.read_bytes(SIGNATURE_FILE)
    return card_is_behind(run) or unsigned or next(_differing(run), None) is not None


def _differing(run: Finished) -> Iterator[Paper]:
    """Papers that are not there as they should be."""
    for paper in _papers(run):
        if run.store.read_bytes(paper.name) != paper.data:
            yield paper


def _found(run: Finished) -> tuple[Publish, ShardManifest] | None:
    """What the publisher says, and the manifest; None: there are no shards to tell of."""
    shards, lists = run.only(WriteShards), run.only(ListShardRows)
    if shards is None or lists is None or shards[0].publish is None:
        return None
    return shards[0].publish, manifest_of(lists[1])


def _manifest_bytes(manifest: ShardManifest) -> bytes:
    return dump_sealed(manifest.as_json())


def _papers(run: Finished) -> Iterator[Paper]:
    found, origins, shards = _found(run), run.only(CountOrigins), run.only(WriteShards)
    if found is None or origins is None or shards is None:
        return
    publish, manifest = found
    open_ = unchecked(run)
    yield Paper(MANIFEST_FILE, _manifest_bytes(manifest))
    schema = shards[1].schema()
    yield Paper(CROISSANT, render_croissant(run, shards[0], manifest, schema, publish=publish, unchecked=open_))
    counted = origins_of(origins[1])
    yield Paper(SUMMARY, render_summary(run, counted, manifest, publish=publish, unchecked=open_))
