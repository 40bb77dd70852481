import pytest

from curate.trainer.objective import Views
from curate.trainer.objectives.settings import DinoSettings, DinoV2Settings, EsVitSettings, SitSettings
from tests.trainer.objectives.tiny import build, moment, views, vit

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
    shown = Views(views().large, views(local=0).small)
    spread = settings.model_copy(update={"koleo_weight": 0.3})
    without, added = (build(s, vit())(shown, moment()) for s in (settings, spread))
    assert added.parts.keys() - without.parts.keys() == {"koleo"}
    assert added.total.item() == pytest.approx(without.total.item() + 0.3 * added.parts["koleo"].item(), rel=1e-5)
