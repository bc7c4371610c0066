"""Stored pixels in, scores out: normalisation, classifier and test-time copies as one thing.

Training, scoring, features and every use of a bundle go through this class, so that they agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from coverslip.config import AugmentConfig
from coverslip.data.decoding import PixelArray
from coverslip.data.geometry import Geometry
from coverslip.data.normalisation import Normalisation
from coverslip.data.streaming import StreamedArray, expect
from coverslip.data.transforms import tta_copies
from coverslip.models.classifier import Classifier
from coverslip.models.folding import fold_batch_norms, kind_of
from coverslip.models.groups import GroupedClassifier, features_and_logits
from coverslip.models.hardware import autocast, choose_memory_format
from coverslip.structures import FloatArray

SCORE_BATCH = 32
"""Images per forward pass when nothing is learned."""
CHUNKS_AHEAD = 4
"""Of these, how many are read ahead where images come from a store."""


@dataclass
class Network:
    """A classifier with all that stands before it.

    Attributes:
        classifier: logits from normalised batches.
        geometry: how an image becomes stored pixels.
        normalisation: how stored pixels become a batch.
        augment: which flips are legitimate for test-time copies.
        tta: `none`, `flips` or `turns`.
        device: where it runs.
        precision: `bf16` or `32`.
        several: whether an image may carry several labels, each with a probability of its own.
        settled: whether the classifier will not learn any more, so that scoring may use a faster copy of it.
        memory_format: how batches and weights lie in memory.
    """

    classifier: Classifier | GroupedClassifier
    geometry: Geometry
    normalisation: Normalisation
    augment: AugmentConfig
    tta: str
    device: torch.device
    precision: str
    several: bool = False
    settled: bool = False
    _folded: nn.Module | None = field(default=None, repr=False)
    memory_format: torch.memory_format = field(init=False, repr=False)
    _folded_backbone: nn.Module | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.classifier.to(device=self.device)
        self.memory_format = choose_memory_format(self.classifier, self.device)
        self.classifier.to(memory_format=self.memory_format)

    def for_use(self) -> Network:
        """The same classifier as it is judged, saved and used: it learns no more, and computes in float32, whatever it learned in.

        bfloat16 moves what a pretrained mobilenet sees by a fifth of what tells images apart: a model whose scores depend on whether
        a machine has it would not be one model.
        """
        return replace(self, settled=True, precision="32", _folded=None, _folded_backbone=None)

    def fold(self) -> None:
        """Make the faster copy of a settled classifier, which the first scoring would make."""
        self._scorer()

    def _scorer(self) -> nn.Module:
        if not self.settled:
            return self.classifier
        self._folded = self._folded or self._fold(self.classifier)
        return self._folded

    def _fold(self, module: nn.Module) -> nn.Module:
        return fold_batch_norms(module, self._empty(), half=self.precision == "bf16")

    def _extractor(self) -> nn.Module:
        """The backbone for features, folded; the copy is kept for as long as the backbone is frozen."""
        backbone = self.classifier.backbone
        if any(parameter.requires_grad for parameter in backbone.parameters()):
            return self._fold(backbone)
        self._folded_backbone = self._folded_backbone or self._fold(backbone)
        return self._folded_backbone

    def _empty(self) -> Tensor:
        """A batch of one empty image."""
        height, width, channels = self.geometry.shape
        return torch.zeros(1, channels, height, width, device=self.device)

    def batch(self, pixels: PixelArray) -> Tensor:
        """Stored pixels (n, h, w, c) as a normalised float32 (n, c, h, w) batch on the device."""
        batch = self.normalisation.apply(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device))
        return batch.contiguous(memory_format=self.memory_format)

    @torch.inference_mode()
    def scores(self, batches: Iterable[PixelArray], *, copies: bool = True) -> FloatArray:
        """Probabilities.

        Args:
            batches: stored pixels, each (n, h, w, c).
            copies: whether test-time copies are averaged; without them a look at the validation part is cheaper.

        Returns:
            float64 (all n, classes), the mean over the test-time copies; rows sum to 1 unless an image may carry several labels.
        """
        self.classifier.eval()
        rows = [self._batch_scores(self.batch(pixels), self.tta if copies else "none") for pixels in batches]
        return np.concatenate(rows) if rows else np.zeros((0, self.classifier.classes))

    def _batch_scores(self, batch: Tensor, tta: str) -> FloatArray:
        copies = tta_copies(batch, tta, self.augment)
        scorer = self._scorer()
        with autocast(self.device, self.precision):
            logits = [scorer(copy.to(kind_of(scorer))) for copy in copies]
        return torch.stack([self.probabilities(one) for one in logits]).mean(dim=0).cpu().numpy()

    @torch.inference_mode()
    def scores_and_features(self, batches: Iterable[PixelArray], *, copies: bool = True) -> tuple[FloatArray, npt.NDArray[np.float32]]:
        """Probabilities as `scores` gives them, and what the heads saw of each image as it is: float32 (all n, features)."""
        self.classifier.eval()
        scorer = self._scorer()
        scores, features = [], []
        for pixels in batches:
            first, *more = tta_copies(self.batch(pixels), self.tta if copies else "none", self.augment)
            with autocast(self.device, self.precision):
                vectors, logits = features_and_logits(scorer, first.to(kind_of(scorer)))
                others = [scorer(copy.to(kind_of(scorer))) for copy in more]
            features.append(vectors.float().cpu().numpy())
            scores.append(torch.stack([self.probabilities(one) for one in (logits, *others)]).mean(dim=0).cpu().numpy())
        return np.concatenate(scores), np.concatenate(features)

    @torch.inference_mode()
    def logits(self, batch: Tensor) -> Tensor:
        """Logits, float32 (n, classes), of a normalised batch (n, c, h, w) as it is, without test-time copies."""
        self.classifier.eval()
        scorer = self._scorer()
        with autocast(self.device, self.precision):
            rows = [scorer(batch[start : start + SCORE_BATCH].to(kind_of(scorer))) for start in range(0, len(batch), SCORE_BATCH)]
        return torch.cat(rows).float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (n, classes) to float64 probabilities."""
        return logits.double().sigmoid() if self.several else logits.double().softmax(dim=1)

    @torch.inference_mode()
    def features(self, batches: Iterable[Tensor]) -> Iterator[npt.NDArray[np.float32]]:
        """Pooled features, float32 (n, features), of each normalised batch."""
        backbone = self._extractor()
        for batch in batches:
            with autocast(self.device, self.precision):
                features = backbone(batch.to(kind_of(backbone)))
            yield features.float().cpu().numpy()


def chunks(array: PixelArray | StreamedArray, rows: npt.NDArray[np.int64], size: int = SCORE_BATCH) -> Iterator[PixelArray]:
    """The given rows of an array, `size` at a time; where they come from a store, some are read ahead."""
    for start in range(0, len(rows), size):
        expect(array, rows[start : start + CHUNKS_AHEAD * size])
        yield array[rows[start : start + size]]
