"""OpenVINO on the CPU. The package is met here, and where its files are written."""

from __future__ import annotations

import importlib.util
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from coverslip.errors import ExportError
from coverslip.runtime import require

EXTRA = "openvino"
FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
"""Without it OpenVINO computes in bfloat16 where the processor can."""
PRECISIONS = {"32": FULL_PRECISION, "bf16": {"INFERENCE_PRECISION_HINT": "bf16"}}
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError)
_FRONTEND_FAILURES = ("GeneralFailure", "InitializationFailure", "NotImplementedFailure", "OpConversionFailure", "OpValidationFailure")


def is_installed() -> bool:
    """Whether OpenVINO is there; it is not loaded."""
    return importlib.util.find_spec("openvino") is not None


def compile_model(graph: Path | bytes, *, batch: int | None = None, **properties: str) -> Any:
    """A graph, compiled for the CPU in float32.

    Args:
        graph: an ONNX or OpenVINO file, or the bytes of an ONNX file.
        batch: images of each call; any number when None.
        properties: of OpenVINO, e.g. `PERFORMANCE_HINT`.

    Raises:
        MissingExtraError: openvino is not installed.
        ExportError: it cannot run the graph.
    """
    openvino = require("openvino", EXTRA)
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # a file that is mapped cannot be moved or removed on Windows
    try:
        model = core.read_model(graph)
        if batch is not None:
            shape = model.input(0).partial_shape
            shape[0] = batch
            model.reshape(shape)
        return core.compile_model(model, "CPU", {**FULL_PRECISION, **properties})
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot run the graph: {str(error).strip()[:300]}; say --runtime torch") from error


def compile_module(module: nn.Module, image: Tensor, precision: str) -> ImageByImage:
    """A network as it stands, compiled without a way through a file: a second or two.

    Weights that change afterwards may or may not be seen: for networks that learn no more, or not before the last call.

    Args:
        module: on the CPU, in evaluation mode, from images (n, channels, height, width) to (n, width).
        image: float32 (1, channels, height, width); only its shape matters.
        precision: `32` or `bf16`, of its arithmetic.

    Raises:
        MissingExtraError: openvino is not installed.
        ExportError: it cannot express or run the network.
    """
    openvino, frontend = require("openvino", EXTRA), require("openvino.frontend", EXTRA)
    decoder = require("openvino.frontend.pytorch.ts_decoder", EXTRA)
    failures = (*_FAILURES, *(getattr(frontend, name) for name in _FRONTEND_FAILURES))
    properties = {**PRECISIONS[precision], "PERFORMANCE_HINT": "THROUGHPUT"}
    try:
        reader = frontend.FrontEndManager().load_by_framework("pytorch")
        nodes = decoder.TorchScriptPythonDecoder(_recorded(module, image), skip_freeze=True)  # must outlive the reading
        model = reader.convert(reader.load(nodes))
        model.reshape(list(image.shape))
        return ImageByImage(openvino.Core().compile_model(model, "CPU", properties))
    except failures as error:
        reason = " ".join(str(error).rpartition("Summary:")[2].split())[-300:] or type(error).__name__  # the cause stands last
        raise ExportError(f"OpenVINO cannot run this network: {reason}") from error


@torch.no_grad()
def _recorded(module: nn.Module, image: Tensor) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that are taken as constant, which they are: one image of one size
        recorded: torch.jit.ScriptModule = torch.jit.trace(module, image, check_trace=False)  # type: ignore[no-untyped-call]
        return recorded


class ImageByImage:
    """A compiled graph that takes one image a call: as many calls at once as the processor has room for.

    Args:
        model: compiled for a batch of one and for throughput; its outputs are (1, width).
    """

    def __init__(self, model: Any) -> None:
        self._widths = [one.partial_shape[1].get_length() for one in model.outputs]
        self._queue = require("openvino", EXTRA).AsyncInferQueue(model)
        self._queue.set_callback(_keep)
        self._alone = threading.Lock()

    def __call__(self, images: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        """Each output, float32 (n, width), of images (n, ...). May be called by several threads at once."""
        found = [np.empty((len(images), width), dtype=np.float32) for width in self._widths]
        with self._alone:
            for row in range(len(images)):
                self._queue.start_async({0: np.ascontiguousarray(images[row : row + 1])}, (found, row))
            self._queue.wait_all()
        return found


def _keep(request: Any, place: tuple[list[npt.NDArray[np.float32]], int]) -> None:
    found, row = place
    for number, one in enumerate(found):
        one[row] = request.get_output_tensor(number).data[0]
