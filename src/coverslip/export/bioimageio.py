"""A bioimage.io package: a zip archive of the ONNX graph, its description, a test image with its scores, and the model card.

The description follows version 0.5 of https://github.com/bioimage-io/spec-bioimage-io; it is written as JSON, which is YAML, too.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coverslip.bundle import Bundle
from coverslip.data.decoding import PixelArray
from coverslip.graphs.assembly import PIXELS, SCORES, facts_of
from coverslip.graphs.builder import OPSET
from coverslip.runtime import to_json
from coverslip.structures import FloatArray

FORMAT_VERSION = "0.5.4"
MODEL, IMAGE, RESULT, CARD, DESCRIPTION = "model.onnx", "test_image.npy", "test_scores.npy", "README.md", "rdf.yaml"
UNSTATED = "The developers of the model"
LONGEST_NAME = 100


def write_package(place: Path, bundle: Bundle, graph: bytes, card: str, test: tuple[PixelArray, FloatArray], licence: str | None) -> None:
    """Write the archive.

    Args:
        place: the file, which ends in .zip.
        bundle: the model.
        graph: its ONNX file, from raw pixels to scores.
        card: README.md.
        test: a decoded image (1, h, w, c) with the channels that the model names, and its scores (1, classes).
        licence: an SPDX identifier; None where it is not known.
    """
    image, scores = test
    files = {MODEL: graph, IMAGE: _npy(image), RESULT: _npy(scores.astype(np.float32)), CARD: card.encode("utf-8")}
    described = {name: {"source": name, "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    description = json.dumps(to_json(_description(bundle, described, image, licence)), indent=1, ensure_ascii=False)
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {DESCRIPTION: description.encode("utf-8"), **files}.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def packaged_graph(place: Path) -> bytes:
    """The ONNX file in a package."""
    with zipfile.ZipFile(place) as archive:
        return archive.read(MODEL)


def _description(bundle: Bundle, files: Mapping[str, dict[str, str]], image: PixelArray, licence: str | None) -> dict[str, Any]:
    geometry = bundle.network.geometry
    architecture = bundle.network.classifier.backbone.spec.architecture
    return {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": _name(f"coverslip {architecture} {' '.join(bundle.classes)}"),
        "description": f"A {bundle.task} image classifier ({architecture}) with its preprocessing: decoded images in, scores out.",
        "authors": [{"name": UNSTATED}],
        "cite": [{"text": "coverslip, the software that it was made with", "url": "https://github.com/coverslip/coverslip"}],
        "documentation": files[CARD],
        "tags": ["image-classification", "coverslip", str(bundle.task), architecture],
        **({"license": licence} if licence else {}),
        "inputs": [
            {
                "id": PIXELS,
                "description": f"Images as decoded, of any size; resized to {geometry.height}x{geometry.width} ({geometry.fit}) inside.",
                "axes": [
                    {"type": "batch"},
                    {"type": "space", "id": "y", "size": {"min": min(image.shape[1:3]), "step": 1}},
                    {"type": "space", "id": "x", "size": {"min": min(image.shape[1:3]), "step": 1}},
                    {"type": "channel", "channel_names": list(geometry.channels)},
                ],
                "data": {"type": str(image.dtype)},
                "test_tensor": files[IMAGE],
            }
        ],
        "outputs": [
            {
                "id": SCORES,
                "description": "Calibrated scores, one a class.",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": [_channel_name(name) for name in bundle.classes]}],
                "data": {"type": "float32", "range": [0.0, 1.0]},
                "test_tensor": files[RESULT],
            }
        ],
        "weights": {"onnx": {**files[MODEL], "opset_version": OPSET}},
        "config": {"coverslip": facts_of(bundle)},
    }


def _name(text: str) -> str:
    """A name of the letters that bioimage.io allows."""
    return re.sub(r"[^\w\-+ ]+", " ", text)[:LONGEST_NAME].strip()


def _channel_name(text: str) -> str:
    """A class as the name of a channel, which may not be empty."""
    return text.strip() or "unnamed"


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
