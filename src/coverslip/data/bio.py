"""CZI (Zeiss), ND2 (Nikon) and LIF (Leica) files of one image, by the packages of the extra `bio`.

They are read by czifile, nd2 and liffile, all BSD. (bioio wraps the last two; what it offers for CZI is GPL, so that a third package
would be needed beside it all the same.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import numpy.typing as npt

from coverslip.data.decoding import BROKEN, Decoded, ImageReadError, Projection
from coverslip.data.stacks import check_axes, check_kind, to_channels
from coverslip.runtime import require

_Array = npt.NDArray[Any]

BIO_SUFFIXES = frozenset({".czi", ".nd2", ".lif"})

_EXTRA = "bio"
_KNOWN_AXES = "TZCYXSPM"
_ZSTD, _ZSTD_WITH_HEADER = 5, 6


def read_bio(path: Path, max_pixels: int, projection: Projection | None = None) -> Decoded:
    """Read one CZI, ND2 or LIF file.

    Args:
        path: a file with one of `BIO_SUFFIXES`.
        max_pixels: most pixels over all planes and channels that are decoded; the samples of colour count as one.
        projection: how the planes of a z-stack become one.

    Returns:
        uint8, uint16 or float32 (h, w, c); the tiles of a mosaic are put together, channels have the names of the file.

    Raises:
        MissingExtraError: the package that reads this kind of file is not installed.
        ImageReadError: a broken file, several scenes, a z-stack without a projection, several time points.
    """
    kind = path.suffix.lower().removeprefix(".")
    reader = {"czi": _read_czi, "nd2": _read_nd2, "lif": _read_lif}[kind]
    module = require({"czi": "czifile", "nd2": "nd2", "lif": "liffile"}[kind], _EXTRA)
    errors = (*BROKEN, module.SegmentNotFoundError) if hasattr(module, "SegmentNotFoundError") else BROKEN
    try:
        return reader(module, path, max_pixels, projection)
    except ImageReadError:
        raise
    except errors as error:
        raise ImageReadError(_reason(error, kind.upper())) from error


def _reason(error: BaseException, kind: str) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened: {error.strerror.lower()}"
    lines = str(error).strip().splitlines()
    return f"not a whole {kind} file: {lines[0][:120] if lines else type(error).__name__}"


def _decoded(kind: str, stack: _Array, axes: str, names: Sequence[str], projection: Projection | None, max_pixels: int) -> Decoded:
    samples = dict(zip(axes, stack.shape, strict=True)).get("S", 1)
    pixels, names = to_channels(stack, axes, names, projection, max_pixels=max_pixels)
    bits = stack.dtype.itemsize * 8
    if samples in (3, 4):
        return Decoded(pixels, kind, "RGB" if samples == 3 else "RGBA", bits)
    if pixels.shape[-1] == 1:
        mode = {"uint8": "L", "uint16": "I;16"}.get(stack.dtype.name, "F" if stack.dtype.kind == "f" else "I")
        return Decoded(pixels, kind, mode, bits)
    return Decoded(pixels, kind, f"{pixels.shape[-1]} x {stack.dtype.name}", bits, tuple(names))


def _check(sizes: dict[str, int], dtype: np.dtype[Any], projection: Projection | None, max_pixels: int) -> str:
    """The axes as letters of `to_channels`, refused before anything is decoded; those it cannot know are called L."""
    axes = "".join(axis if axis in _KNOWN_AXES else "L" for axis in sizes)
    check_kind(dtype)
    check_axes(tuple(sizes.values()), axes, projection, max_pixels)
    return axes


def _check_scenes(count: int, kind: str) -> None:
    if count < 1:
        raise ImageReadError(f"not a whole {kind} file: there is no image in it")
    if count > 1:
        raise ImageReadError(f"a {kind} file of {count} scenes; save one scene a file")


# Nikon and Leica --------------------------------------------------------------------------------------------------------


def _read_nd2(nd2: Any, path: Path, max_pixels: int, projection: Projection | None) -> Decoded:
    with nd2.ND2File(path) as file:
        sizes = dict(file.sizes)
        _check_scenes(sizes.get("P", 1), "ND2")
        axes = _check(sizes, file.dtype, projection, max_pixels)
        names = _nd2_names(file)
        stack = file.asarray().reshape(tuple(sizes.values()))
        frames = stack.reshape(math.prod(size for axis, size in sizes.items() if axis not in "CYXS"), -1)
        if not frames.any(axis=1).all():  # what nd2 gives for a frame that it does not find
            raise ImageReadError("an ND2 file with a frame that is missing, or 0 everywhere")
        return _decoded("ND2", stack, axes, names, projection, max_pixels)


def _nd2_names(file: Any) -> list[str]:
    try:
        return [channel.channel.name or "" for channel in file.metadata.channels or []]
    except (LookupError, NameError, TypeError, ValueError, AttributeError):
        return []  # nd2 stumbles over descriptions that leave out, say, the dye; the pixels are good all the same


def _read_lif(liffile: Any, path: Path, max_pixels: int, projection: Projection | None) -> Decoded:
    with liffile.LifFile(path) as file:
        images = list(file.images)
        _check_scenes(len(images), "LIF")
        image = images[0]
        sizes = dict(image.sizes)
        axes = _check(sizes, image.dtype, projection, max_pixels)
        return _decoded("LIF", image.asarray(), axes, _lif_names(image.xml_element), projection, max_pixels)


def _lif_names(element: ElementTree.Element) -> list[str]:
    """The dyes of the channels, else their colours; none where two are the same."""
    names = list[str]()
    for channel in element.iterfind("./Data/Image/ImageDescription/Channels/ChannelDescription"):
        known = {item.findtext("Key"): item.findtext("Value") for item in channel.iterfind("ChannelProperty")}
        names.append(known.get("DyeName") or channel.get("LUTName") or "")
    return names if len(set(names)) == len(names) else []


# Zeiss ------------------------------------------------------------------------------------------------------------------


def _read_czi(czifile: Any, path: Path, max_pixels: int, projection: Projection | None) -> Decoded:
    with czifile.CziFile(path) as file:
        if not hasattr(file, "scenes"):  # the czifile of Python 3.11
            stack, axes = _stack_of_blocks(file, projection, max_pixels)
            names = _czi_names(file.metadata() if file.header.metadata_position else None)
            return _decoded("CZI", stack, axes, names, projection, max_pixels)
        names = _czi_names(file.metadata())
        _check_scenes(len(file.scenes), "CZI")
        image = next(iter(file.scenes.values()))
        axes = _check(dict(image.sizes), image.dtype, projection, max_pixels)
        return _decoded("CZI", image.asarray(maxworkers=1), axes, names, projection, max_pixels)


def _czi_names(metadata: str | None) -> list[str]:
    if not metadata:
        return []
    channels = ElementTree.fromstring(metadata).iterfind("./Metadata/Information/Image/Dimensions/Channels/Channel")
    return [channel.get("Name", "") for channel in channels]


def _stack_of_blocks(file: Any, projection: Projection | None, max_pixels: int) -> tuple[_Array, str]:
    """Put the blocks (tiles of single planes) of a CZI file in their places.

    The czifile of Python 3.11 can do so too, but leaves out, with no more than a warning, the blocks that it cannot decode.
    """
    _check_scenes(min(1, file.header.directory_position), "CZI")
    blocks = [entry for entry in file.subblock_directory if entry.shape == entry.stored_shape]  # the others are smaller copies
    _check_scenes(min(1, len(blocks)), "CZI")
    starts = np.array([block.start for block in blocks])
    low, high = starts.min(axis=0), np.max(starts + [block.shape for block in blocks], axis=0)
    sizes = dict(zip(blocks[0].axes, (high - low).tolist(), strict=True))
    _check_scenes(sizes.pop("S", 1), "CZI")
    sizes = {"S" if axis == "0" else axis: size for axis, size in sizes.items()}
    axes = _check(sizes, file.dtype, projection, max_pixels)
    planes = math.prod(size for axis, size in sizes.items() if axis not in "YXS")
    outer = [place for place, axis in enumerate(blocks[0].axes) if axis not in "YX0"]
    if len(np.unique(starts[:, outer], axis=0)) < planes:
        raise ImageReadError(f"a CZI file in which some of {planes} planes are missing")
    stack = np.zeros((high - low).tolist(), file.dtype)
    for block, start in zip(blocks, starts - low, strict=True):
        place = tuple(slice(first, first + size) for first, size in zip(start.tolist(), block.shape, strict=True))
        stack[place] = _block_pixels(block)
    return stack.reshape(tuple(sizes.values())), axes


def _block_pixels(block: Any) -> _Array:
    segment = block.data_segment()
    if block.compression not in (_ZSTD, _ZSTD_WITH_HEADER):
        return np.asarray(segment.data(resize=False))
    data, is_split = segment.data(raw=True), False
    if block.compression == _ZSTD_WITH_HEADER:
        header = data[0]  # bytes, with this one; 1 or 3
        is_split = header == 3 and bool(data[2] & 1)
        data = data[header:]
    dtype = np.dtype(block.dtype).base
    size = math.prod(block.stored_shape) * dtype.itemsize
    values = np.frombuffer(imagecodecs.zstd_decode(data, out=size), np.uint8)
    if is_split:  # first all the low bytes, then all the high ones
        values = np.ascontiguousarray(values.reshape(2, -1).T)
    pixels = values.reshape(-1).view(dtype).reshape(block.stored_shape)
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(pixels.shape[-1])  # blue comes first
    return np.asarray(pixels if order is None else pixels[..., order])
