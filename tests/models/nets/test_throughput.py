import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from curate.models.flops import vit_flops
from curate.models.nets import throughput
from curate.models.nets.config import vit_config
from curate.models.nets.throughput import Meter, count_flops, matmul_rate
from curate.models.nets.vit import VisionTransformer


def test_a_linear_layer_counts_one_product_forward_and_two_backward():
    x, weight = torch.ones(5, 7, requires_grad=True), torch.ones(3, 7, requires_grad=True)
    assert count_flops(lambda: F.linear(x, weight).sum().backward()) == 3 * (2 * 5 * 7 * 3)


def test_attention_counts_two_products_forward_and_four_backward():
    q, k, v = (torch.randn(2, 3, 11, 8, requires_grad=True) for _ in range(3))
    product = 2 * 2 * 3 * 11 * 11 * 8
    assert count_flops(lambda: F.scaled_dot_product_attention(q, k, v)) == 2 * product
    assert count_flops(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward()) == 6 * product


def test_a_vits_forward_pass_counts_what_its_shapes_say():
    config = vit_config("vit_tiny", depth=2, image_size=56)
    model = VisionTransformer(config).eval()
    with torch.no_grad():
        assert count_flops(lambda: model(torch.zeros(3, 3, 56, 56))) == 3 * vit_flops(config, 56)


def test_the_rate_is_that_of_the_fastest_product(monkeypatch):
    shapes = ((4, 5, 6), (8, 9, 10), (2, 2, 2))
    monkeypatch.setattr(throughput, "SHAPES", {"cpu": shapes})
    ticks = itertools.count()
    for precision in ("fp32", "bf16"):
        rate = matmul_rate(torch.device("cpu"), precision, clock=lambda: float(next(ticks)))
        assert rate == pytest.approx(2 * 8 * 9 * 10)  # every product takes one tick


def test_a_meter_tells_images_a_second_and_the_share_of_what_it_counted(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(throughput, "machine_rate", lambda *_: 1000.0)
    meter = Meter(10, batch_size=8, device=torch.device("cpu"), precision="fp32")
    now[0] = 4.0
    assert meter.look(12) == {"images_per_second": 4.0}  # nothing was counted yet
    assert meter.count(lambda: F.linear(torch.ones(5, 7), torch.ones(3, 7)).shape) == (5, 3)
    now[0] = 6.0
    done = 0.5 * 210  # operations a second
    wanted = {"images_per_second": 4.0, "teraflops": done / 1e12, "matmul_share": done / 1000}
    assert meter.look(13) == pytest.approx(wanted)


@pytest.mark.parametrize("function", [F.silu, F.mish])
def test_a_counted_step_is_bit_for_bit_as_one_that_is_not(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0), requires_grad=True)
    function(x).square().sum().backward()
    assert x.grad is not None
    plain, x.grad = x.grad, None
    assert count_flops(lambda: function(x).square().sum().backward()) == 0
    assert torch.equal(x.grad, plain)
