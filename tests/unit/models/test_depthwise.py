from typing import Any

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from coverslip.models.depthwise import StridedDepthwise, StridedDepthwiseSame, speed_up_strided_depthwise
from coverslip.models.networks import create_network

KINDS: list[tuple[type[nn.Conv2d], dict[str, Any]]] = [
    (nn.Conv2d, {"padding": 1}), (nn.Conv2d, {"padding": 2, "bias": True}), (nn.Conv2d, {"padding": 0, "stride": 3}),
    (Conv2dSame, {}), (Conv2dSame, {"bias": True}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings"), KINDS)
@pytest.mark.parametrize("size", [(16, 24), (17, 23), (9, 9)])
def test_function_and_gradients_are_those_of_the_plain_layer(
    kind: type[nn.Conv2d], settings: dict[str, Any], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    plain = kind(8, 8, 3, groups=8, **{"stride": 2, "bias": False, **settings})
    faster = kind(8, 8, 3, groups=8, **{"stride": 2, "bias": False, **settings})
    faster.load_state_dict(plain.state_dict())
    speed_up_strided_depthwise(faster)
    assert type(faster) in (StridedDepthwise, StridedDepthwiseSame)
    images = torch.randn(4, 8, *size).bfloat16().float()
    grads = []
    for layer in (plain, faster):
        seen = images.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=layer is faster):
            made = layer(seen)
        made.float().square().mean().backward()
        grads.append([made.float(), seen.grad, *(parameter.grad for parameter in layer.parameters())])
    for expected, found in zip(*grads, strict=True):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 0.02 * expected.abs().max()  # bfloat16 holds 8 bits


def test_only_depthwise_layers_with_a_stride_change_and_weights_stay() -> None:
    network = create_network("mobilenetv2_035", channels=1, size=(32, 32), arguments={"pad_type": "same"})
    kinds = [type(layer) for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.stride[0] > 1]
    assert kinds.count(StridedDepthwiseSame) == 4
    assert not any(isinstance(layer, StridedDepthwiseSame) for layer in network.modules() if getattr(layer, "stride", None) == (1, 1))
    plain = nn.Conv2d(8, 8, 3, stride=2)
    speed_up_strided_depthwise(plain)
    assert type(plain) is nn.Conv2d


def test_without_reduced_precision_the_result_is_bit_for_bit_that_of_the_plain_layer() -> None:
    torch.manual_seed(0)
    layer = Conv2dSame(8, 8, 3, stride=2, groups=8)
    images = torch.randn(2, 8, 9, 11)
    expected = layer(images)
    speed_up_strided_depthwise(layer)
    assert torch.equal(layer(images), expected)
