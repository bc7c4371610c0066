"""A frozen backbone, or its first layers, at work: batches in, features out, by torch or by OpenVINO."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from coverslip.errors import ConfigError, ExportError
from coverslip.models.classifier import Classifier
from coverslip.models.cutting import Cut, cut_before_wide
from coverslip.models.folding import HALF_TOLERANCE, TOLERANCE, fold_batch_norms, kind_of
from coverslip.models.hardware import autocast
from coverslip.models.openvino import EXTRA, compile_module, is_installed
from coverslip.network import Network
from coverslip.runtime import require

Features = npt.NDArray[np.float32]
WORTH_PREPARING = 20_000_000
"""Pixels to look at from which OpenVINO pays: 400 images of 224x224. Preparing it takes 0.6 to 1.5 s of one core, and an image gains 4 ms
of processor time (resnet18, mobilenetv2_035) to 10 ms (mobilenetv2_100) where there is no AMX."""
CHECKED = 4
"""Images of the first batch on which it must give what torch gives."""
_LOG = logging.getLogger("coverslip")


def choose_runtime(wanted: str, device: torch.device, pixels: int) -> str:
    """What computes the features: `torch` or `openvino`. A rule and no race, so that a run can be repeated.

    Args:
        wanted: `torch`, `openvino`, or `auto`: OpenVINO where it is installed, on a CPU, for at least `WORTH_PREPARING` pixels.
        device: on which the network is.
        pixels: images to look at, every view counted, times their height and width.

    Raises:
        ConfigError: openvino for a network on a GPU.
        MissingExtraError: openvino where it is not installed.
    """
    if wanted == "openvino":
        if device.type != "cpu":
            raise ConfigError(
                f'training.runtime = "openvino" computes on the CPU, but the device is {device.type}; say training.device = "cpu"'
            )
        require("openvino", EXTRA)
    if wanted == "auto":
        return "openvino" if device.type == "cpu" and pixels >= WORTH_PREPARING and is_installed() else "torch"
    return wanted


class Extractor:
    """Features of one frozen backbone, or of its first layers.

    OpenVINO is prepared at the first batch and held against torch in float32 on its first images: no feature may differ by more
    than 0.0001 of the largest (0.05 in bfloat16). Where it does, or where the backbone does not convert, torch computes, and
    the log says so.

    Args:
        network: the backbone with its precision; it learns nothing while this object is in use.
        runtime: `torch` or `openvino`; afterwards what is used in truth.
        strict: whether a backbone that OpenVINO cannot run is an error.
        part: what takes the place of the backbone: from images (n, c, height, width) to (n, features).
    """

    def __init__(self, network: Network, runtime: str = "torch", *, strict: bool = False, part: nn.Module | None = None) -> None:
        self.network = network
        self.runtime = runtime
        self.strict = strict
        self._compiled: _Compiled | None = None
        self._part = part
        self._folded: nn.Module | None = None

    @property
    def module(self) -> nn.Module:
        """What computes, as torch knows it."""
        return self._part if self._part is not None else self.network.classifier.backbone

    def __call__(self, batches: Iterable[Tensor]) -> Iterator[Features]:
        """Pooled features, float32 (n, features), of each normalised batch (n, c, height, width).

        Raises:
            ExportError: the backbone cannot run on OpenVINO, which was asked for.
        """
        batches = iter(batches)
        for first in batches:
            if self.runtime == "openvino" and self._compiled is None:
                self._prepare(first)
            every = itertools.chain([first], batches)
            if self._compiled is None:
                yield from self._by_torch(every)
            else:
                yield from map(self._compiled, every)

    @torch.inference_mode()
    def _by_torch(self, batches: Iterable[Tensor]) -> Iterator[Features]:
        if self._part is None:
            yield from self.network.features(batches)
            return
        for batch in batches:
            self._folded = self._folded or fold_batch_norms(self._part, batch[:1], half=self.network.precision == "bf16")
            with autocast(self.network.device, self.network.precision):
                features = self._folded(batch.to(kind_of(self._folded)))
            yield features.float().cpu().numpy()

    def _prepare(self, batch: Tensor) -> None:
        try:
            compiled = _Compiled(self.module.eval(), self._before_wide(), batch[:1], self.network.precision)
            self._check(compiled, batch[:CHECKED])
            self._compiled = compiled
        except ExportError as error:
            if self.strict:
                raise ExportError(f'{error}; say training.runtime = "torch"') from error
            _LOG.warning("features: torch, for %s", error)
            self.runtime = "torch"

    def _before_wide(self) -> Cut | None:
        whole = self.network.classifier
        return cut_before_wide(whole) if self._part is None and isinstance(whole, Classifier) else None

    @torch.inference_mode()
    def _check(self, compiled: _Compiled, images: Tensor) -> None:
        expected, found = self.module(images).numpy(), compiled(images)
        tolerance = HALF_TOLERANCE if self.network.precision == "bf16" else TOLERANCE
        difference, allowed = float(np.abs(found - expected).max()), tolerance * float(np.abs(expected).max())
        if not difference <= allowed:
            raise ExportError(
                f"OpenVINO gives other features than torch: they differ by {difference:.2g}, where at most {allowed:.2g} is allowed"
            )


class _Compiled:
    """A network that OpenVINO computes image by image; wide last layers, which had better see a whole batch, are left to torch.

    Raises:
        ExportError: OpenVINO cannot express or run it.
    """

    def __init__(self, module: nn.Module, halves: Cut | None, image: Tensor, precision: str) -> None:
        self._shape = halves.shape if halves else ()
        self._tail = halves.upper.backbone.eval() if halves else None
        self._compiled = compile_module(nn.Sequential(halves.lower, nn.Flatten()).eval() if halves else module, image, precision)
        if self._tail is not None and precision == "bf16":
            self._tail = copy.deepcopy(self._tail).to(torch.bfloat16)

    @torch.inference_mode()
    def __call__(self, batch: Tensor) -> Features:
        """Features, float32 (n, features), of a normalised batch (n, c, height, width)."""
        found = self._compiled(batch.numpy())[0]
        if self._tail is None:
            return found
        maps = torch.from_numpy(found).unflatten(1, self._shape)
        features: Features = self._tail(maps.to(kind_of(self._tail))).float().numpy()
        return features
