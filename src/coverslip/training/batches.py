"""What a step learns from: images that were read, normalised and augmented, and their targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coverslip.config import AugmentConfig
from coverslip.data.decoding import PixelArray
from coverslip.data.transforms import Mixing, augment, blend, change, draw_changes, draw_mixing, mix
from coverslip.network import Network
from coverslip.runtime import derived_seed
from coverslip.structures import IntArray
from coverslip.training.losses import Loss


@dataclass(frozen=True)
class Batch:
    """What one process learns from in a step.

    Attributes:
        images: float32 (n, c, h, w).
        targets: those of the whole step; of the n images where one process takes it alone.
        mixing: how mixup blended the images of the whole step, if it did.
        own: which of the step's images are these.
    """

    images: Tensor
    targets: Tensor
    mixing: Mixing | None = None
    own: slice = field(default_factory=lambda: slice(None))

    @property
    def shown(self) -> Tensor:
        """The targets of the images, or of those that a blend shows more of."""
        if self.mixing is None:
            return self.targets[self.own]
        first = self.mixing.share >= 0.5
        shown = torch.where(first if self.targets.ndim == 1 else first[:, None], self.targets, self.targets[self.mixing.partner])
        return shown[self.own]

    def loss(self, measure: Loss, logits: Tensor) -> Tensor:
        """The mean loss of the logits, float (n, classes); `measure` gives that of each image."""
        own = measure(logits, self.targets[self.own], self.targets)
        if self.mixing is None:
            return own.mean()
        others, share = self.targets[self.mixing.partner], self.mixing.share[self.own]
        return (share * own + (1 - share) * measure(logits, others[self.own], others)).mean()


@dataclass(frozen=True)
class TimedStep:
    """Seconds that a step took, and how many of them went by before its batch was there."""

    seconds: float
    waiting: float


def make_batch(network: Network, pixels: PixelArray, targets: IntArray, config: AugmentConfig, seed: int) -> Batch:
    """Normalise stored pixels (n, h, w, c) and change them at random, all randomness from the seed.

    Args:
        network: knows the normalisation and the device.
        pixels: what was read for this step.
        targets: int64 (n,) of class indices, or (n, classes) of 0 and 1.
        config: what may be changed, and how far.
        seed: of the changes.
    """
    generator = torch.Generator().manual_seed(seed)
    images = augment(network.batch(pixels), config, generator)
    labels = torch.from_numpy(targets).to(network.device)
    if not config.mixup:
        return Batch(images, labels)
    mixed, mixing = mix(images, config.mixup, generator)
    return Batch(mixed, labels, mixing)


def make_batch_of_maps(read: Callable[[IntArray], Tensor], targets: Tensor, mixup: float, seed: int, own: slice) -> Batch:
    """Some images of a step as maps that were computed before, of which only these (and those that mixup blends in) are read.

    Args:
        read: gives the maps, float32 (m, ...), of some of the step's images, int64 (m,).
        targets: of all n images of the step, int64 (n,) or (n, classes), on the device.
        mixup: strength of the blending; 0 = none.
        seed: of the blending.
        own: the images that are wanted.
    """
    mine = torch.arange(len(targets))[own]
    if not mixup:
        return Batch(read(mine.numpy()), targets, own=own)
    mixing = draw_mixing(len(targets), mixup, torch.Generator().manual_seed(seed))
    return _blended(read(torch.cat([mine, mixing.partner[own]]).numpy()), targets, mixing, own)


def _blended(images: Tensor, targets: Tensor, mixing: Mixing, own: slice) -> Batch:
    """The batch of a step's own images, which come first, and of those that are blended into them."""
    mixing = Mixing(mixing.share.to(images), mixing.partner.to(images.device))
    half = len(images) // 2
    return Batch(blend(images[:half], images[half:], mixing.share[own]), targets, mixing, own)


def make_share(
    network: Network, read: Callable[[IntArray], PixelArray], targets: IntArray, config: AugmentConfig, seed: int, own: slice
) -> Batch:
    """Some images of a step, as `make_batch` makes them of all, of which only these (and those that mixup blends in) are read.

    What is drawn is the same; noise alone, a number a pixel, is drawn by each process for itself.

    Args:
        network: knows the normalisation and the device.
        read: gives stored pixels (m, h, w, c) of some of the step's images, int64 (m,).
        targets: of all n images of the step.
        config: what may be changed, and how far.
        seed: of the changes.
        own: the images that are wanted.
    """
    n, generator = len(targets), torch.Generator().manual_seed(seed)
    changes = draw_changes(n, network.geometry.size, config, generator)
    mixing = draw_mixing(n, config.mixup, generator) if config.mixup else None
    mine = torch.arange(n)[own]
    needed = mine if mixing is None else torch.cat([mine, mixing.partner[own]])
    noise = torch.Generator().manual_seed(derived_seed("noise", seed, own.start))
    images = change(network.batch(read(needed.numpy())), changes.take(needed), noise)
    labels = torch.from_numpy(targets).to(network.device)
    if mixing is None:
        return Batch(images, labels, own=own)
    return _blended(images, labels, mixing, own)
