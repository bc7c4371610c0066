"""Augmentation: random changes to a batch, drawn anew for each image, for any number of channels.

All draws come from one seeded generator on the CPU, so that a step's augmentation depends on its seed only, not on the
device. Geometry other than flips and quarter turns is one affine resampling, so that pixels are interpolated once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from coverslip.config import AugmentConfig


@dataclass(frozen=True)
class Mixing:
    """How mixup blended a batch: sample i is `share[i]` of itself and the rest of sample `partner[i]`."""

    share: Tensor
    partner: Tensor


def augment(batch: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Change a batch at random, each image in its own way.

    Args:
        batch: float32 (n, c, h, w), normalised.
        config: what may be changed, and how far.
        generator: a CPU generator; all randomness comes from it.

    Returns:
        float32 (n, c, h, w); `batch` itself is left as it was.
    """
    batch = _flip(batch, config, generator)
    if config.quarter_turns:
        batch = _quarter_turns(batch, generator)
    if config.rotation_degrees or config.random_crop or config.crop_scale < 1:
        batch = _affine(batch, config, generator)
    if config.brightness:
        batch = _brightness(batch, config.brightness, generator)
    if config.noise:
        strength = _uniform(len(batch), generator, 0.0, config.noise, batch) * batch.std(dim=(1, 2, 3), keepdim=True)
        batch = batch + strength * torch.randn(batch.shape, generator=generator).to(batch)
    return batch


def mix(batch: Tensor, strength: float, generator: torch.Generator) -> tuple[Tensor, Mixing]:
    """Mixup (Zhang et al. 2018): blend each image with another one of the batch, weights from Beta(strength, strength).

    Args:
        batch: float32 (n, c, h, w).
        strength: parameter of the Beta distribution, > 0.
        generator: a CPU generator.
    """
    gamma = torch._standard_gamma(torch.full((len(batch), 2), strength), generator=generator)
    share = (gamma[:, 0] / gamma.sum(dim=1).clamp_min(1e-8)).to(batch)
    share = torch.maximum(share, 1 - share)
    partner = torch.randperm(len(batch), generator=generator).to(batch.device)
    weight = share.reshape(-1, 1, 1, 1)
    return batch * weight + batch[partner] * (1 - weight), Mixing(share, partner)


def _uniform(n: int, generator: torch.Generator, low: float, high: float, like: Tensor) -> Tensor:
    return torch.empty(n, 1, 1, 1).uniform_(low, high, generator=generator).to(like)


def _coins(n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    return (torch.rand(n, 1, 1, 1, generator=generator) < 0.5).to(like.device)


def _flip(batch: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    if config.horizontal_flip:
        batch = torch.where(_coins(len(batch), generator, batch), batch.flip(-1), batch)
    if config.vertical_flip:
        batch = torch.where(_coins(len(batch), generator, batch), batch.flip(-2), batch)
    return batch


def _quarter_turns(batch: Tensor, generator: torch.Generator) -> Tensor:
    turns = torch.randint(4, (len(batch), 1, 1, 1), generator=generator).to(batch.device)
    batch = torch.where(turns % 2 == 1, batch.transpose(-1, -2), batch)
    batch = torch.where((turns == 1) | (turns == 2), batch.flip(-1), batch)
    return torch.where((turns == 2) | (turns == 3), batch.flip(-2), batch)


def _affine(batch: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Rotation, shift and random resized crop in one resampling; what lies outside repeats the border."""
    n, height, width = len(batch), batch.shape[-2], batch.shape[-1]
    angle = torch.empty(n).uniform_(-1, 1, generator=generator) * math.radians(config.rotation_degrees)
    area = torch.empty(n).uniform_(config.crop_scale, 1, generator=generator)
    stretch = torch.empty(n).uniform_(-1, 1, generator=generator) * (math.log(4 / 3) / 2 if config.crop_scale < 1 else 0.0)
    across = torch.minimum(torch.maximum(area.sqrt() * stretch.exp(), area), torch.ones(n))
    down = area / across
    room_x, room_y = (1 - across) + 2 * config.random_crop, (1 - down) + 2 * config.random_crop
    shift_x = torch.empty(n).uniform_(-1, 1, generator=generator) * room_x
    shift_y = torch.empty(n).uniform_(-1, 1, generator=generator) * room_y
    aspect = width / height
    cosine, sine = angle.cos(), angle.sin()
    matrix = torch.stack(
        [
            torch.stack([across * cosine, -down * sine / aspect, shift_x], dim=1),
            torch.stack([across * sine * aspect, down * cosine, shift_y], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix.to(batch), list(batch.shape), align_corners=False)
    moved = functional.grid_sample(batch, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)


def _brightness(batch: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    n = len(batch)
    mean = batch.mean(dim=(1, 2, 3), keepdim=True)
    deviation = batch.std(dim=(1, 2, 3), keepdim=True)
    contrast = _uniform(n, generator, 1 - strength, 1 + strength, batch)
    shift = _uniform(n, generator, -strength, strength, batch)
    return (batch - mean) * contrast + mean + shift * deviation


def tta_views(views: str, config: AugmentConfig) -> list[tuple[list[int], bool]]:
    """The test-time copies: along which axes of (n, c, h, w) each is flipped, and whether it is transposed afterwards.

    Args:
        views: `none`; `flips` (those that augmentation allows, or the horizontal one); `turns` (flips and quarter turns).
        config: which flips are legitimate for this data.
    """
    if views == "none":
        return [([], False)]
    axes: list[list[int]] = [[]]
    if config.horizontal_flip or not config.vertical_flip or views == "turns":
        axes += [[-1]]
    if config.vertical_flip or views == "turns":
        axes += [[*axis, -2] for axis in axes]
    return [(axis, turned) for turned in ([False, True] if views == "turns" else [False]) for axis in axes]


def tta_copies(batch: Tensor, views: str, config: AugmentConfig) -> list[Tensor]:
    """The copies of a batch, float32 (n, c, h, w), whose scores are averaged; see `tta_views`."""
    flipped = [(batch.flip(axes) if axes else batch, turned) for axes, turned in tta_views(views, config)]
    return [copy.transpose(-1, -2) if turned else copy for copy, turned in flipped]
