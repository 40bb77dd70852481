import pytest

from curate.feed.crops import Crops
from curate.trainer.objectives.settings import DinoSettings, DinoV2Settings, EsVitSettings, SitSettings
from tests.trainer.objectives.tiny import build, context, views, vit

HEAD = {"head_hidden": 32, "head_bottleneck": 16}


@pytest.mark.parametrize(
    "settings",
    [
        DinoV2Settings(**HEAD, koleo_weight=0.0),
        DinoSettings(**HEAD),
        EsVitSettings(**HEAD),
        SitSettings(head_hidden=32, head_out=16),
    ],
)
def test_every_objective_adds_koleo_by_its_weight(settings):
    shown = Crops(views().global_crops, views(local=0).local_crops)
    spread = settings.model_copy(update={"koleo_weight": 0.3})
    without, added = (build(s, vit())(shown, context()) for s in (settings, spread))
    assert added.terms.keys() - without.terms.keys() == {"koleo"}
    assert added.loss.item() == pytest.approx(without.loss.item() + 0.3 * added.terms["koleo"].item(), rel=1e-5)
