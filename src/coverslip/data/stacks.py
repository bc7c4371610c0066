"""From the axes of a stack to the channels of one image: z planes are projected, channels come last. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coverslip.data.decoding import ImageReadError, Projection, check_size
from coverslip.errors import counted

_Array = npt.NDArray[Any]

_CHANNELS, _PLANES, _UNKNOWN = "CS", "Z", "QI"
_AXES = {"T": "time points", "P": "positions", "M": "mosaic tiles", "A": "angles", "V": "views", "H": "phases", "R": "rotations"}


def as_pixels(array: _Array) -> _Array:
    """Bring values to one of the dtypes of pixels.

    Args:
        array: any shape; booleans, integers or floating-point numbers.

    Returns:
        uint8 and uint16 as they are, booleans as uint8 0 and 255; all others as float32, not scaled (integers above 2**24 are
        rounded to the nearest float32).

    Raises:
        ImageReadError: values that are no numbers of one part, that are NaN or infinite, or too large for float32.
    """
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    check_kind(array.dtype)
    with np.errstate(over="ignore"):
        pixels = array.astype(np.float32, copy=False)
    wrong = pixels.size - int(np.count_nonzero(np.isfinite(pixels))) if array.dtype.kind == "f" else 0
    if wrong:
        first = ", ".join(map(str, np.argwhere(~np.isfinite(pixels))[0].tolist()))
        raise ImageReadError(
            f"{counted(wrong, 'pixel is', 'pixels are')} NaN or infinite, the first at [{first}] of {'x'.join(map(str, pixels.shape))}; "
            "mend them in the file, for example put 0 in their place"
        )
    return pixels


def check_kind(dtype: np.dtype[Any] | None) -> None:
    """Refuse pixels that are not booleans, integers or floating-point numbers.

    Raises:
        ImageReadError: complex, structured or unknown pixels.
    """
    if dtype is None or dtype.kind not in "buif":
        found = "unknown" if dtype is None else dtype.name
        raise ImageReadError(f"{found} pixels; integers and floating-point numbers are read, save the image as one of them")


def check_axes(shape: Sequence[int], axes: str, projection: Projection | None, max_pixels: int) -> None:
    """Refuse, before anything is decoded, the stacks that `to_channels` refuses.

    Args:
        shape: the length of each axis.
        axes: a letter for each axis, as tifffile writes them.
        projection: how z planes become one.
        max_pixels: most pixels over all planes and channels; interleaved samples of colour (up to 4) count as one.

    Raises:
        ImageReadError: as in `to_channels`.
    """
    _roles(shape, axes, projection, max_pixels)


def to_channels(
    array: _Array, axes: str, names: Sequence[str], projection: Projection | None, *, max_pixels: int
) -> tuple[_Array, tuple[str, ...]]:
    """Make one image of a stack.

    Args:
        array: any number of axes.
        axes: a letter for each axis, as tifffile writes them: Y and X, Z (planes), C (channels), S (interleaved samples), T (time),
            Q and I (unknown: z planes where a projection is asked for and there is no Z, else channels). Others are refused
            where they are longer than 1.
        names: the names of the channels; any other number of names than channels counts as none.
        projection: how z planes become one.
        max_pixels: most pixels over all planes and channels; interleaved samples of colour (up to 4) count as one.

    Returns:
        Pixels as by `as_pixels`, (h, w, c), and c names.

    Raises:
        ImageReadError: z planes without a projection, several time points or positions, axes that cannot be told apart, a plane
            that is not there, too many pixels, pixels that are no finite numbers.
    """
    planes, channels = _roles(array.shape, axes, projection, max_pixels)
    order = [axis for axis in (planes, axes.index("Y"), axes.index("X"), channels) if axis is not None]
    single = [axis for axis in range(array.ndim) if axis not in order]
    image = array.transpose(*single, *order).reshape([array.shape[axis] for axis in order])
    if planes is not None and projection is not None:
        image = _projected(image, projection)
    if channels is None:
        image = image[..., None]
    count = image.shape[-1]
    known = tuple(names) if len(names) == count else ("",) * count
    return np.ascontiguousarray(as_pixels(image)), known


def _projected(stack: _Array, projection: Projection) -> _Array:
    """(z, h, w) or (z, h, w, c) without its first axis; the mean is rounded to nearest for integers."""
    if isinstance(projection, int):
        return np.array(stack[projection])  # a view would keep the whole stack in memory
    stack = as_pixels(stack) if stack.dtype == np.bool_ else stack
    if projection == "max":
        return np.asarray(stack.max(axis=0))
    mean = stack.mean(axis=0, dtype=np.float64)
    return np.asarray(mean if stack.dtype.kind == "f" else np.rint(mean).astype(stack.dtype))


def _roles(shape: Sequence[int], axes: str, projection: Projection | None, max_pixels: int) -> tuple[int | None, int | None]:
    """Which axis holds the z planes and which the channels; None where there is one only."""
    if len(shape) != len(axes) or axes.count("Y") != 1 or axes.count("X") != 1:
        raise ImageReadError(f"axes {axes!r} of shape {tuple(shape)}; expected one Y and one X, and a letter for each axis")
    length = dict(zip(axes, shape, strict=True))
    check_size(length["Y"], length["X"], max_pixels)
    known, unknown = _long_axes(shape, axes)
    planes = [axis for axis in known if axes[axis] in _PLANES]
    if not planes and projection is not None:
        planes, unknown = unknown[:1], unknown[1:]
    channels = [axis for axis in known if axes[axis] in _CHANNELS] + unknown
    if len(planes) > 1 or len(channels) > 1:
        sizes = " x ".join(str(shape[axis]) for axis in sorted(planes + channels))
        raise ImageReadError(f"{sizes} images whose axes cannot be told apart (axes {axes}); save one image a file, or as OME-TIFF")
    if planes:
        _check_projection(shape[planes[0]], projection)
    _check_total(shape, axes, max_pixels)
    return planes[0] if planes else None, channels[0] if channels else None


def _long_axes(shape: Sequence[int], axes: str) -> tuple[list[int], list[int]]:
    """The axes beside Y and X that are longer than 1: those of planes and channels, and the unknown ones."""
    long = [axis for axis, size in enumerate(shape) if size != 1 and axes[axis] not in "YX"]
    for axis in long:
        if shape[axis] < 1:
            raise ImageReadError(f"too small: no images along axis {axes[axis]}")
        if axes[axis] not in _PLANES + _CHANNELS + _UNKNOWN:
            kind = _AXES.get(axes[axis], "images")
            raise ImageReadError(f"{shape[axis]} {kind} (axis {axes[axis]}); save single images, one a file")
    return [axis for axis in long if axes[axis] not in _UNKNOWN], [axis for axis in long if axes[axis] in _UNKNOWN]


def _check_projection(planes: int, projection: Projection | None) -> None:
    if projection is None:
        raise ImageReadError(
            f"a z-stack of {planes} planes; say how they become one: -s data.projection=max (or mean, or the number of a plane)"
        )
    if isinstance(projection, int) and not 0 <= projection < planes:
        raise ImageReadError(f"data.projection = {projection}, but the z-stack has {planes} planes, 0 to {planes - 1}")


def _check_total(shape: Sequence[int], axes: str, max_pixels: int) -> None:
    counted = [size for size, axis in zip(shape, axes, strict=True) if axis != "S" or size > 4]
    if math.prod(counted) > max_pixels:
        sizes = "x".join(str(size) for size in counted if size != 1)
        raise ImageReadError(f"too large: {sizes} pixels; at most {max_pixels:,} in all are opened (data.max_pixels)")
