"""The network alone as ONNX nodes, by torch's exporters."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from coverslip.errors import ExportError
from coverslip.graphs.builder import OPSET
from coverslip.models.folding import fold_batch_norms
from coverslip.models.groups import features_and_logits
from coverslip.models.networks import count_weights
from coverslip.network import Network
from coverslip.runtime import require

if TYPE_CHECKING:
    import onnx

PREFIX = "network/"
LARGEST = 1_900_000_000
"""Bytes of weights that fit into one ONNX file, of 2 GB at most."""
IMAGES, LOGITS, FEATURES = f"{PREFIX}images", f"{PREFIX}logits", f"{PREFIX}features"


def exported_network(network: Network) -> onnx.ModelProto:
    """Normalised batch, float32 (n, c, height, width) `network/images`, to float32 (n, classes) `network/logits` and what the heads
    see, float32 (n, features) `network/features`, n being any.

    torch has two exporters. The one that records a run takes a second; the one that analyses the program takes ten and more, and
    does for the networks that the first cannot express.

    Raises:
        MissingExtraError: the extra `export` is not installed.
        ExportError: torch cannot express the architecture in ONNX.
    """
    compose = require("onnx.compose", "export")
    architecture, size = network.classifier.backbone.spec.architecture, 4 * count_weights(network.classifier)
    if size > LARGEST:
        raise ExportError(f"{architecture} has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2; predict with --runtime torch")
    height, width, channels = network.geometry.shape
    images = torch.zeros(2, channels, height, width, device=network.device)
    scorer = _WithFeatures(fold_batch_norms(network.classifier, images[:1])).eval()
    with _quiet():
        try:
            model = _first_that_works(scorer, images, (_by_recording, _by_analysis))
        except _FAILURES as error:
            reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
            raise ExportError(f"torch cannot write {architecture} as ONNX: {reason}; predict with --runtime torch") from error
    found: onnx.ModelProto = compose.add_prefix(model, PREFIX)
    return found


class _WithFeatures(nn.Module):
    """A classifier that gives its logits, and what they are computed from."""

    def __init__(self, scorer: nn.Module) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of normalised images (n, c, h, w): float (n, classes), (n, features)."""
        features, logits = features_and_logits(self.scorer, images)
        return logits, features


Exporter = Callable[[nn.Module, Tensor], "onnx.ModelProto"]
_FAILURES = (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError)


def _first_that_works(scorer: nn.Module, images: Tensor, exporters: tuple[Exporter, Exporter]) -> onnx.ModelProto:
    quick, thorough = exporters
    try:
        return quick(scorer, images)
    except _FAILURES:
        return thorough(scorer, images)


@torch.no_grad()
def _by_recording(scorer: nn.Module, images: Tensor) -> onnx.ModelProto:
    file: Any = io.BytesIO()  # which it takes, whatever its types say
    torch.onnx.export(
        scorer, (images,), file, dynamo=False, input_names=["images"], output_names=["logits", "features"],
        dynamic_axes={"images": {0: "batch"}}, opset_version=OPSET,
    )  # fmt: skip
    model: onnx.ModelProto = require("onnx", "export").load_from_string(file.getvalue())
    return model


def _by_analysis(scorer: nn.Module, images: Tensor) -> onnx.ModelProto:
    require("onnxscript", "export")
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        scorer, (images,), dynamo=True, input_names=["images"], output_names=["logits", "features"], dynamic_shapes=({0: batch},),
        opset_version=OPSET, verbose=False,
    )  # fmt: skip
    if program is None:
        raise ValueError("torch gave no program")
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters tell of their steps on standard output and in a log, and warn of what they will do in later versions."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
