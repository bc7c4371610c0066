"""Explanation by hiding: what the log-odds of a label lose when a part of the image, or a channel, is taken away.

Occlusion (Zeiler & Fergus 2014) asks the model itself and not its gradients, and so checks Grad-CAM. What is hidden takes the median of its
channel in this image: the background of most scientific images, dark or bright.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coverslip.structures import BoolArray, FloatArray

WINDOWS = 8
"""Windows along each side of an image."""
SHARE = 0.1
"""Share of the image that is hidden to see whether the highlighted region matters."""
TIMES = 16
"""Places at which as much is hidden at random."""
EXACT_CHANNELS = 5
"""Most channels whose parts in a decision are computed exactly, from all 2^channels ways to hide some."""
ORDERS = 32
"""Orders in which more channels than that are hidden, drawn at random."""

Map = npt.NDArray[np.float32]
Scores = Callable[[Tensor], FloatArray]
"""From a normalised batch (n, c, h, w) to one number a label, float64 (n, labels)."""


@dataclass(frozen=True)
class Hiding:
    """What hiding the highlighted region does to the score of a label.

    Attributes:
        share: of the image that was hidden, in (0, 1).
        score: probability of the label before, in [0, 1].
        hidden: with the highlighted region hidden.
        elsewhere: mean with the same shape hidden at random places.
        lower_than: share of these random places whose score stayed above `hidden`: 1 says that the region matters more than all.
    """

    share: float
    score: float
    hidden: float
    elsewhere: float
    lower_than: float


def background_of(image: Tensor) -> Tensor:
    """What a hidden pixel becomes: the median of each channel, (1, c, 1, 1), of float32 (1, c, h, w)."""
    return image.flatten(2).median(dim=2).values[..., None, None]


def occlusion(score: Scores, image: Tensor, windows: int = WINDOWS, channel: int | None = None) -> Map:
    """What each label loses when a window around a place is hidden.

    Windows overlap by half and have soft edges; the map between their centres is interpolated.

    Args:
        score: log-odds of the labels.
        image: float32 (1, c, h, w), normalised.
        windows: along each side, 2 or more.
        channel: hide in this one only; in all when None.

    Returns:
        float32 (labels, h, w), in log-odds: positive where the image speaks for the label, negative where it speaks against it.
    """
    height, width = image.shape[2:]
    down, across = _tents(height, windows).to(image), _tents(width, windows).to(image)
    fill = background_of(image)
    kept = torch.ones(1, image.shape[1], 1, 1, device=image.device)
    if channel is not None:
        kept = torch.zeros_like(kept)
        kept[:, channel] = 1
    plain = score(image)
    lost = []
    for row in range(windows):
        veils = ((2 * down[row]).clamp_max(1)[:, None] * (2 * across).clamp_max(1)[:, None, :])[:, None] * kept
        lost.append(plain - score(image + (fill - image) * veils))
    drops = np.stack(lost)  # (windows down, windows across, labels)
    vertical, horizontal = down.cpu().numpy(), across.cpu().numpy()
    found: Map = np.einsum("rcl,rh,cw->lhw", drops, vertical, horizontal).astype(np.float32)
    return found


def _tents(side: int, windows: int) -> Tensor:
    """(windows, side): how much each window covers of each place, 1 at its centre, 0 from the centres of its neighbours on.

    The first and the last reach the edge.
    """
    centres = (torch.arange(windows) + 0.5) * side / windows
    places = (torch.arange(side) + 0.5).clamp(centres[0], centres[-1])
    return (1 - (places - centres[:, None]).abs() * windows / side).clamp_min(0)


def highlighted(values: Map, share: float = SHARE) -> BoolArray:
    """The highest values of a map, (h, w): a share of it, or fewer where fewer are above 0."""
    most = max(1, round(share * values.size))
    bound = np.partition(values, values.size - most, axis=None)[values.size - most]
    chosen = np.asarray((values >= bound) & (values > 0))
    if chosen.sum() > most:  # ties: take them in turn, so that no more is hidden than stated
        order = np.argsort(-values, axis=None, kind="stable")[:most]
        chosen = np.zeros(values.size, dtype=np.bool_)
        chosen[order] = True
        chosen = chosen.reshape(values.shape) & (values > 0)
    return chosen


def hide_region(probability: Callable[[Tensor], FloatArray], image: Tensor, region: BoolArray, seed: int, times: int = TIMES) -> Hiding:
    """Hide a region, and the same shape elsewhere.

    Args:
        probability: of the label, float64 (n,), of a batch.
        image: float32 (1, c, h, w), normalised.
        region: bool (h, w); some of it is True.
        seed: of the random places.
        times: how many of them.
    """
    generator = np.random.default_rng(seed)
    shifts = [(0, 0), *((int(generator.integers(region.shape[0])), int(generator.integers(region.shape[1]))) for _ in range(times))]
    veils = torch.from_numpy(np.stack([np.roll(region, shift, axis=(0, 1)) for shift in shifts]))[:, None].to(image.device)
    found = np.concatenate([probability(image), probability(torch.where(veils, background_of(image), image))])
    score, hidden, elsewhere = float(found[0]), float(found[1]), found[2:]
    return Hiding(float(region.mean()), score, hidden, float(elsewhere.mean()), float((elsewhere > hidden).mean()))


def channel_parts(score: Scores, image: Tensor, seed: int = 0) -> FloatArray:
    """What each channel adds to the log-odds of each label: Shapley values over channels that are shown or hidden (Shapley 1953).

    They sum to the log-odds of the image less those of the image with all channels hidden. Up to five channels they are exact; of
    more they are the mean over random orders.

    Args:
        score: log-odds of the labels.
        image: float32 (1, c, h, w), normalised.
        seed: of the orders.

    Returns:
        float64 (labels, c).
    """
    channels = image.shape[1]
    orders: Sequence[tuple[int, ...]]
    if channels <= EXACT_CHANNELS:
        orders = list(permutations(range(channels)))
        assert len(orders) == factorial(channels)
    else:
        generator = np.random.default_rng(seed)
        orders = [tuple(generator.permutation(channels).tolist()) for _ in range(ORDERS)]
    wanted = sorted({frozenset(order[:shown]) for order in orders for shown in range(channels + 1)}, key=sorted)
    shown = torch.tensor([[channel in subset for channel in range(channels)] for subset in wanted], device=image.device)
    fill = background_of(image)
    parts = [score(torch.where(shown[start : start + 32, :, None, None], image, fill)) for start in range(0, len(shown), 32)]
    value = dict(zip(wanted, np.concatenate(parts), strict=True))
    total = np.zeros((value[frozenset()].shape[0], channels))
    for order in orders:
        for place, channel in enumerate(order):
            total[:, channel] += value[frozenset(order[: place + 1])] - value[frozenset(order[:place])]
    return total / len(orders)
