import numpy as np
import pytest
import torch
from torch import nn

from coverslip.config import ModelConfig
from coverslip.explain.gradcam import MapForm, NoMapError, grad_cam, map_form, stretch, token_grid
from coverslip.explain.log_odds import log_odds
from coverslip.models.backbones import Backbone, BackboneSpec
from coverslip.models.classifier import Classifier, build_classifier

BACKBONES = {
    "small_30k": ("planes first", 48), "alexnet_grey": ("planes first", 80), "resnet10t": ("planes first", 64),
    "mobilenetv3_small_050": ("planes first", 64), "convnext_atto": ("planes first", 64), "vit_tiny_patch16_224": ("tokens", 64),
    "mixer_s32_224": ("tokens", 224), "swin_tiny_patch4_window7_224": ("planes last", 56),
}  # fmt: skip


@pytest.mark.parametrize("name", BACKBONES)
def test_every_kind_of_backbone_has_a_map(name: str) -> None:
    layout, side = BACKBONES[name]
    config = ModelConfig(backbone=name, weights="none")
    classifier = build_classifier(config, channels=2, classes=3, size=(side, side), seed=0).eval().requires_grad_(False)
    image = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(1))
    form = map_form(classifier.backbone.network, torch.zeros_like(image))
    maps = grad_cam(classifier, form, image, [0, 1, 2], several=False)
    assert form.layout == layout
    assert maps.shape == (3, side, side)
    assert maps.min() >= 0
    assert (maps.max(axis=(1, 2)) > 0).any()
    assert not np.array_equal(maps[0], maps[1]) or not np.array_equal(maps[0], maps[2])
    assert not any(module._forward_hooks for module in classifier.modules()), "nothing stays on the network"


def test_of_a_pooled_map_it_is_the_maps_own_part_of_the_log_odds() -> None:
    """Independent formula: class activation maps (Zhou et al. 2016), the head's weights times the last map."""
    classifier = build_classifier(ModelConfig(backbone="small_30k", weights="none"), channels=1, classes=2, size=(64, 64), seed=0).eval()
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    form = map_form(classifier.backbone.network, image)
    with torch.no_grad():
        last = classifier.backbone.network.forward_features(image)[0]  # type: ignore[operator]
        weight = classifier.head.weight[0] - classifier.head.weight[1]  # type: ignore[union-attr,index]
        expected = torch.einsum("k,khw->hw", weight, last).relu().numpy()
    found = grad_cam(classifier, MapForm(form.layout, form.shape), image, [0], several=False)[0]
    np.testing.assert_allclose(found, stretch(expected, (64, 64)), rtol=1e-4, atol=1e-6)


def test_a_network_without_a_map_says_so() -> None:
    class Flat(nn.Module):
        num_features = 4

        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(64, 4)

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.dense(x.flatten(1))
            return found

        forward = forward_features

    spec = BackboneSpec("small_30k", {}, 1, (8, 8), "average", 4, (0.0,), (1.0,))
    classifier = Classifier(Backbone(Flat(), spec), "single", 2).eval()
    image = torch.randn(1, 1, 8, 8)
    with pytest.raises(NoMapError):
        grad_cam(classifier, map_form(classifier.backbone.network, image), image, [0], several=False)


def test_convolutions_of_stride_two_look_above_and_left_of_their_cells() -> None:
    """Kernels of 3 with stride 2 and padding 1 are centred on every second pixel: four of them on every sixteenth, 7.5 off the middle."""

    class Strided(nn.Module):
        num_features = 1

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False) for _ in range(4)))
            for layer in self.layers:
                nn.init.constant_(layer.weight, 1.0)

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layers(x)
            return found

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.forward_features(x).mean(dim=(2, 3))

    form = map_form(Strided().eval(), torch.zeros(1, 1, 160, 160))
    assert form.shift == pytest.approx((-7.5, -7.5), abs=1.0)
    values = np.zeros((10, 10), dtype=np.float32)
    values[4, 6] = 1
    peak = np.unravel_index(stretch(values, (160, 160), (-7.5, -7.5)).argmax(), (160, 160))
    assert peak == (4 * 16, 6 * 16)


@pytest.mark.parametrize(
    ("tokens", "prefix", "size", "stated", "expected"),
    [
        (197, 1, (224, 224), None, (1, (14, 14))),
        (197, 1, (224, 224), (14, 14), (1, (14, 14))),
        (50, 0, (224, 224), None, (1, (7, 7))),
        (36, 0, (64, 144), None, (0, (4, 9))),
        (36, 0, (144, 64), None, (0, (9, 4))),
    ],
)
def test_tokens_are_laid_out_as_the_image_is(
    tokens: int, prefix: int, size: tuple[int, int], stated: tuple[int, int] | None, expected: tuple[int, tuple[int, int]]
) -> None:
    assert token_grid(tokens, prefix, size, stated) == expected


def test_log_odds_are_those_of_the_probabilities() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for several, probabilities in ((False, logits.softmax(1)), (True, logits.sigmoid())):
        torch.testing.assert_close(log_odds(logits, several=several), (probabilities / (1 - probabilities)).log())
