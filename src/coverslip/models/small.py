"""Our own networks: three small residual ones and the trimmed AlexNet for overlap charts.

All have timm's interface: `num_features`, `forward_features` (a map, or a vector where there is no map), and a `forward`
that ends in a vector (n, num_features), so that a head can be attached.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size (divided by `stride`), and its batch norm."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, `relu(x + f(x))`; starts as the identity (He et al. 2016, Goyal et al. 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = convolution(width, width)
        nn.init.zeros_(self.second[1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> (n, width, h, w)."""
        inner = torch.relu(self.first(x))
        return torch.relu(x + self.second(inner))


class SmallNetwork(nn.Module):
    """A narrow residual network with batch norm, for any input of 16x16 pixels or more and any number of channels.

    A stem of stride 2, then three stages that each halve the size and end in residual blocks, then a 1x1 convolution.

    Args:
        channels: planes of the input.
        widths: planes after the stem and after each stage.
        features: planes of the last map, which is 1/16 of the input in height and width.
        depth: residual blocks of each stage.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int, int], features: int, depth: int = 1) -> None:
        super().__init__()
        self.num_features = features
        self.stem = nn.Sequential(*convolution(channels, widths[0], stride=2), nn.ReLU())
        self.stages = nn.Sequential(
            *(
                nn.Sequential(*convolution(inputs, outputs, stride=2), nn.ReLU(), *(ResidualBlock(outputs) for _ in range(depth)))
                for inputs, outputs in pairwise(widths)
            )
        )
        self.last = nn.Sequential(*convolution(widths[-1], features, kernel=1), nn.ReLU())
        start_weights(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, num_features, h / 16, w / 16), rounded up."""
        map_: Tensor = self.last(self.stages(self.stem(x)))
        return map_

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, num_features): the average over the last map."""
        return self.forward_features(x).mean(dim=(2, 3))


class AlexNet(nn.Module):
    """AlexNet (Krizhevsky et al. 2012) in one tower, without response normalisation, for one-channel 224x224 charts.

    Five convolutions (96, 256, 384, 384, 256 planes), three max pools, dense layers of 4096, 4096 and 1000 units with
    ReLU, dropout 0.5 after the first two. With one channel it has 62,355,112 weights; a head for two classes adds 2,002.

    Args:
        channels: planes of the input.
        size: (height, width) of the input, in pixels, from which the first dense layer takes its size; 63 and more.
    """

    def __init__(self, channels: int, size: tuple[int, int] = (224, 224)) -> None:
        super().__init__()
        self.num_features = 1000
        self.features = nn.Sequential(
            *(nn.Conv2d(channels, 96, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        cells = _alexnet_cells(size[0]) * _alexnet_cells(size[1])
        self.dense = nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(256 * cells, 4096), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(4096, self.num_features), nn.ReLU()),
        )
        start_weights(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, 1000)."""
        vector: Tensor = self.dense(self.features(x))
        return vector

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, 1000)."""
        return self.forward_features(x)


def _alexnet_cells(side: int) -> int:
    """Cells along one side of AlexNet's last map: 6 for 224 pixels."""
    side = (side + 4 - 11) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side


def start_weights(network: nn.Module) -> None:
    """Random weights scaled for ReLU (He et al. 2015), from torch's current generator; biases start at zero."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def sized(
    widths: tuple[int, int, int, int], features: int, channels: int, size: tuple[int, int], *, width: int | None = None, depth: int = 1
) -> nn.Module:
    """A small network, all of whose planes are scaled so that the stem has `width` of them."""
    del size  # any size fits: the last map is pooled
    share = 1.0 if width is None else width / widths[0]
    stem, first, second, third, last = (round(share * planes) for planes in (*widths, features))
    return SmallNetwork(channels, (stem, first, second, third), last, depth)
