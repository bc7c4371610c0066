"""Features of a frozen backbone: computed once, cached on disk, augmented views included."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from coverslip.config import AugmentConfig
from coverslip.data.cache import cached
from coverslip.data.store import Pixels
from coverslip.data.transforms import augment
from coverslip.network import CHUNKS_AHEAD, SCORE_BATCH, Network
from coverslip.runtime import Progress, derived_seed, hash_text, no_progress, write_json
from coverslip.structures import IntArray
from coverslip.training.extractor import Arithmetic, Extractor, Features
from coverslip.training.ranks import current

LAYOUT = "5"
"""What an entry of the cache holds; another number where that changes."""
A_FEW = 8
"""Images that choose the arithmetic of features."""
PIECE = 32 * SCORE_BATCH
"""Images whose features are one entry of the cache. A run that is stopped loses at most the piece that it is at."""


@dataclass(frozen=True)
class FeatureStore:
    """Features of one network's backbone on one set of pixels.

    Attributes:
        network: the backbone with its preprocessing; its head plays no part.
        pixels: what it looks at.
        augment: how views other than the first are changed.
        seed: of the views.
        limit: largest size of the cache, in bytes.
        progress: told about each batch.
        whole: compute and cache all rows at once, whichever are asked for: a cross-validation then looks at each image once.
        runtime: `torch` or `openvino`, by which features are computed (see `extractor.choose_runtime`).
        strict: whether a backbone that OpenVINO cannot run is an error.
        seconds: what the features that were asked for took to compute, here or in an earlier run, by the key of their entry.
        used: what computed them; several where some were there from a place without OpenVINO, or without fast bfloat16.
    """

    network: Network
    pixels: Pixels
    augment: AugmentConfig
    seed: int
    limit: int
    progress: Progress = no_progress
    whole: bool = False
    runtime: str = "torch"
    strict: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    used: set[Arithmetic] = field(default_factory=set)

    def rows(self, rows: IntArray, view: int = 0) -> Features:
        """Features of some rows.

        Args:
            rows: int64 (m,) table rows.
            view: 0 is the image as it is; each higher number is another augmented copy.

        Returns:
            float32 (m, features).
        """
        if self.whole:
            return self._pieces(np.arange(len(self.pixels.index), dtype=np.int64), view)[rows]
        return self._pieces(rows, view)

    def _pieces(self, rows: IntArray, view: int) -> Features:
        return np.concatenate(current().dealt(range(0, len(rows), PIECE), lambda first: self._piece(rows, view, first)))

    def _piece(self, rows: IntArray, view: int, first: int) -> Features:
        """Features of the rows from `first` on, as many as an entry of the cache holds."""
        mine = rows[first : first + PIECE]
        chosen = hashlib.sha256(self.pixels.index[mine].tobytes()).hexdigest()
        changes = f"{self.augment} {self.seed} {first}" if view else ""
        key = hash_text(LAYOUT, self.pixels.key, self.fingerprint, chosen, str(view), changes)
        size = len(mine) * self.network.classifier.backbone.features * 4
        folder = cached("features", key, lambda place: self._write(place, rows, view, first), size=size, limit=self.limit)
        features: Features = np.load(folder / "features.npy", allow_pickle=False)
        made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
        self.seconds[key] = float(made["seconds"])
        self.used.add(Arithmetic(str(made["runtime"]), str(made["precision"])))
        return features

    @cached_property
    def _extractor(self) -> Extractor:
        return Extractor(self.network, a_few(self.network, self.pixels), self.runtime, strict=self.strict)

    @cached_property
    def fingerprint(self) -> str:
        """What the features depend on beside the pixels; taken once, for a frozen backbone does not change."""
        return fingerprint(self.network, self.network.classifier.backbone, self.runtime)

    def _write(self, folder: Path, rows: IntArray, view: int, first: int) -> None:
        began = time.perf_counter()
        parts = list(self._extractor(self._batches(rows, view, first)))
        np.save(folder / "features.npy", np.concatenate(parts), allow_pickle=False)
        write_json(folder / "made.json", {"seconds": time.perf_counter() - began, **self._extractor.arithmetic._asdict()})

    def _batches(self, rows: IntArray, view: int, first: int) -> Iterator[Tensor]:
        for start in range(first, min(first + PIECE, len(rows)), SCORE_BATCH):
            self.pixels.expect(rows[start : start + CHUNKS_AHEAD * SCORE_BATCH])
            batch = self.network.batch(self.pixels.read(rows[start : start + SCORE_BATCH]))
            if view:
                generator = torch.Generator().manual_seed(derived_seed("view", self.seed, view, start))
                batch = augment(batch, self.augment, generator)
            yield batch
            self.progress("features", min(start + SCORE_BATCH, len(rows)), len(rows), {})


def a_few(network: Network, pixels: Pixels) -> Tensor:
    """Normalised images (n, c, height, width), evenly spaced among all, on which `Extractor` chooses its arithmetic."""
    last = len(pixels.index) - 1
    return network.batch(pixels.read(np.unique(np.linspace(0, last, A_FEW).round().astype(np.int64))))


def fingerprint(network: Network, module: nn.Module, runtime: str) -> str:
    """What the output of a part of a network depends on beside the pixels."""
    spec = str(network.classifier.backbone.spec.to_json())
    computed = [one for one in (network.device.type, runtime) if one not in ("cpu", "torch")]
    return hash_text(module_hash(module), spec, str(network.normalisation), network.precision, *computed)


def module_hash(module: nn.Module) -> str:
    """SHA-256 over the names and values of a module's weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
