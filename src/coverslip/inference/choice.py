"""Which engine computes the scores: the one that is asked for, or the fastest of those that are there.

`auto`, in this order:

1. what was measured before for this model on this machine with these versions, which the cache keeps;
2. for fewer than `WORTH_PREPARING` images: torch in float32, for preparing the others takes longer than they save;
3. else the graph is written, each engine that is installed scores images like those of the sample, and the fastest is kept.

On a GPU torch alone is compared, in float32 and in bfloat16. An engine is only taken when it gives what torch gives in float32.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from coverslip.bundle import Bundle, read_description, sample_pixels
from coverslip.config import CacheConfig
from coverslip.data.cache import cached, entry_of
from coverslip.data.decoding import PixelArray
from coverslip.errors import ConfigError, ExportError, ResourceError
from coverslip.evaluation.metrics import SMALLEST
from coverslip.graphs import stored_graph
from coverslip.inference.onnx_runtime import OnnxRuntime
from coverslip.inference.openvino_runtime import OpenVinoRuntime
from coverslip.inference.runtime import Runtime, RuntimeName
from coverslip.inference.torch_runtime import TorchRuntime
from coverslip.models.hardware import choose_precision, hardware_name
from coverslip.runtime import hash_text, machine_facts, package_versions, write_file, write_json
from coverslip.structures import FloatArray

WORTH_PREPARING = 1500
"""Images from which writing the graph and measuring pays: some 8 s on two cores for mobilenetv2_100, which gains 1/200 s an image."""
LARGEST_DIFFERENCE = 1e-3
"""Of a probability, from that of torch in float32."""
MEASURED_IMAGES = 16
MEASURED_PIXELS = MEASURED_IMAGES * 256 * 256
"""Of larger images fewer are measured, down to `FEWEST_MEASURED`: a pass over 16 of 512x512 with 8 test-time copies takes a minute."""
FEWEST_MEASURED = 4
MEASURED_SECONDS = 0.5
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
"""Packages of each engine and of the graph that it runs."""
GRAPH, FAILED, CHOICE = "network.onnx", "failed.txt", "choice.json"
_LOG = logging.getLogger("coverslip")


class Runtimes:
    """The engines of one bundle.

    Args:
        bundle: the model, in float32.
        folder: the bundle's folder, for its sample.
        wanted: `torch`, `onnx`, `openvino` or `auto`.

    Raises:
        ConfigError: onnx or openvino for a model that was opened on a GPU.
    """

    def __init__(self, bundle: Bundle, folder: Path, wanted: RuntimeName = "auto") -> None:
        device = bundle.network.device
        if wanted in NEEDED and device.type != "cpu":
            raise ConfigError(f"--runtime {wanted} computes on the CPU, but the model was opened on {device.type}; say --device cpu")
        self.bundle, self.folder, self.wanted = bundle, folder, wanted
        self.torch: Runtime = TorchRuntime(bundle)
        self._settled: Runtime | None = None
        self._one = threading.Lock()

    def runtime(self, images: int | None = None) -> Runtime:
        """The engine for so many images; for ever more when None, as a server asks. Once settled it stays.

        Raises:
            MissingExtraError: what was asked for is not installed.
            ExportError: the model cannot run on what was asked for, or gives other scores there.
        """
        with self._one:
            if self._settled is None:
                self._settled = self._settle(images)
            return self._settled or self.torch

    def _settle(self, images: int | None) -> Runtime | None:
        if self.wanted == "torch":
            return self.torch
        if self.wanted != "auto":
            made = self._open(self.wanted)
            self._check(made)
            return made
        choice = entry_of("graphs", self._key()) / CHOICE
        if choice.is_file():
            return self._open_known(str(json.loads(choice.read_text(encoding="utf-8"))["runtime"]))
        return self._fastest() if images is None or images >= WORTH_PREPARING else None

    def _open_known(self, name: str) -> Runtime:
        """The engine that was the fastest; torch where it cannot be opened any more."""
        try:
            return self._open(name)
        except (ExportError, ResourceError) as error:
            _LOG.warning("runtime: torch, for %s", error)
            return self.torch

    def _open(self, name: str) -> Runtime:
        """An engine by name; `torch-bf16` is torch in bfloat16."""
        makers: dict[str, Callable[[], Runtime]] = {
            "torch": lambda: self.torch,
            "torch-bf16": lambda: TorchRuntime(in_bfloat16(self.bundle)),
            "onnx": lambda: OnnxRuntime(self._graph()),
            "openvino": lambda: OpenVinoRuntime(self._graph()),
        }
        return makers[name]()

    def _candidates(self) -> list[str]:
        device = self.bundle.network.device
        found = ["torch", *(["torch-bf16"] if choose_precision("auto", device) == "bf16" else [])]
        if device.type != "cpu":
            return found
        return found + [name for name, packages in NEEDED.items() if all(importlib.util.find_spec(package) for package in packages)]

    def _fastest(self) -> Runtime:
        """Measure all, and keep what was found."""
        pixels = self._probe()
        opened: dict[str, Runtime] = {}
        speeds: dict[str, float] = {}
        refused: dict[str, str] = {}
        for name in self._candidates():
            try:
                made = self._open(name)
                self._check(made)
            except (ExportError, ResourceError) as error:
                refused[name] = str(error)
                continue
            opened[name], speeds[name] = made, images_per_second(made, pixels)
        best = max(speeds, key=lambda name: speeds[name])
        with suppress(ResourceError):  # without room in the cache the next process measures again
            write_json(self._entry() / CHOICE, {"runtime": best, "images_per_second": speeds, "refused": refused})
        _LOG.info("runtime: %s, of %s images a second", best, {name: round(speed) for name, speed in speeds.items()})
        return opened[best]

    def _check(self, made: Runtime) -> None:
        difference = largest_difference(made, self.torch, self._probe())
        if not difference <= LARGEST_DIFFERENCE:
            raise ExportError(
                f"{made.name} in precision {made.precision} gives other scores than torch in float32: they differ by {difference:.2g} "
                f"where at most {LARGEST_DIFFERENCE} is allowed; say --runtime torch"
            )

    def _probe(self) -> PixelArray:
        height, width, _ = self.bundle.network.geometry.shape
        return images_between(sample_pixels(self.bundle, self.folder), measured_images(height * width))

    # The cache

    def _key(self) -> str:
        """What graph and choice belong to: this model on this machine with these versions."""
        model = {name: value for name, value in read_description(self.folder).items() if name != "provenance"}
        versions = package_versions() | package_versions("onnx", "onnxscript", "onnxruntime", "openvino")
        facts = (model, versions, machine_facts(), hardware_name(self.bundle.network.device))
        return hash_text(*(json.dumps(fact, sort_keys=True) for fact in facts))

    def _entry(self) -> Path:
        size = 2 * sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))
        return cached("graphs", self._key(), self._write, size=size, limit=CacheConfig().limit)

    def _write(self, place: Path) -> None:
        """The graph, or the reason why there is none, which is not looked for again."""
        if self.bundle.network.device.type != "cpu":
            return
        try:
            write_file(place / GRAPH, stored_graph(self.bundle).SerializeToString())
        except ExportError as error:
            write_file(place / FAILED, str(error))

    def _graph(self) -> Path:
        entry = self._entry()
        if not (entry / GRAPH).is_file():
            raise ExportError((entry / FAILED).read_text(encoding="utf-8"))
        return entry / GRAPH


def in_bfloat16(bundle: Bundle) -> Bundle:
    """The same model, computing in bfloat16."""
    return replace(bundle, network=replace(bundle.network, precision="bf16", _folded=None, _folded_backbone=None))


def measured_images(pixels: int) -> int:
    """How many images of so many pixels each are measured.

    >>> measured_images(224 * 224), measured_images(320 * 320), measured_images(1024 * 1024)
    (16, 10, 4)
    """
    return max(FEWEST_MEASURED, min(MEASURED_IMAGES, MEASURED_PIXELS // pixels))


def images_between(pixels: PixelArray, count: int) -> PixelArray:
    """So many images (count, h, w, c), mixtures of two of (n, h, w, c), one of them mirrored: less sure cases than these."""
    random = np.random.default_rng(0)
    first, second = random.integers(0, len(pixels), (2, count))
    share = random.random((count, 1, 1, 1))
    mixed = share * pixels[first] + (1 - share) * pixels[second][:, ::-1, ::-1]
    return np.asarray(mixed if pixels.dtype.kind == "f" else mixed.round()).astype(pixels.dtype)


def largest_difference(made: Runtime, reference: Runtime, pixels: PixelArray) -> float:
    """By how much a probability differs at most, in [0, 1].

    A sure answer hides how coarse the arithmetic behind it is. Of a reduced precision it is the log-odds that count: where these are
    off by at most d, no probability is off by more than d / 4.
    """
    found, expected = made.scores(pixels), reference.scores(pixels)
    if made.precision == "32":
        return float(np.abs(found - expected).max())
    return float(np.abs(_log_odds(found) - _log_odds(expected)).max()) / 4


def _log_odds(scores: FloatArray) -> FloatArray:
    clipped = np.clip(scores, SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def images_per_second(runtime: Runtime, pixels: PixelArray) -> float:
    """Measured for a moment, after one pass that counts for nothing."""
    runtime.scores(pixels)
    began, passes = time.perf_counter(), 0
    while passes == 0 or time.perf_counter() - began < MEASURED_SECONDS:
        runtime.scores(pixels)
        passes += 1
    return passes * len(pixels) / (time.perf_counter() - began)
