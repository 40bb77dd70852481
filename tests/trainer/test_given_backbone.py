import pytest

from curate.config import parse
from curate.errors import ConfigError
from curate.models.files.header import ExportInfo
from curate.models.nets.config import vit_config
from curate.models.nets.tower import tower_config
from curate.trainer.config import TrainSettings
from curate.trainer.given_backbone import export_info

GIVEN = ExportInfo(image_size=224, short_edge=256, interpolation="bilinear")
SWIN = "swin_tiny_patch4_window7_224"


def settings(**changes):
    return parse(TrainSettings, {"crops": {"global_size": 112, "local_size": 56}} | changes, where="test")


@pytest.mark.parametrize(
    ("network", "side"),
    [
        (vit_config("vit_tiny", image_size=224), 224),
        (vit_config("vit_tiny", image_size=518), 224),
        (vit_config("vit_tiny", image_size=112), 112),  # its positions were resampled to the crops' grid
        (vit_config("dinov3_tiny", image_size=112), 224),  # rotary ones fit any
        (tower_config("resnet18"), 224),
        (tower_config(SWIN, image_size=112), 112),
    ],
)
def test_a_backbone_goes_on_embedding_pictures_of_its_own_size_where_it_can(network, side):
    info = export_info(settings(), GIVEN, network)
    assert (info.image_size, info.short_edge) == (side, round(side * 256 / 224))
    assert export_info(settings(), None, network).image_size == 112


def test_larger_crops_than_those_of_the_backbone_are_what_exports_embed():
    larger = settings(crops={"global_size": 448, "local_size": 112})
    assert export_info(larger, GIVEN, vit_config("vit_tiny", image_size=518)).image_size == 448


def test_a_size_of_ones_own():
    asked = settings(export_size=168)
    assert export_info(asked, None, vit_config("vit_tiny", image_size=112)).image_size == 168
    assert export_info(asked, GIVEN, vit_config("vit_tiny", image_size=224)).image_size == 168
    with pytest.raises(ConfigError, match="export_size=168: the network is built for the 112 pixels of the global"):
        export_info(asked, None, tower_config(SWIN, image_size=112))
    with pytest.raises(ConfigError, match="export_size 100 is not a multiple of patch_size 14"):
        settings(export_size=100)
