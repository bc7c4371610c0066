"""What an engine is."""

from __future__ import annotations

from typing import Literal, Protocol

from coverslip.data.decoding import PixelArray
from coverslip.neighbours import Vectors
from coverslip.structures import FloatArray

RuntimeName = Literal["auto", "torch", "onnx", "openvino"]
RUNTIMES = ("torch", "onnx", "openvino")


class Runtime(Protocol):
    """Computes scores. May be called by several threads at once.

    Attributes:
        name: `torch`, `onnx` or `openvino`.
        precision: of its arithmetic, `32` or `bf16`.
    """

    name: str
    precision: str

    def scores(self, pixels: PixelArray) -> FloatArray:
        """Calibrated scores, float64 (n, classes), of stored pixels (n, height, width, channels), n of any size."""
        ...

    def scores_and_features(self, pixels: PixelArray) -> tuple[FloatArray, Vectors | None]:
        """The same, and what the heads saw of each image, float32 (n, features); None where the bundle knows no training images."""
        ...
