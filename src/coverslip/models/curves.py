"""Networks for charts of a line: they read what the line does in each column, and then look along the columns.

A chart is a drawing of a function. What a column of its pixels tells is where the line begins and ends in it, where its middle is, and how
much of it there is; the rest of the column is background, on which a network of squares spends nearly all of its time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from coverslip.models.small import start_weights

SIGNALS = 5
"""Numbers of each column and channel."""
READING = 1
"""Another number where another thing is read."""
COLUMNS = 375
"""Columns that are read, about: of a wider image, neighbours are read as one."""
FAINT, CLEAR = 0.1, 0.35
"""Ink below which there is none, and from which there is some for sure, as shares of the strongest in the image."""
HEIGHTS = (0.0, 1.0, 1.0, 1.0, 0.0)
"""Which of the numbers are heights."""
WIDER, MOVED, HIGHER = 0.15, 0.05, 0.1
"""How far a profile is changed in training, at most: its width, its place (of half the width), and its heights."""
DROPPED = 0.3
"""Share of the planes of the last map that are left out in training."""
AMOUNT, MOST = 10.0, 3.0
"""What brings the share of a column that is ink to the range of the other numbers; and the most that counts."""


class LineProfile(nn.Module):
    """What a line does in each column of an image, whether it is dark on a bright ground or the other way round. Learns nothing.

    Args:
        together: neighbouring columns that are read as one.
    """

    def __init__(self, together: int = 1) -> None:
        super().__init__()
        self.together = together

    def extra_repr(self) -> str:
        """What is read: it is a part of the key of what is kept of it."""
        return f"reading={READING}, together={self.together}"

    def forward(self, images: Tensor) -> Tensor:
        """Read images, most pixels of which are background.

        Args:
            images: float (n, c, h, w), w at least `together`.

        Returns:
            float32 (n, 5 c, 1, w / together): how clearly there is ink, the heights of its highest and its lowest place and of its
            middle, and its amount; heights in [0, 1], 0 where there is no ink.
        """
        recorded = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
        if recorded or images.device.type != "cpu":
            return self._read(images)
        return torch.cat([self._read(image[None]) for image in images])  # what is computed of one image stays in the cache of a core

    def _read(self, images: Tensor) -> Tensor:
        images = images.float()
        ink = (images - images.mean(dim=(2, 3), keepdim=True)).abs()
        strongest = ink.amax(dim=(2, 3), keepdim=True).clamp_min(1e-6)
        ink = (ink / (strongest * (1 - FAINT)) - FAINT / (1 - FAINT)).clamp_min(0)
        rows = images.shape[2]
        height = 1 - (torch.arange(rows, device=images.device, dtype=torch.float32)[:, None] + 0.5) / rows
        there = (ink / CLEAR).clamp_max(1)
        inked, top, depth = (
            self._joined(one.amax(dim=2, keepdim=True), functional.max_pool2d) for one in (there, there * height, there * (1 - height))
        )
        moment, amount = (self._joined(one.mean(dim=2, keepdim=True), functional.avg_pool2d) for one in (ink * height, ink))
        middle = moment / amount.clamp_min(1e-6)
        return torch.cat([inked, top, inked - depth, middle, (amount * AMOUNT).clamp_max(MOST)], dim=1)

    def _joined(self, signal: Tensor, pool: Callable[[Tensor, tuple[int, int]], Tensor]) -> Tensor:
        return pool(signal, (1, self.together)) if self.together > 1 else signal


def stretched(profile: Tensor) -> Tensor:
    """Each profile (n, s, 1, w) a little wider or narrower, moved, and higher or lower, as drawn from torch's current generator.

    As an augmentation of the image would do, but without blurring the line, from which top and bottom are read.
    """
    n, _, _, width = profile.shape
    drawn = torch.rand(3, n, 1, device=profile.device) * 2 - 1
    across = torch.linspace(-1, 1, width, device=profile.device) * (1 + WIDER * drawn[0]) + MOVED * drawn[1]
    grid = torch.stack([across, torch.zeros_like(across)], dim=2)[:, None]
    moved = functional.grid_sample(profile, grid, padding_mode="zeros", align_corners=True)
    heights = profile.new_tensor(HEIGHTS).repeat_interleave(profile.shape[1] // SIGNALS)[None, :, None, None]
    return moved * (1 + heights * (HIGHER * drawn[2])[..., None, None])


class CurveBlock(nn.Module):
    """Two convolutions along the columns and a shortcut, `relu(shortcut(x) + f(x))` (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _along(inputs, outputs, 5, stride)
        self.second = _along(outputs, outputs, 5)
        self.shortcut = nn.Identity() if inputs == outputs else _along(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, 1, w) -> (n, outputs, 1, w / stride)."""
        return torch.relu(self.shortcut(x) + self.second(torch.relu(self.first(x))))


class CurveNetwork(nn.Module):
    """A residual network along the columns of a chart, for images of any height and any number of channels.

    Args:
        channels: planes of the input.
        width: planes after the stem; twice and four times as many further on.
        depth: blocks that follow the first of each of the three stages.
        together: neighbouring columns that are read as one.
    """

    def __init__(self, channels: int, width: int, depth: int = 1, together: int = 1) -> None:
        super().__init__()
        self.num_features = 4 * width
        self.profile = LineProfile(together)
        self.stem = nn.Sequential(*_along(SIGNALS * channels, width, 9, 2), nn.ReLU(), CurveBlock(width, width))
        self.stages = nn.Sequential(
            *(
                nn.Sequential(CurveBlock(inputs, outputs, 2), *(CurveBlock(outputs, outputs) for _ in range(depth)))
                for inputs, outputs in ((width, 2 * width), (2 * width, 4 * width))
            ),
            nn.Sequential(_along(4 * width, 4 * width, 5, 2), nn.ReLU(), *(CurveBlock(4 * width, 4 * width) for _ in range(depth))),
        )
        self.dropout = nn.Dropout2d(DROPPED)
        start_weights(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, num_features, 1, w / (16 together)), rounded up."""
        profile = self.profile(x)
        map_: Tensor = self.dropout(self.stages(self.stem(stretched(profile) if self.training else profile)))
        return map_

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, num_features): the average over the last map."""
        return self.forward_features(x).mean(dim=(2, 3))


def curve_network(planes: int, channels: int, size: tuple[int, int], *, width: int | None = None, depth: int = 1) -> nn.Module:
    """A network of curves for images of a size (height, width), with `width` planes after the stem, or `planes` where that is not given."""
    return CurveNetwork(channels, width or planes, depth, together=max(1, round(size[1] / COLUMNS)))


def _along(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution along the columns, and its batch norm."""
    layer = nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), padding=(0, kernel // 2), bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))
