from itertools import pairwise

import pytest
import torch

from coverslip.errors import ConfigError
from coverslip.models.networks import check_arguments, count_weights, create_network
from coverslip.models.own import OWN_ARGUMENTS, OWN_NETWORKS, OWN_SIZES, OWN_SMALLEST
from coverslip.models.small import AlexNet, ResidualBlock

SMALL = [name for name in OWN_NETWORKS if name.startswith("small_")]


def test_every_own_network_has_a_size_and_a_smallest_size() -> None:
    assert len(SMALL) == 3
    assert set(OWN_NETWORKS) == set(OWN_SIZES) == set(OWN_SMALLEST) == set(OWN_ARGUMENTS)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("small_30k", 29_824),
        ("small_200k", 189_200),
        ("small_600k", 615_432),
        ("curve_160k", 158_320),
        ("curve_630k", 628_960),
        ("alexnet_grey", 62_355_112),
    ],
)
def test_number_of_weights(name: str, weights: int) -> None:
    with torch.device("meta"):
        assert count_weights(OWN_NETWORKS[name](1, (224, 224))) == weights


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("channels", "size"), [(1, (16, 16)), (3, (33, 70)), (5, (64, 48))])
def test_small_networks_take_any_size_and_any_channels(name: str, channels: int, size: tuple[int, int]) -> None:
    network = OWN_NETWORKS[name](channels, size).eval()
    images = torch.randn(2, channels, *size)
    map_ = network.forward_features(images)
    assert map_.shape == (2, network.num_features, -(-size[0] // 16), -(-size[1] // 16))
    torch.testing.assert_close(network(images), map_.mean(dim=(2, 3)))


def test_a_residual_block_starts_as_the_identity() -> None:
    x = torch.rand(2, 8, 5, 5)
    torch.testing.assert_close(ResidualBlock(8).eval()(x), x)


def test_a_small_network_learns_in_bfloat16_and_channels_last() -> None:
    torch.manual_seed(0)
    network = OWN_NETWORKS["small_30k"](1, (32, 32)).to(memory_format=torch.channels_last)
    head = torch.nn.Linear(network.num_features, 2)
    images, targets = torch.randn(16, 1, 32, 32), torch.arange(16) % 2
    images[targets == 1, :, :, 16] += 5  # a bright line
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], 1e-2)
    for _ in range(15):
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(head(network(images.to(memory_format=torch.channels_last))).float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize("size", [(63, 63), (64, 200), (224, 224), (227, 99)])
def test_alexnet_takes_its_dense_layer_from_the_size(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = AlexNet(1, size)
        assert network(torch.zeros(2, 1, *size)).shape == (2, network.num_features)


def weights_of_a_small_network(widths: list[int], features: int, depth: int) -> int:
    """Counted by hand: convolutions without bias, two numbers a plane of each batch norm."""
    stem = 9 * widths[0] + 2 * widths[0]
    stages = sum(9 * a * b + 2 * b + depth * (2 * 9 * b * b + 4 * b) for a, b in pairwise(widths))
    return stem + stages + widths[-1] * features + 2 * features


@pytest.mark.parametrize(
    ("arguments", "widths", "features", "depth"),
    [
        ({}, [16, 32, 48, 64], 128, 1),
        ({"width": 16, "depth": 1}, [16, 32, 48, 64], 128, 1),
        ({"width": 40}, [40, 80, 120, 160], 320, 1),
        ({"width": 5, "depth": 3}, [5, 10, 15, 20], 40, 3),
        ({"width": 1}, [1, 2, 3, 4], 8, 1),
    ],
)
def test_width_and_depth_of_small_networks(arguments: dict[str, int], widths: list[int], features: int, depth: int) -> None:
    network = create_network("small_200k", channels=1, size=(32, 48), arguments=arguments)
    assert count_weights(network) == weights_of_a_small_network(widths, features, depth)
    assert network.eval()(torch.randn(2, 1, 32, 48)).shape == (2, features)


def test_wrong_arguments_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check_arguments("small_30k", {"widht": 8, "depth": 0, "width": 2.5})
    assert caught.value.problems == [
        "model.arguments.widht = 8: small_30k takes width, depth. Did you mean 'width'?",
        "model.arguments.depth = 0: small_30k takes a whole number from 1 to 16",
        "model.arguments.width = 2.5: small_30k takes a whole number from 1 to 512",
    ]
    check_arguments("resnet18", {"what": "timm knows"})
