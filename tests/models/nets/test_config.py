import pytest

from curate.errors import ConfigError
from curate.models.nets.config import PRESETS, vit_config


def test_released_resampling_follows_from_the_registers() -> None:
    assert vit_config("vit_small").resampling == (0.1, False)
    assert vit_config("vit_small_reg4").resampling == (0.0, True)


def test_unknown_preset_names_the_nearest() -> None:
    assert len(PRESETS) == 17
    with pytest.raises(ConfigError, match="vit_smal: no such ViT preset; did you mean 'vit_small'"):
        vit_config("vit_smal")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "dim 384 is not a multiple of heads 5"),
        ({"image_size": 500}, "image_size 500 is no multiple of patch_size 14"),
        ({"deph": 3}, "did you mean 'depth'"),
    ],
)
def test_fields_that_do_not_fit_are_config_errors(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vit_config("vit_small", **changes)
