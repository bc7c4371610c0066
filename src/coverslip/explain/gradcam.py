"""Grad-CAM (Selvaraju et al. 2017) for any backbone: the last map of a network, weighted by what it does to a label's log-odds.

Which map that is, is found by watching one image go through. Of a network that ends in a feature map it is that map; of a transformer that
reads a class token, whose last patches lead nowhere, the last one whose patches reach the answer; of a network that flattens its map, the
map before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from coverslip.explain.log_odds import log_odds
from coverslip.models.classifier import Classifier

Layout = Literal["planes first", "planes last", "tokens"]


class NoMapError(ValueError):
    """A network without a feature map that reaches its answer; only hiding can explain it."""


@dataclass(frozen=True)
class MapForm:
    """How the last map of a network is laid out.

    Attributes:
        layout: (n, planes, h, w), (n, h, w, planes), or (n, tokens, planes).
        shape: without the first axis; None where the network ends in a vector, and any map before it will do.
        prefix: tokens that stand for no patch.
        grid: patches down and across.
        shift: how far below and right of the middle of its cell, in pixels of the input, a value of the map looks. Convolutions of
            odd kernels and stride 2 look above and left of it, more so with each of them.
    """

    layout: Layout
    shape: tuple[int, ...] | None = None
    prefix: int = 0
    grid: tuple[int, int] = (0, 0)
    shift: tuple[float, float] = (0.0, 0.0)

    def fits(self, output: object) -> bool:
        """Whether a module's output may be such a map."""
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return False
        if self.shape is not None:
            return tuple(output.shape[1:]) == self.shape
        return output.ndim == 4 and min(output.shape[2:]) > 1

    def planes(self, values: Tensor) -> Tensor:
        """The map as (planes, h, w); tokens that stand for no patch are left out."""
        first = values[0]
        if self.layout == "planes first":
            return first
        if self.layout == "planes last":
            return first.permute(2, 0, 1)
        return first[self.prefix :].reshape(*self.grid, -1).permute(2, 0, 1)


def map_form(network: nn.Module, image: Tensor) -> MapForm:
    """How the last map of a network is laid out.

    Args:
        network: without its classifier, in evaluation mode.
        image: float32 (1, channels, h, w); only its shape matters.

    Raises:
        NoMapError: its tokens cannot be laid out.
    """
    form = _layout(network, image)
    return replace(form, shift=_shift(network, form, image)) if form.layout == "planes first" else form


@torch.no_grad()
def _layout(network: nn.Module, image: Tensor) -> MapForm:
    last = network.forward_features(image)  # type: ignore[operator]
    if not isinstance(last, Tensor):  # some networks have several ends
        return MapForm("planes first")
    shape = tuple(last.shape[1:])
    if last.ndim == 4:
        return MapForm("planes last" if getattr(network, "output_fmt", "NCHW") == "NHWC" else "planes first", shape)
    if last.ndim == 3:
        prefix = int(getattr(network, "num_prefix_tokens", 0))
        stated = getattr(getattr(network, "patch_embed", None), "grid_size", None)
        return MapForm("tokens", shape, *token_grid(shape[0], prefix, (image.shape[2], image.shape[3]), stated))
    return MapForm("planes first")


def _shift(network: nn.Module, form: MapForm, image: Tensor) -> tuple[float, float]:
    """Where the middle cells of the last map look, by the gradient of their values on noise, less the middles of the cells."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image).requires_grad_()
    with torch.enable_grad(), _watched(network, form) as maps:
        network(noise)
    if not maps:
        return 0.0, 0.0
    planes = form.planes(maps[-1])
    found = []
    for axis in (0, 1):
        cells, pixels = planes.shape[1 + axis], image.shape[2 + axis]
        off = []
        for cell in {(cells - 1) // 2, cells // 2}:
            (slope,) = torch.autograd.grad(planes.select(1 + axis, cell).square().sum(), noise, retain_graph=True)
            energy = slope[0].square().sum(dim=(0, 2 - axis))
            centre = float((energy * (torch.arange(pixels, device=energy.device) + 0.5)).sum() / energy.sum().clamp_min(1e-20))
            off.append(centre - (cell + 0.5) * pixels / cells)
        half = pixels / cells / 2
        middle = float(np.mean(off))
        found.append(float(np.clip(middle, -half, half)) if np.isfinite(middle) else 0.0)
    return found[0], found[1]


def stretch(values: npt.NDArray[np.float32], size: tuple[int, int], shift: tuple[float, float] = (0.0, 0.0)) -> npt.NDArray[np.float32]:
    """A map (rows, columns) at the size of the image that it was made of, by straight lines between the places where its cells look.

    Args:
        values: float32 (rows, columns).
        size: (h, w) of the image, in pixels.
        shift: of these places from the middles of the cells, down and right, in pixels.
    """
    for axis in (0, 1):
        cells = values.shape[axis]
        places = (np.arange(size[axis]) + 0.5 - shift[axis]) * cells / size[axis] - 0.5
        places = places.clip(0, cells - 1)
        below = np.minimum(places.astype(np.int64), max(cells - 2, 0))
        share = (places - below).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        first, second = values.take(below, axis), values.take(np.minimum(below + 1, cells - 1), axis)
        values = first * (1 - share) + second * share
    return values


def token_grid(tokens: int, prefix: int, size: tuple[int, int], stated: tuple[int, int] | None = None) -> tuple[int, tuple[int, int]]:
    """How many tokens stand for no patch, and the patches (down, across) that the others stand for.

    Args:
        tokens: of one image.
        prefix: how many of them the network says stand for no patch.
        size: (height, width) of the image; patches are about square.
        stated: (down, across) as the network says, when it does.

    >>> token_grid(197, 1, (224, 224)), token_grid(35, 0, (40, 56)), token_grid(50, 0, (224, 224))
    ((1, (14, 14)), (0, (5, 7)), (1, (7, 7)))
    """
    if stated is not None and stated[0] * stated[1] == tokens - prefix:
        return prefix, (int(stated[0]), int(stated[1]))
    found = []
    for extra in dict.fromkeys((prefix, 0, 1, 2)):
        patches = tokens - extra
        for down in range(1, isqrt(max(patches, 0)) + 1):
            pairs = ((down, patches // down), (patches // down, down)) if patches % down == 0 else ()
            found += [(abs(np.log(rows / columns * size[1] / size[0])), extra, (rows, columns)) for rows, columns in pairs]
        if found and min(found)[0] < 0.1:
            break
    if not found:
        raise NoMapError(f"{tokens} tokens cannot be laid out as an image")
    _, extra, grid = min(found)
    return extra, grid


def grad_cam(classifier: Classifier, form: MapForm, image: Tensor, columns: Sequence[int], *, several: bool) -> npt.NDArray[np.float32]:
    """Where the image speaks for each label.

    Args:
        classifier: in evaluation mode; its weights may be frozen.
        form: what `map_form` says of its backbone's network.
        image: float32 (1, channels, h, w), normalised.
        columns: which labels.
        several: whether an image may carry several labels.

    Returns:
        float32 (labels, h, w): at the size of the image, 0 where nothing speaks for the label. Units are those of log-odds: before
        what speaks against the label is cut off, the mean over the map is what its planes add to the log-odds, to first order.

    Raises:
        NoMapError: no map of the network reaches its answer.
    """
    with torch.enable_grad(), _watched(classifier.backbone.network, form) as maps:
        odds = log_odds(classifier(image.detach().clone().requires_grad_()), several=several)[0]
    maps = list({id(one): one for one in reversed(maps)}.values())
    if not maps:
        raise NoMapError("the network has no feature map")
    reached = torch.autograd.grad(odds[list(columns)].sum(), maps, retain_graph=True, allow_unused=True)
    chosen = next((one for one, slope in zip(maps, reached, strict=True) if slope is not None and form.planes(slope).any()), None)
    if chosen is None:
        raise NoMapError("no feature map reaches the answer of the network")
    planes = form.planes(chosen.detach())
    found = []
    for column in columns:
        (slope,) = torch.autograd.grad(odds[column], chosen, retain_graph=True)
        weights = form.planes(slope).sum(dim=(1, 2), keepdim=True)
        found.append((weights * planes).sum(dim=0).relu())
    maps_found = torch.stack(found).float().cpu().numpy()
    return np.stack([stretch(one, (image.shape[2], image.shape[3]), form.shift) for one in maps_found])


@contextmanager
def _watched(network: nn.Module, form: MapForm) -> Iterator[list[Tensor]]:
    """The outputs of all modules that may be the map, in the order in which they come."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if form.fits(output) and output.requires_grad:
            seen.append(output)

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
