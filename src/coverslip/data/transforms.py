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


@dataclass(frozen=True)
class Changes:
    """What was drawn for n images: how each of them is changed. None where nothing is; noise itself is drawn where it is added.

    Attributes:
        horizontal, vertical: bool (n, 1, 1, 1), whether it is flipped.
        turns: int64 (n, 1, 1, 1), quarter turns.
        affine: float32 (n, 2, 3), of one resampling: rotation, shift and random resized crop.
        contrast, shift: float32 (n, 1, 1, 1), of brightness.
        noise: float32 (n, 1, 1, 1), its strength as a share of the image's deviation.
    """

    horizontal: Tensor | None = None
    vertical: Tensor | None = None
    turns: Tensor | None = None
    affine: Tensor | None = None
    contrast: Tensor | None = None
    shift: Tensor | None = None
    noise: Tensor | None = None

    def take(self, rows: Tensor) -> Changes:
        """Those of some of the images, int64 (m,)."""
        return Changes(**{name: None if drawn is None else drawn[rows] for name, drawn in vars(self).items()})


def draw_changes(n: int, size: tuple[int, int], config: AugmentConfig, generator: torch.Generator) -> Changes:
    """Draw how each of n images is changed.

    Args:
        n: number of images.
        size: their (height, width), in pixels.
        config: what may be changed, and how far.
        generator: a CPU generator; all randomness comes from it.
    """
    drawn: dict[str, Tensor] = {}
    if config.horizontal_flip:
        drawn["horizontal"] = _coins(n, generator)
    if config.vertical_flip:
        drawn["vertical"] = _coins(n, generator)
    if config.quarter_turns:
        drawn["turns"] = torch.randint(4, (n, 1, 1, 1), generator=generator)
    if config.rotation_degrees or config.random_crop or config.crop_scale < 1:
        drawn["affine"] = _draw_affine(n, size, config, generator)
    if config.brightness:
        drawn["contrast"] = _uniform(n, generator, 1 - config.brightness, 1 + config.brightness)
        drawn["shift"] = _uniform(n, generator, -config.brightness, config.brightness)
    if config.noise:
        drawn["noise"] = _uniform(n, generator, 0.0, config.noise)
    return Changes(**drawn)


def change(batch: Tensor, changes: Changes, generator: torch.Generator) -> Tensor:
    """Change each image of a batch as was drawn for it.

    Args:
        batch: float32 (n, c, h, w), normalised.
        changes: of these n images.
        generator: a CPU generator, of the noise.

    Returns:
        float32 (n, c, h, w); `batch` itself is left as it was.
    """
    device = batch.device
    if changes.horizontal is not None:
        batch = torch.where(changes.horizontal.to(device), batch.flip(-1), batch)
    if changes.vertical is not None:
        batch = torch.where(changes.vertical.to(device), batch.flip(-2), batch)
    if changes.turns is not None:
        batch = _quarter_turns(batch, changes.turns.to(device))
    if changes.affine is not None:
        batch = _resample(batch, changes.affine)
    if changes.contrast is not None and changes.shift is not None:
        batch = _brightness(batch, changes.contrast.to(batch), changes.shift.to(batch))
    if changes.noise is not None:
        strength = changes.noise.to(batch) * batch.std(dim=(1, 2, 3), keepdim=True)
        batch = batch + strength * torch.randn(batch.shape, generator=generator).to(batch)
    return batch


def augment(batch: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Change a batch at random, each image in its own way.

    Args:
        batch: float32 (n, c, h, w), normalised.
        config: what may be changed, and how far.
        generator: a CPU generator; all randomness comes from it.

    Returns:
        float32 (n, c, h, w); `batch` itself is left as it was.
    """
    size = (batch.shape[-2], batch.shape[-1])
    return change(batch, draw_changes(len(batch), size, config, generator), generator)


def draw_mixing(n: int, strength: float, generator: torch.Generator) -> Mixing:
    """Draw how mixup blends n images (Zhang et al. 2018): each with another one, weights from Beta(strength, strength).

    Args:
        n: number of images.
        strength: parameter of the Beta distribution, > 0.
        generator: a CPU generator.
    """
    gamma = torch._standard_gamma(torch.full((n, 2), strength), generator=generator)
    share = (gamma[:, 0] / gamma.sum(dim=1).clamp_min(1e-8)).to(torch.float32)
    return Mixing(torch.maximum(share, 1 - share), torch.randperm(n, generator=generator))


def blend(batch: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """Each image as `share`, float32 (n,), of itself and the rest of another one; all float32 (n, c, h, w)."""
    weight = share.reshape(-1, 1, 1, 1)
    return batch * weight + others * (1 - weight)


def mix(batch: Tensor, strength: float, generator: torch.Generator) -> tuple[Tensor, Mixing]:
    """Mixup: blend each image of a batch, float32 (n, c, h, w), with another one of it, as `draw_mixing` says."""
    drawn = draw_mixing(len(batch), strength, generator)
    mixing = Mixing(drawn.share.to(batch), drawn.partner.to(batch.device))
    return blend(batch, batch[mixing.partner], mixing.share), mixing


def _uniform(n: int, generator: torch.Generator, low: float, high: float) -> Tensor:
    return torch.empty(n, 1, 1, 1).uniform_(low, high, generator=generator)


def _coins(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=generator) < 0.5


def _quarter_turns(batch: Tensor, turns: Tensor) -> Tensor:
    batch = torch.where(turns % 2 == 1, batch.transpose(-1, -2), batch)
    batch = torch.where((turns == 1) | (turns == 2), batch.flip(-1), batch)
    return torch.where((turns == 2) | (turns == 3), batch.flip(-2), batch)


def _draw_affine(n: int, size: tuple[int, int], config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Rotation, shift and random resized crop as one matrix an image."""
    angle = torch.empty(n).uniform_(-1, 1, generator=generator) * math.radians(config.rotation_degrees)
    area = torch.empty(n).uniform_(config.crop_scale, 1, generator=generator)
    stretch = torch.empty(n).uniform_(-1, 1, generator=generator) * (math.log(4 / 3) / 2 if config.crop_scale < 1 else 0.0)
    across = torch.minimum(torch.maximum(area.sqrt() * stretch.exp(), area), torch.ones(n))
    down = area / across
    room_x, room_y = (1 - across) + 2 * config.random_crop, (1 - down) + 2 * config.random_crop
    shift_x = torch.empty(n).uniform_(-1, 1, generator=generator) * room_x
    shift_y = torch.empty(n).uniform_(-1, 1, generator=generator) * room_y
    aspect = size[1] / size[0]
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack(
        [
            torch.stack([across * cosine, -down * sine / aspect, shift_x], dim=1),
            torch.stack([across * sine * aspect, down * cosine, shift_y], dim=1),
        ],
        dim=1,
    )


def _resample(batch: Tensor, matrix: Tensor) -> Tensor:
    """One resampling; what lies outside repeats the border."""
    grid = functional.affine_grid(matrix.to(batch), list(batch.shape), align_corners=False)
    moved = functional.grid_sample(batch, grid, mode="bilinear", padding_mode="border", align_corners=False)
    planes_apart = not batch.is_contiguous(memory_format=torch.channels_last)
    return moved.contiguous(memory_format=torch.contiguous_format if planes_apart else torch.channels_last)


def _brightness(batch: Tensor, contrast: Tensor, shift: Tensor) -> Tensor:
    mean = batch.mean(dim=(1, 2, 3), keepdim=True)
    deviation = batch.std(dim=(1, 2, 3), keepdim=True)
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
