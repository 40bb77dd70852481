"""Measuring this machine gives a profile that can be written down and read again."""

import yaml

from curate.scale import here
from curate.scale.hardware import Hardware, load_hardware


def test_measured_rates_are_a_profile(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(here, "_best", lambda work: (work(), 0.5)[1])  # once, in half a second
    found = here.measure_hardware()
    assert found.name == "here"
    assert found.core.products * 0.5 * here.torch.get_num_threads() == 2 * 2048**3
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(found.model_dump()))
    assert load_hardware(str(path)) == Hardware.model_validate(found.model_dump())
