import json

import pytest
import torch
from torch import nn

from coverslip.config import ModelConfig
from coverslip.models.classifier import build_classifier
from coverslip.models.summary import summarise


def classifier(backbone: str, size: tuple[int, int] = (64, 64)) -> nn.Module:
    return build_classifier(ModelConfig(backbone=backbone, weights="none"), channels=1, classes=3, size=size, seed=0)


def test_counts_of_a_network_that_can_be_counted_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
    summary = summarise(model, (8, 8), 2, batch_size=10)
    convolution, linear = 2 * 9 * 4 * 64, 256 * 5
    assert summary.multiply_adds == convolution + linear
    assert summary.weights == (2 * 9 * 4 + 4) + (256 * 5 + 5)
    assert summary.weight_bytes == 4 * summary.weights
    assert summary.activation_bytes == 4 * (2 * 64 + 256)  # the image for the convolution, its output for ReLU and the linear layer
    assert summary.training_bytes == 4 * 4 * summary.weights + 10 * summary.activation_bytes
    assert [layer.multiply_adds for layer in summary.layers] == [convolution, 0, 0, linear]
    assert [layer.output for layer in summary.layers] == [(4, 8, 8), (4, 8, 8), (256,), (5,)]


@pytest.mark.parametrize(
    ("backbone", "multiply_adds"), [("resnet18", 141_625_000), ("small_200k", 11_338_000), ("vit_tiny_patch16_224", None)]
)
def test_rows_add_up_and_fit_on_a_screen(backbone: str, multiply_adds: int | None) -> None:
    summary = summarise(classifier(backbone), (64, 64), 1)
    assert 2 < len(summary.layers) <= 24
    assert sum(layer.weights for layer in summary.layers) == summary.weights
    assert sum(layer.multiply_adds for layer in summary.layers) == summary.multiply_adds
    assert summary.layers[-1].name == "head"
    if multiply_adds:
        assert summary.multiply_adds == pytest.approx(multiply_adds, rel=1e-3)
    assert json.loads(json.dumps(summary.to_json()))["weights"] == summary.weights


def test_attention_is_counted() -> None:
    tokens, width = 1 + 4 * 4, 192
    summary = summarise(classifier("vit_tiny_patch16_224"), (64, 64), 1)
    linear_layers = 12 * tokens * (4 + 8) * width**2
    attention = 12 * 2 * tokens**2 * width
    patches_and_head = 16 * 16 * 16 * width + 3 * width
    assert summary.multiply_adds == linear_layers + attention + patches_and_head


def test_frozen_layers_are_told_and_keep_nothing() -> None:
    model = classifier("small_30k")
    model.backbone.requires_grad_(False)
    summary = summarise(model, (64, 64), 1)
    assert {layer.trainable for layer in summary.layers if layer.name.startswith("backbone")} == {"frozen", ""}
    assert summary.layers[-1].trainable == "trainable"
    assert summary.trainable_weights == summary.layers[-1].weights == 3 * 64 + 3
    assert summary.activation_bytes == 4 * 64
    assert summarise(model, (64, 64), 1, rows=2).layers[0].name == "backbone"


def test_the_model_is_left_as_it_was() -> None:
    model = classifier("small_30k")
    model.head.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    summarise(model, (64, 64), 1)
    assert model.backbone.training
    assert not model.head.training
    assert not any(module._forward_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name])
