from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coverslip.models.folding import fold_batch_norms
from coverslip.models.networks import create_network


def with_statistics(module: nn.Module, channels: int = 3, side: int = 64) -> nn.Module:
    """Batch norms that shift and scale, as after learning."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    module.train()
    with torch.no_grad():
        for _ in range(2):
            module(torch.randn(8, channels, side, side))
    return module.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_035", "mobilenetv3_large_100", "densenet121", "small_600k"])
def test_a_folded_network_gives_the_same_vectors(name: str) -> None:
    network = with_statistics(create_network(name, channels=3, size=(64, 64), arguments={}))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    folded = fold_batch_norms(network, torch.zeros(1, 3, 64, 64))
    images = torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-3, atol=1e-4)
    assert norms(folded) < norms(network)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_035", "densenet121", "vgg11", "convnext_atto", "vit_tiny_patch16_224"])
def test_a_copy_in_half_precision_gives_what_autocast_gives(name: str) -> None:
    network = with_statistics(create_network(name, channels=3, size=(64, 64), arguments={}))
    halved = fold_batch_norms(network, torch.zeros(1, 3, 64, 64), half=True)
    images = torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        exact, found = network(images), halved(images.bfloat16()).float()
        with torch.autocast("cpu", torch.bfloat16):
            usual = network(images).float()
    assert {tensor.dtype for tensor in halved.parameters()} == {torch.bfloat16}
    scale = exact.abs().max()
    assert (found - exact).abs().max() <= 0.03 * scale
    assert (found - exact).abs().mean() <= 1.5 * (usual - exact).abs().mean()


class Sharp(nn.Module):
    """A small difference of large numbers: too much for bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Any:
        made = self.norm(self.convolution(images))
        return ((made + 1000) - 1000).mean(dim=(2, 3))


def test_half_precision_is_not_taken_where_it_changes_the_answers() -> None:
    network = with_statistics(Sharp(), side=16)
    folded = fold_batch_norms(network, torch.zeros(1, 3, 16, 16), half=True)
    assert norms(folded) == 0
    assert {tensor.dtype for tensor in folded.parameters()} == {torch.float32}


def test_a_network_without_batch_norms_comes_back_itself() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    assert fold_batch_norms(network, torch.zeros(1, 1, 8, 8)) is network


class Shared(nn.Module):
    """One convolution, used twice, before a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Any:
        return self.norm(self.convolution(self.convolution(images))).mean(dim=(2, 3))


class Branching(Shared):
    """The output of the convolution also goes around the norm: folding would change the function."""

    def forward(self, images: Tensor) -> Any:
        made = self.convolution(images)
        return (self.norm(made) + made).mean(dim=(2, 3))


@pytest.mark.parametrize("kind", [Shared, Branching])
def test_what_cannot_be_folded_is_left_alone(kind: type[nn.Module]) -> None:
    network = with_statistics(kind())
    assert fold_batch_norms(network, torch.zeros(1, 3, 16, 16)) is network
    assert norms(network) == 1
