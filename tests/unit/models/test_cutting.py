import copy

import pytest
import torch
from torch import Tensor, nn

from coverslip.config import ModelConfig
from coverslip.errors import ConfigError
from coverslip.models.classifier import Classifier, build_classifier
from coverslip.models.cutting import cut, cut_before_wide
from coverslip.training.choice import LOWER_HALVES


def made(backbone: str, size: int = 64) -> Classifier:
    config = ModelConfig(backbone=backbone, weights="none")
    classifier = build_classifier(config, channels=3, classes=2, size=(size, size), seed=0)
    return classifier.eval()


def images(size: int = 64) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backbone", ["small_30k", "densenet121", *LOWER_HALVES])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_two_parts_in_turn_are_the_whole(backbone: str, share: float) -> None:
    classifier = made(backbone)
    with torch.no_grad():
        whole = classifier(images())
        parts = cut(classifier, share)
        maps = parts.lower(images())
        torch.testing.assert_close(parts.upper(maps), whole, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(classifier(images()), whole)
    assert maps.shape[1:] == parts.shape
    assert share / 2 <= parts.share <= share


def test_the_parts_share_their_weights_with_the_whole_and_the_lower_ones_do_not_learn() -> None:
    classifier = made("resnet18").train()
    parts = cut(classifier, 0.4)
    own = {id(weight) for weight in classifier.parameters()}
    lower, upper = ({id(weight) for weight in part.parameters()} for part in (parts.lower, parts.upper))
    assert lower | upper == own
    assert not lower & upper
    assert not any(weight.requires_grad for weight in parts.lower.parameters())
    assert all(weight.requires_grad for weight in parts.upper.parameters())
    assert classifier.training
    assert not any(module.training for module in parts.lower.modules())
    before = copy.deepcopy(classifier.state_dict())
    parts.upper.train()(parts.lower(images()).detach()).sum().backward()
    torch.optim.SGD([weight for weight in classifier.parameters() if weight.grad is not None], lr=0.1).step()
    changed = {name for name, tensor in classifier.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "head.weight" in changed
    assert "backbone.network.layer4.0.downsample.0.weight" in changed
    assert not any(name.startswith(("backbone.network.conv1", "backbone.network.bn1", "backbone.network.layer1")) for name in changed)


def test_a_longer_share_freezes_no_less() -> None:
    frozen = [sum(w.numel() for w in cut(made("resnet18"), share).lower.parameters()) for share in (0.1, 0.3, 0.6, 0.9)]
    assert frozen == sorted(set(frozen))


def test_a_network_whose_blocks_do_not_follow_each_other_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"frozen_share = 0\.5: vit_tiny_patch16_224 cannot be cut in two.*frozen_share = 0"):
        cut(made("vit_tiny_patch16_224"), 0.5)


class Twice(nn.Module):
    """A network that goes through one of its layers twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.last(self.again(self.again(self.first(images))).relu())
        return maps.mean(dim=(2, 3))


def test_no_cut_behind_a_layer_that_runs_twice() -> None:
    classifier = made("small_30k", 32)
    classifier.backbone.network = Twice()
    with pytest.raises(ConfigError):
        cut(classifier, 0.99)
    assert cut(classifier, 0.3).name == "first"


def test_wide_layers_are_cut_off_from_the_layers_before_them() -> None:
    classifier = made("vgg11").train()
    parts = cut_before_wide(classifier)
    assert parts is not None
    assert classifier.training
    assert parts.shape == (512, 2, 2)
    assert parts.share < 1
    assert sum(weight.numel() for weight in parts.lower.parameters()) < 10_000_000 < sum(w.numel() for w in parts.upper.parameters())
    classifier.eval()
    with torch.no_grad():
        torch.testing.assert_close(parts.upper.eval()(parts.lower.eval()(images())), classifier(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_large_100", "convnext_atto", "small_30k"])
def test_a_network_without_wide_layers_stays_whole(backbone: str) -> None:
    assert cut_before_wide(made(backbone)) is None
