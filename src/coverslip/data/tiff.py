"""TIFF files of one image: 8 and 16 bit, grey, palette and RGB, with or without transparency."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from coverslip.data.decoding import ImageReadError, check_size, pillow_pixels

_Array = npt.NDArray[Any]

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = 0, 1, 2, 3
_PREMULTIPLIED, _STRAIGHT = 1, 2
_SEPARATE = 2
_ORIENTATION = 274


def read_tiff(data: bytes, max_pixels: int) -> tuple[_Array, str, int, int]:
    """Decode a TIFF file of one page.

    Returns:
        uint8 or uint16 (h, w) or (h, w, 2 to 4), mode in Pillow's words, bits of a channel, EXIF orientation.

    Raises:
        ImageReadError: several pages, floating-point or 32-bit pixels, channels that are not declared, a truncated file.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = [page for page in file.pages if not page.keyframe.is_reduced]
        if len(pages) != 1:
            raise ImageReadError(f"a TIFF of {len(pages)} pages (a stack or a series); only single images are read in this version")
        page = pages[0].keyframe
        _check_page(page, len(data), max_pixels)
        orientation = page.tags.valueof(_ORIENTATION, default=1)
        if page.photometric > _PALETTE:
            image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
            return pillow_pixels(image), image.mode, page.bitspersample, 1  # Pillow applies the orientation of a TIFF itself
        pixels, mode = _pixels(page)
    return pixels, mode, page.bitspersample, orientation


def _check_page(page: Any, size: int, max_pixels: int) -> None:
    check_size(page.imagelength, page.imagewidth, max_pixels)
    if page.imagedepth != 1:
        raise ImageReadError(f"a TIFF volume of {page.imagedepth} planes; only single images are read in this version")
    if page.dtype is None or page.dtype.kind not in "ub" or page.dtype.itemsize > 2:
        kind = "unknown" if page.dtype is None else page.dtype.name
        raise ImageReadError(f"{kind} pixels; 8-bit and 16-bit unsigned integers are read in this version, save the image as one of them")
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > size:
        raise ImageReadError("the file is truncated")


def _pixels(page: Any) -> tuple[_Array, str]:
    planes: _Array = page.asarray(maxworkers=1).reshape(page.shaped)[:, 0]  # (separate planes, height, width, interleaved channels)
    pixels: _Array = np.moveaxis(planes[..., 0], 0, -1) if page.planarconfig == _SEPARATE else planes[0]
    bits = page.bitspersample
    if page.photometric == _PALETTE:
        return _from_palette(pixels[..., 0], page.colormap), "P"
    if bits < 8:
        pixels = pixels.astype(np.uint8) * np.uint8(255 // ((1 << bits) - 1))
    if page.photometric == _WHITE_IS_ZERO:
        pixels = np.invert(pixels)
    return _with_known_alpha(pixels, page), _mode(page, pixels)


def _mode(page: Any, pixels: _Array) -> str:
    if page.photometric == _RGB:
        return "RGBA" if pixels.shape[-1] == 4 else "RGB"
    if pixels.shape[-1] == 2:
        return "LA"
    return "1" if page.bitspersample == 1 else "I;16" if pixels.dtype == np.uint16 else "L"


def _from_palette(index: _Array, palette: _Array) -> _Array:
    table = palette.T if palette.max() < 256 else palette.T >> 8
    colours: _Array = table.astype(np.uint8)[index]
    return colours


def _with_known_alpha(pixels: _Array, page: Any) -> _Array:
    """Straight alpha from what the file declares.

    Raises:
        ImageReadError: a number of channels, or a meaning, that is not read.
    """
    colours = 3 if page.photometric == _RGB else 1
    extra = tuple(int(kind) for kind in page.extrasamples)
    if pixels.shape[-1] == colours:
        return pixels
    if pixels.shape[-1] != colours + 1 or extra not in ((_PREMULTIPLIED,), (_STRAIGHT,)):
        raise ImageReadError(f"a TIFF of {pixels.shape[-1]} channels; grey and RGB, with or without transparency, are read in this version")
    if extra == (_PREMULTIPLIED,):
        full = np.iinfo(pixels.dtype).max
        alpha = np.maximum(pixels[..., -1:].astype(np.uint32), 1)
        straight = np.minimum((pixels[..., :-1] * np.uint32(full) + alpha // 2) // alpha, full)
        return np.concatenate([straight.astype(pixels.dtype), pixels[..., -1:]], axis=-1)
    return pixels
