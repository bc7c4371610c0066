"""Batch norms folded into the convolutions before them: the same function in fewer passes over memory."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from coverslip.models.hardware import choose_memory_format

TOLERANCE = 1e-4
"""Largest difference between a network and its folded copy, as a share of its largest output."""
HALF_TOLERANCE = 0.05
"""The same for a copy in bfloat16, which has three significant digits."""


@torch.inference_mode()
def fold_batch_norms(module: nn.Module, image: Tensor, *, half: bool = False) -> nn.Module:
    """A copy for scoring, in evaluation mode, in which convolutions do the work of the batch norms behind them.

    Pairs are found by watching one image go through. The copy is proven on random images: where it does not agree with the
    original, or nothing could be folded, the original comes back, in evaluation mode.

    Args:
        module: a network; left as it was but for its mode.
        image: float32 (1, channels, height, width) on the network's device; only its shape matters.
        half: whether the copy holds bfloat16 weights and takes bfloat16 images: autocast would cast both anew for each batch.
    """
    module.eval()
    folded = copy.deepcopy(module)
    names = {one: name for name, one in folded.named_modules()}
    pairs = _pairs(folded, image)
    for convolution, norm in pairs:
        folded.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        after = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]  # timm's batch norms bring an activation
        folded.set_submodule(names[norm], nn.Sequential(*(one for one in after if not isinstance(one, nn.Identity))))
    folded = folded.to(memory_format=choose_memory_format(folded, image.device))
    if not pairs or not _agree(module, folded, image, TOLERANCE):
        folded = module
    if not half:
        return folded
    halved = copy.deepcopy(folded).to(dtype=torch.bfloat16)
    return halved if _agree(folded, halved, image, HALF_TOLERANCE) else folded


def _pairs(module: nn.Module, image: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output goes into a batch norm, where both run once an image."""
    made_by: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    runs: Counter[nn.Module] = Counter()
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_convolution(layer: nn.Conv2d, inputs: Any, output: Tensor) -> None:
        runs[layer] += 1
        made_by[id(output)] = (layer, output)  # holding the tensor keeps its id from being given away again

    def before_norm(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        runs[layer] += 1
        if id(inputs[0]) in made_by and layer.track_running_stats:
            found.append((made_by[id(inputs[0])][0], layer))

    hooks = [one.register_forward_hook(after_convolution) for one in module.modules() if isinstance(one, nn.Conv2d)]
    hooks += [one.register_forward_pre_hook(before_norm) for one in module.modules() if isinstance(one, nn.BatchNorm2d)]
    try:
        module(image)
    finally:
        for hook in hooks:
            hook.remove()
    return [(convolution, norm) for convolution, norm in found if runs[convolution] == runs[norm] == 1]


def _agree(module: nn.Module, other: nn.Module, image: Tensor, tolerance: float) -> bool:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, *image.shape[1:]), generator=generator).to(image)
    expected, found = module(images), other(images.to(kind_of(other))).float()
    return bool((expected - found).abs().max() <= tolerance * expected.abs().max())


def kind_of(module: nn.Module) -> torch.dtype:
    """The dtype of a network's weights, in which it takes its images; float32 where it has none."""
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)
