from dataclasses import replace

from curate.report.run import Run
from curate.report.sections import shares
from tests.report.test_markup import read
from tests.report.workdir import Workdir


def cells(workdir: Workdir) -> str:
    found = shares.section(Run.open(workdir.store))
    assert found is not None
    return " ".join(read(str(found)).text.split())


def test_each_route_shows_its_images_and_its_share_of_an_epoch(workdir: Workdir) -> None:
    text = cells(workdir)
    for expected in ("retrieval: resemble the curated sets2233.3 %", "curated: curated sets2466.7 %"):
        assert expected in text


def test_contamination_and_junk_are_told_as_counted(workdir: Workdir) -> None:
    assert "0 selected pool images and 1 selected curated image resemble one" in cells(workdir)
    assert "junk" not in cells(workdir)
    table = workdir.store.table("selection")
    manifest = table.manifest()
    assert manifest is not None
    metrics = manifest.metrics | {"junk": {"screened": 12, "selected": 3}}
    table.write_manifest(replace(manifest, metrics=metrics))
    assert "12 images screened out as junk before balancing, 3 of them" in cells(workdir)


def test_without_a_selection_there_is_nothing_to_show(workdir: Workdir) -> None:
    workdir.store.remove("selection")
    assert shares.section(Run.open(workdir.store)) is None
