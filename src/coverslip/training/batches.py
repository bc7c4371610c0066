"""What a step learns from: images that were read, normalised and augmented, and their targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from coverslip.config import AugmentConfig
from coverslip.data.decoding import PixelArray
from coverslip.data.transforms import Mixing, augment, mix
from coverslip.network import Network
from coverslip.structures import IntArray


@dataclass(frozen=True)
class Batch:
    """Images float32 (n, c, h, w) with their targets, and how mixup blended the images, if it did."""

    images: Tensor
    targets: Tensor
    mixing: Mixing | None = None

    @property
    def shown(self) -> Tensor:
        """The targets of the images, or of those that a blend shows more of."""
        if self.mixing is None:
            return self.targets
        own = self.mixing.share >= 0.5
        return torch.where(own if self.targets.ndim == 1 else own[:, None], self.targets, self.targets[self.mixing.partner])

    def loss(self, measure: Callable[[Tensor, Tensor], Tensor], logits: Tensor) -> Tensor:
        """The mean loss of the logits, float (n, classes); `measure` gives that of each image."""
        own = measure(logits, self.targets)
        if self.mixing is None:
            return own.mean()
        other = measure(logits, self.targets[self.mixing.partner])
        return (self.mixing.share * own + (1 - self.mixing.share) * other).mean()


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
