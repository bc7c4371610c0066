import pytest
import torch
from torch import nn

from coverslip.models.heads import build_head


def test_single_is_one_linear_layer() -> None:
    head = build_head("single", 10, 3)
    assert isinstance(head, nn.Linear)
    assert head(torch.zeros(2, 10)).shape == (2, 3)


def test_multi_is_the_stated_stack() -> None:
    layers = list(build_head("multi", 10, 3))
    assert [type(layer).__name__ for layer in layers] == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [512, 256, 3]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.25, 0.5]


@pytest.mark.parametrize("sizes", [[64], [128, 32], []])
def test_given_sizes(sizes: list[int]) -> None:
    layers = list(build_head(sizes, 10, 3))
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [*sizes, 3]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.25] * len(sizes)
