"""An ONNX graph as OpenVINO's two files."""

from __future__ import annotations

from pathlib import Path

from coverslip.errors import ExportError
from coverslip.models.openvino import EXTRA
from coverslip.runtime import require


def write_openvino(graph: bytes | Path, place: Path) -> None:
    """Write `place`, which ends in .xml, and the weights beside it in .bin; in float32, for half precision would not keep the scores.

    Raises:
        MissingExtraError: openvino is not installed.
        ExportError: it cannot take the graph.
    """
    openvino = require("openvino", EXTRA)
    try:
        openvino.save_model(openvino.Core().read_model(graph), str(place), compress_to_fp16=False)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot take the graph: {str(error).strip()[:300]}") from error
