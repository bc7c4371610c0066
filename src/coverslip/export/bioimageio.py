"""A bioimage.io package: a zip archive of the ONNX graph, its description, a test image with its scores, and the model card.

The description follows version 0.5 of https://github.com/bioimage-io/spec-bioimage-io; it is written as JSON, which is YAML, too.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coverslip.bundle import Bundle
from coverslip.data.decoding import PixelArray
from coverslip.errors import InputError, did_you_mean
from coverslip.graphs.assembly import PIXELS, SCORES, facts_of
from coverslip.graphs.builder import OPSET
from coverslip.models.licences import KNOWN, SPDX
from coverslip.runtime import to_json
from coverslip.structures import FloatArray

FORMAT_VERSION = "0.5.4"
MODEL, IMAGE, RESULT, CARD, DESCRIPTION = "model.onnx", "test_image.npy", "test_scores.npy", "README.md", "rdf.yaml"
UNSTATED = "The developers of the model"
LONGEST_NAME = 100
FORBIDDEN = {"/", "\\"}
"""Characters that no name of an author may hold."""


COARSE = 0.0099
"""How far a score in 8 bits may lie from that of another machine, for processors round differently: this share of itself,
and as much of the highest score. bioimage.io allows no more."""


@dataclass(frozen=True)
class Credits:
    """Who made a model, and under which licence others may use it.

    Attributes:
        authors: their names; a placeholder stands for none.
        licence: an SPDX identifier; empty where nobody has said.
    """

    authors: tuple[str, ...] = ()
    licence: str = ""

    @staticmethod
    def of(authors: Sequence[str], licence: str | None) -> Credits:
        """Of what was asked for.

        Raises:
            InputError: a name is empty or holds a character that bioimage.io does not allow, or the licence is no SPDX identifier.

        >>> Credits.of([" Ada Lovelace "], "mit")
        Credits(authors=('Ada Lovelace',), licence='MIT')
        """
        names = tuple(name.strip() for name in authors)
        wrong = [name for name in names if not name or not FORBIDDEN.isdisjoint(name)]
        if wrong:
            raise InputError(f"--author {wrong[0]!r}: expected the name of a person, without {' and '.join(sorted(FORBIDDEN))}")
        if licence is not None and licence.casefold() not in SPDX:
            raise InputError(f"--licence {licence}: expected one of {', '.join(KNOWN)}.{did_you_mean(licence, KNOWN)}")
        return Credits(names, SPDX[licence.casefold()] if licence else "")

    @property
    def missing(self) -> str:
        """What is to be said before the package is published, in words; empty where all is said."""
        wanted = [option for option, said in (("--author NAME", self.authors), ("--licence SPDX", self.licence)) if not said]
        return f"the package is complete for use; before you publish it, say {' and '.join(wanted)}" if wanted else ""


def write_package(
    place: Path, bundle: Bundle, graph: bytes, card: str, test: tuple[PixelArray, FloatArray], said: Credits, *, coarse: bool = False
) -> None:
    """Write the archive.

    Args:
        place: the file, which ends in .zip.
        bundle: the model.
        graph: its ONNX file, from raw pixels to scores.
        card: README.md.
        test: a decoded image (1, h, w, c) with the channels that the model names, and its scores (1, classes).
        said: authors and licence.
        coarse: whether the network is computed in 8 bits.
    """
    image, scores = test
    files = {MODEL: graph, IMAGE: _npy(image), RESULT: _npy(scores.astype(np.float32)), CARD: card.encode("utf-8")}
    described = {name: {"source": name, "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    description = json.dumps(to_json(_description(bundle, described, test, said, coarse)), indent=1, ensure_ascii=False)
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {DESCRIPTION: description.encode("utf-8"), **files}.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def packaged_graph(place: Path) -> bytes:
    """The ONNX file in a package."""
    with zipfile.ZipFile(place) as archive:
        return archive.read(MODEL)


def _description(
    bundle: Bundle, files: Mapping[str, dict[str, str]], test: tuple[PixelArray, FloatArray], said: Credits, coarse: bool
) -> dict[str, Any]:
    image, scores = test
    geometry = bundle.network.geometry
    architecture = bundle.network.classifier.backbone.spec.architecture
    bits = " in 8 bits" if coarse else ""
    allowed = {"relative_tolerance": COARSE, "absolute_tolerance": COARSE * float(scores.max())}
    tolerance = {"bioimageio": {"reproducibility_tolerance": [allowed]}} if coarse else {}
    return {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": _name(f"coverslip {architecture}{bits} {' '.join(bundle.classes)}"),
        "description": f"A {bundle.task} image classifier ({architecture}{bits}) with its preprocessing: decoded images in, scores out.",
        "authors": [{"name": name} for name in said.authors or (UNSTATED,)],
        "cite": [{"text": "coverslip, the software that it was made with", "url": "https://github.com/coverslip/coverslip"}],
        "documentation": files[CARD],
        "tags": ["image-classification", "coverslip", str(bundle.task), architecture],
        **({"license": said.licence} if said.licence else {}),
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
        "config": {"coverslip": facts_of(bundle), **tolerance},
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
