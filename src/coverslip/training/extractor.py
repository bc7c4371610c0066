"""A frozen backbone, or its first layers, at work: batches in, features out, by torch or by OpenVINO."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

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
ALIKE = 0.05
"""Largest change by bfloat16, root mean square, as a share of what tells the images apart: beyond it, float32 computes."""
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


class Arithmetic(NamedTuple):
    """What computed features.

    Attributes:
        runtime: `torch` or `openvino`.
        precision: `32` or `bf16`.
    """

    runtime: str
    precision: str


class Extractor:
    """Features of one frozen backbone, or of its first layers.

    A few images choose the arithmetic, at the first batch. bfloat16, where the network has it, must leave alone what tells them apart:
    it moves the features of a pretrained mobilenet by a fifth of that, of an untrained vgg16 by a hundredth; else float32 computes, in
    which a model is used. OpenVINO must give what torch gives: no feature may differ by more than 0.0001 of the largest (0.05 in
    bfloat16). Where it does, or where the backbone does not convert, torch computes, and the log says so.

    Args:
        network: the backbone with its precision; it learns nothing while this object is in use.
        images: a few normalised ones (n, c, height, width) of those that will come, always the same: a run has to give its numbers again.
        runtime: `torch` or `openvino`; afterwards what is used in truth.
        strict: whether a backbone that OpenVINO cannot run is an error.
        part: what takes the place of the backbone: from images (n, c, height, width) to (n, features).
    """

    def __init__(
        self, network: Network, images: Tensor, runtime: str = "torch", *, strict: bool = False, part: nn.Module | None = None
    ) -> None:
        self.network = network
        self.images = images
        self.runtime = runtime
        self.strict = strict
        self.precision = network.precision
        self._part = part
        self._compute: Callable[[Tensor], Features] | None = None

    @property
    def module(self) -> nn.Module:
        """What computes, as torch knows it."""
        return self._part if self._part is not None else self.network.classifier.backbone

    @property
    def arithmetic(self) -> Arithmetic:
        """What computes: what was asked for before the first batch, what is used in truth after it."""
        return Arithmetic(self.runtime, self.precision)

    def __call__(self, batches: Iterable[Tensor]) -> Iterator[Features]:
        """Pooled features, float32 (n, features), of each normalised batch (n, c, height, width).

        Raises:
            ExportError: the backbone cannot run on OpenVINO, which was asked for.
        """
        for batch in batches:
            self._compute = self._compute or self._choose()
            yield self._compute(batch)

    @torch.inference_mode()
    def _choose(self) -> Callable[[Tensor], Features]:
        with autocast(self.network.device, "32"):
            expected = self.module.eval()(self.images)
        if self.precision == "bf16" and not self._alike(expected):
            self.precision = "32"
        if self.runtime == "openvino":
            try:
                compiled = _Compiled(self.module, self._before_wide(), self.images[:1], self.precision)
                self._check(compiled, expected.numpy())
            except ExportError as error:
                if self.strict:
                    raise ExportError(f'{error}; say training.runtime = "torch"') from error
                _LOG.warning("features: torch, for %s", error)
                self.runtime = "torch"
            else:
                return compiled
        folded = fold_batch_norms(self.module, self.images[:1], half=self.precision == "bf16")
        return lambda batch: self._by_torch(folded, batch)

    def _alike(self, expected: Tensor) -> bool:
        """Whether bfloat16 leaves alone what tells the images apart."""
        with autocast(self.network.device, "bf16"):
            changed = self.module(self.images).float() - expected
        apart = expected - expected.mean(dim=0)
        return bool(changed.norm() <= ALIKE * apart.norm())

    @torch.inference_mode()
    def _by_torch(self, folded: nn.Module, batch: Tensor) -> Features:
        with autocast(self.network.device, self.precision):
            features: Features = folded(batch.to(kind_of(folded))).float().cpu().numpy()
        return features

    def _before_wide(self) -> Cut | None:
        whole = self.network.classifier
        return cut_before_wide(whole) if self._part is None and isinstance(whole, Classifier) else None

    def _check(self, compiled: _Compiled, expected: Features) -> None:
        found, tolerance = compiled(self.images), HALF_TOLERANCE if self.precision == "bf16" else TOLERANCE
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
        maps = torch.from_numpy(found).reshape(len(found), *self._shape)
        features: Features = self._tail(maps.to(kind_of(self._tail))).float().numpy()
        return features
