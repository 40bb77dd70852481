import pytest
import torch
from torch import nn

from curate.errors import ConfigError
from curate.models import device
from curate.models.device import autocast, resolve_device, resolve_precision

CPU = torch.device("cpu")


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("cuda:1", "device=cuda:1: 1 CUDA devices are usable here"),
        ("gpu", "device=gpu: no such kind of device; use auto, cpu, cuda"),
        ("mps", "device=mps: only auto, cpu, cuda"),
    ],
)
def test_absent_devices_are_errors(choice: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ConfigError, match=message):
        resolve_device(choice)


def test_auto_precision_is_bf16_only_where_hardware_and_model_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "prefers_bf16", lambda _: True)
    assert resolve_precision("auto", CPU) == "bf16"
    assert resolve_precision("auto", CPU, bf16=False) == "fp32"
    assert resolve_precision("bf16", CPU, bf16=False) == "bf16"
    monkeypatch.setattr(device, "prefers_bf16", lambda _: False)
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"


@pytest.mark.parametrize(("seconds", "faster"), [((1.0, 0.3), True), ((1.0, 0.9), False), ((0.6, 1.0), False)])
def test_bf16_of_a_cpu_must_be_measurably_faster(
    seconds: tuple[float, float], faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    took = dict(zip((torch.float32, torch.bfloat16), seconds, strict=True))
    monkeypatch.setattr(device, "_product_seconds", lambda dtype: took[dtype])
    device._bf16_gain.cache_clear()
    assert device.prefers_bf16(CPU) is faster
    device._bf16_gain.cache_clear()


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_of_a_gpu_follows_its_capability(
    capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert device.prefers_bf16(torch.device("cuda")) is expected


def test_autocast_computes_in_the_precision() -> None:
    linear, x = nn.Linear(4, 4), torch.zeros(1, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(CPU, precision):
            assert linear(x).dtype == dtype
