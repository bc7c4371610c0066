"""Every backbone keeps the same promises, whatever its family."""

import pytest
import torch

from coverslip.config import ModelConfig
from coverslip.models.backbones import Backbone, build_backbone

LIGHT = ("small_30k", "small_200k", "small_600k", "resnet18", "mobilenetv3_large_100", "mobilenetv2_035", "mobilenetv2_100", "densenet121")
TRANSFORMERS = ("vit_small_patch16_224", "vit_tiny_patch16_224")
HEAVY = ("resnet50", "vgg16", "inception_resnet_v2", "convnext_tiny", "alexnet_grey", *TRANSFORMERS)
SIZES = {"inception_resnet_v2": (96, 112), "alexnet_grey": (224, 224)}


def build(architecture: str, channels: int, pooling: str = "average") -> Backbone:
    config = ModelConfig.model_validate({"backbone": architecture, "weights": "none", "pooling": pooling})
    return build_backbone(config, channels, SIZES.get(architecture, (64, 80)))


class TestBackbone:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("architecture", LIGHT + HEAVY)
    def test_one_vector_an_image_for_any_channels(self, architecture: str, channels: int) -> None:
        with torch.device("meta"):
            backbone = build(architecture, channels)
            vectors = backbone(torch.zeros(2, channels, *backbone.input_size))
        assert vectors.shape == (2, backbone.features)
        assert len(backbone.mean) == len(backbone.std) == channels
        assert backbone.training

    @pytest.mark.parametrize("architecture", LIGHT + HEAVY)
    def test_poolings(self, architecture: str) -> None:
        with torch.device("meta"):
            highest, both = build(architecture, 1, "max"), build(architecture, 1, "both")
            images = torch.zeros(2, 1, *highest.input_size)
            assert highest(images).shape == (2, highest.features)
            assert both(images).shape == (2, both.features)
        assert both.features == highest.features * (1 if architecture == "alexnet_grey" else 2)

    @pytest.mark.parametrize("architecture", LIGHT)
    def test_evaluation_is_deterministic_and_images_do_not_mix(self, architecture: str) -> None:
        backbone = build(architecture, 1).eval()
        images = torch.randn(3, 1, 64, 80)
        with torch.no_grad():
            together, again = backbone(images), backbone(images)
            alone = backbone(images[1:2])
        assert torch.equal(together, again)
        torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-5)
        assert together.dtype == torch.float32
        assert torch.isfinite(together).all()
        assert together.std() > 0
