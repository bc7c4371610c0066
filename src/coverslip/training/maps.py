"""Maps of frozen first layers: computed once for each training image and some augmented copies of it, kept on disk.

The layers above them learn from these instead of from pixels, so that a step costs what the learning layers cost.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn

from coverslip.config import AugmentConfig
from coverslip.data.cache import Hold, cached
from coverslip.data.store import Pixels
from coverslip.data.transforms import augment
from coverslip.errors import ConfigError, ResourceError
from coverslip.models.cutting import Cut
from coverslip.models.hardware import autocast
from coverslip.network import CHUNKS_AHEAD, SCORE_BATCH, Network
from coverslip.runtime import Progress, derived_seed, hash_text, no_progress, readable, write_json
from coverslip.structures import IntArray
from coverslip.training.extractor import Arithmetic, Extractor, Features
from coverslip.training.features import a_few, fingerprint

HalfArray = npt.NDArray[np.float16]
LAYOUT = "3"
PIECE = 8 * SCORE_BATCH
"""Images whose maps are one entry of the cache. A run that is stopped loses at most the piece that it is at."""
VECTOR_VIEWS = 4
"""Views, at most, that a head is solved on."""


@dataclass
class Maps:
    """What the lower part of a cut gives of some rows.

    Attributes:
        network: knows the normalisation, the device and the precision.
        cut: its classifier, cut in two.
        pixels: what it looks at.
        rows: int64 (m,), table rows whose maps are wanted.
        augment: how views other than the first are changed.
        copies: augmented copies of each image beside the image as it is.
        seed: of the copies.
        limit: largest size of the cache, in bytes.
        progress: told about each batch.
        runtime: what computes, `torch` or `openvino`.
        strict: whether layers that OpenVINO cannot run are an error.
        used: what computed the maps, here or in the run that left them.
    """

    network: Network
    cut: Cut
    pixels: Pixels
    rows: IntArray
    augment: AugmentConfig
    copies: int
    seed: int
    limit: int
    progress: Progress = no_progress
    runtime: str = "torch"
    strict: bool = False
    used: set[Arithmetic] = field(default_factory=set)
    _holds: list[Hold] = field(default_factory=list, repr=False)
    _pieces: list[HalfArray] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self._places = np.full(len(self.pixels.index), -1, dtype=np.int64)
        self._places[self.rows] = np.arange(len(self.rows))
        flat = nn.Sequential(self.cut.lower, nn.Flatten())
        self._extractor = Extractor(self.network, a_few(self.network, self.pixels), self.runtime, strict=self.strict, part=flat)

    def compute(self) -> None:
        """Compute what the cache does not have.

        Raises:
            ResourceError: the maps of all views do not fit into the cache.
            ConfigError: a map does not fit into half precision.
        """
        if self.size > self.limit:
            raise ResourceError(
                f"the maps of {len(self.rows)} images in {self.views} views, behind {self.cut.name} "
                f"({' × '.join(map(str, self.cut.shape))} numbers each), need {readable(self.size)} on disk, but cache.limit is "
                f"{readable(self.limit)}; raise it (-s cache.limit={self.size * 2}), say fewer training.views, or training.frozen_share=0"
            )
        known = hash_text(fingerprint(self.network, self.cut.lower, self.runtime), str(self.cut.lower))
        self._pieces = [self._piece(first, known) for first in range(0, len(self.rows), PIECE)]

    def seconds_a_view(self) -> float:
        """Seconds that one view of all rows would take, by those of a few images."""
        rows = self.rows[:SCORE_BATCH]
        batch = self.network.batch(self.pixels.read(rows))
        self._maps_of(batch)
        began = time.perf_counter()
        self._maps_of(augment(batch, self.augment, torch.Generator().manual_seed(0)))
        return (time.perf_counter() - began) * len(self.rows) / len(rows)

    @property
    def views(self) -> int:
        """Views of each image; the first is the image as it is."""
        return 1 + (self.copies if self.augment.active else 0)

    @property
    def size(self) -> int:
        """Bytes that they need on disk."""
        return len(self.rows) * self._bytes

    @property
    def _bytes(self) -> int:
        return int(np.prod(self.cut.shape)) * self.views * 2

    def draw(self, n: int, seed: int) -> IntArray:
        """One view for each of n images, int64 (n,), from a seed."""
        return np.random.default_rng(seed).integers(self.views, size=n)

    def read(self, rows: IntArray, views: IntArray) -> Tensor:
        """The maps of table rows, each in one view, both int64 (m,): float32 (m, ...) on the device."""
        places = self._places[rows]
        maps = np.empty((len(rows), *self.cut.shape), dtype=np.float32)
        for number, (place, view) in enumerate(zip(places, views, strict=True)):
            maps[number] = self._pieces[place // PIECE][place % PIECE, view]
        return self._laid_out(torch.from_numpy(maps))

    @torch.inference_mode()
    def vectors(self, rows: IntArray) -> list[Features]:
        """What the head sees of some rows, float32 (m, features) for each of the first views."""
        upper = self.cut.upper.backbone.eval()
        found: list[Features] = []
        for view in range(min(self.views, VECTOR_VIEWS)):
            parts: list[Features] = []
            for start in range(0, len(rows), SCORE_BATCH):
                mine = rows[start : start + SCORE_BATCH]
                with autocast(self.network.device, self.network.precision):
                    parts.append(upper(self.read(mine, np.full(len(mine), view))).float().cpu().numpy())
            found.append(np.concatenate(parts))
        return found

    def _laid_out(self, maps: Tensor) -> Tensor:
        on_device = maps.to(self.network.device)
        return on_device.to(memory_format=self.network.memory_format) if on_device.ndim == 4 else on_device

    def _piece(self, first: int, known: str) -> HalfArray:
        mine = self.rows[first : first + PIECE]
        chosen = hashlib.sha256(self.pixels.index[mine].tobytes()).hexdigest()
        key = hash_text(LAYOUT, self.pixels.key, known, chosen, str(self.views), f"{self.augment} {self.seed} {first}")
        folder = cached("maps", key, lambda place: self._write(place, first, mine), size=len(mine) * self._bytes, limit=self.limit)
        self._holds.append(Hold(folder))
        made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
        self.used.add(Arithmetic(str(made["runtime"]), str(made["precision"])))
        piece: HalfArray = np.load(folder / "maps.npy", mmap_mode="r", allow_pickle=False)
        return piece

    @torch.inference_mode()
    def _write(self, folder: Path, first: int, mine: IntArray) -> None:
        shape = (len(mine), self.views, *self.cut.shape)
        maps: np.memmap[Any, np.dtype[np.float16]] = open_memmap(folder / "maps.npy", mode="w+", dtype=np.dtype(np.float16), shape=shape)
        for start in range(0, len(mine), SCORE_BATCH):
            self.pixels.expect(mine[start : start + CHUNKS_AHEAD * SCORE_BATCH])
            rows = mine[start : start + SCORE_BATCH]
            batch = self.network.batch(self.pixels.read(rows))
            for view in range(self.views):
                generator = torch.Generator().manual_seed(derived_seed("map", self.seed, view, first + start))
                maps[start : start + len(rows), view] = self._maps_of(augment(batch, self.augment, generator) if view else batch)
            self.progress("first layers", first + start + len(rows), len(self.rows), {})
        maps.flush()
        write_json(folder / "made.json", self._extractor.arithmetic._asdict())

    def _maps_of(self, batch: Tensor) -> HalfArray:
        with np.errstate(over="ignore"):
            maps = next(self._extractor([batch])).reshape(len(batch), *self.cut.shape).astype(np.float16)
        if not np.isfinite(maps).all():
            raise ConfigError(f"the maps behind {self.cut.name} do not fit into half precision; say training.frozen_share = 0")
        return maps
