"""TIFF files of one image: grey, palette, RGB, or any number of channels; z-stacks are projected to one plane.

Pages that belong together are found by tifffile: plain pages, ImageJ hyperstacks, OME-TIFF, LSM, STK. Nothing is decoded before
the sizes are checked and all the pixels are known to be in the file.
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from coverslip.data.decoding import Decoded, ImageReadError, Projection, check_size, pillow_pixels
from coverslip.data.stacks import as_pixels, check_axes, check_kind, to_channels

_Array = npt.NDArray[Any]

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = 0, 1, 2, 3
_PREMULTIPLIED, _STRAIGHT = 1, 2
_SEPARATE = 2
_ORIENTATION = 274
_MOST_TAGS = 4096  # of one page, for tifffile
_TRUNCATED = "the file is truncated"


def read_tiff(data: bytes, max_pixels: int, projection: Projection | None = None) -> Decoded:
    """Decode a TIFF file of one image.

    Args:
        data: the bytes of the file.
        max_pixels: most pixels over all planes and channels that are decoded; the samples of colour count as one.
        projection: how the planes of a z-stack become one. Pages of unknown meaning are z planes where it is given, else channels.

    Returns:
        uint8, uint16 or float32 (h, w, c), without the orientation applied. Floating-point, signed and 32-bit values become
        float32, not scaled. Channels have the names of OME-XML or of ImageJ's labels.

    Raises:
        ImageReadError: several images that do not belong together, a z-stack without a projection, several time points, an
            OME-XML whose images are in other files, a truncated file.
    """
    import tifffile

    _check_chain(data)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = [page for page in file.pages if not page.keyframe.is_reduced]
            if len(pages) == 1 and not _holds_planes(file, pages[0].keyframe):
                return _read_page(file, pages[0].keyframe, data, max_pixels)
            return _read_stack(file, len(data), max_pixels, projection)
    except AssertionError as error:  # of tifffile
        raise ImageReadError("the file is damaged: its pages contradict each other") from error


def _check_chain(data: bytes) -> None:
    """Refuse a file that lost pages: tifffile reads the rest without a word."""
    order, is_big = "<" if data[:2] == b"II" else ">", b"+" in data[2:4]
    offset_format, count_format, tag_size = (f"{order}Q", f"{order}Q", 20) if is_big else (f"{order}I", f"{order}H", 12)
    seen = set[int]()
    try:
        (page,) = struct.unpack_from(offset_format, data, 8 if is_big else 4)
        while page and page not in seen:
            seen.add(page)
            (tags,) = struct.unpack_from(count_format, data, page)
            if not 0 < tags <= _MOST_TAGS:
                raise ImageReadError("the file is damaged: its list of pages leads astray")
            (page,) = struct.unpack_from(offset_format, data, page + struct.calcsize(count_format) + tags * tag_size)
    except (struct.error, OverflowError) as error:
        raise ImageReadError(_TRUNCATED) from error


def _holds_planes(file: Any, page: Any) -> bool:
    """Whether the only page of a file stands for several images, stored one after the other."""
    if page.imagedepth > 1 or file.is_lsm or file.is_stk:
        return True
    if not (file.is_imagej or file.is_shaped):
        return False
    _check_imagej(file)
    return bool(math.prod(file.series[0].get_shape(squeeze=False)) > math.prod(page.shaped))


def _check_imagej(file: Any) -> None:
    """Refuse an ImageJ stack of which tifffile would read the first image only, because the others are not whole."""
    images = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    if file.series[0].kind == "generic" and images > len(file.pages):
        raise ImageReadError(_TRUNCATED)


# One page ---------------------------------------------------------------------------------------------------------------


def _read_page(file: Any, page: Any, data: bytes, max_pixels: int) -> Decoded:
    check_size(page.imagelength, page.imagewidth, max_pixels)
    check_kind(page.dtype)
    _check_bytes(page, len(data))
    if page.photometric > _PALETTE:
        return _read_by_pillow(page, data)
    axes = "YXS" if page.photometric == _RGB else "YXC"
    check_axes((page.imagelength, page.imagewidth, page.samplesperpixel), axes, None, max_pixels)
    planes: _Array = page.asarray(maxworkers=1).reshape(page.shaped)[:, 0]  # (separate planes, height, width, interleaved channels)
    pixels: _Array = np.moveaxis(planes[..., 0], 0, -1) if page.planarconfig == _SEPARATE else planes[0]
    if page.photometric == _PALETTE:
        return Decoded(_from_palette(pixels[..., 0], page.colormap), "TIFF", "P", page.bitspersample, (), _orientation(page))
    pixels = as_pixels(_intensities(page, pixels))
    return _decoded(page, pixels, page.photometric == _RGB, _names(file, pixels.shape[-1]))


def _check_bytes(page: Any, size: int) -> None:
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > size:
        raise ImageReadError(_TRUNCATED)


def _read_by_pillow(page: Any, data: bytes) -> Decoded:
    if page.dtype.kind not in "ub" or page.dtype.itemsize > 2:
        raise ImageReadError(f"{page.dtype.name} pixels of {_photometric(page)}; save the image as grey or RGB")
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    pixels, mode = pillow_pixels(image), image.mode
    return Decoded(pixels if pixels.ndim == 3 else pixels[..., None], "TIFF", mode, page.bitspersample)  # Pillow turns it upright itself


def _intensities(page: Any, pixels: _Array) -> _Array:
    """Full range for fewer than 8 bits, and black as 0."""
    if page.bitspersample < 8:
        pixels = pixels.astype(np.uint8) * np.uint8(255 // ((1 << page.bitspersample) - 1))
    if page.photometric == _WHITE_IS_ZERO and pixels.dtype in (np.uint8, np.uint16):
        return np.invert(pixels)  # other numbers have no white to count from
    return pixels


def _from_palette(index: _Array, palette: _Array) -> _Array:
    table = palette.T if palette.max() < 256 else palette.T >> 8
    colours: _Array = table.astype(np.uint8)[index]
    return colours


def _decoded(page: Any, pixels: _Array, is_colour: bool, names: tuple[str, ...]) -> Decoded:
    """Tell grey and colour, with or without transparency, from channels."""
    count, colours = pixels.shape[-1], 3 if is_colour else 1
    extra = tuple(int(kind) for kind in page.extrasamples)
    if count == colours + 1 and page.samplesperpixel == count and extra in ((_PREMULTIPLIED,), (_STRAIGHT,)):
        mode, names = "RGBA" if is_colour else "LA", ()
        pixels = _straight(pixels) if extra == (_PREMULTIPLIED,) else pixels
        if pixels.dtype == np.float32:
            raise ImageReadError(f"{page.dtype.name} pixels with transparency; save the image without it")
    elif count == colours:
        mode, names = "RGB" if is_colour else _grey_mode(page), ()
    else:
        mode = f"{count} x {page.dtype.name}"
    return Decoded(pixels, "TIFF", mode, page.bitspersample, names, _orientation(page))


def _grey_mode(page: Any) -> str:
    if page.dtype in (np.bool_, np.uint8):
        return "1" if page.bitspersample == 1 else "L"
    return "I;16" if page.dtype == np.uint16 else "F" if page.dtype.kind == "f" else "I"


def _straight(pixels: _Array) -> _Array:
    """Premultiplied alpha to straight alpha, rounded to nearest."""
    if pixels.dtype == np.float32:
        return pixels
    full = np.iinfo(pixels.dtype).max
    alpha = np.maximum(pixels[..., -1:].astype(np.uint32), 1)
    straight = np.minimum((pixels[..., :-1] * np.uint32(full) + alpha // 2) // alpha, full)
    return np.concatenate([straight.astype(pixels.dtype), pixels[..., -1:]], axis=-1)


def _orientation(page: Any) -> int:
    return int(page.tags.valueof(_ORIENTATION, default=1))


def _photometric(page: Any) -> str:
    return f"photometric interpretation {getattr(page.photometric, 'name', page.photometric)}"


# Several planes ---------------------------------------------------------------------------------------------------------


def _read_stack(file: Any, size: int, max_pixels: int, projection: Projection | None) -> Decoded:
    _check_ome(file)
    _check_imagej(file)
    series = _only_series(file)
    page, shape, axes = series.keyframe, series.get_shape(squeeze=False), series.get_axes(squeeze=False)
    if page.photometric > _PALETTE or (page.photometric == _PALETTE and not (file.is_imagej or file.is_ome or file.is_lsm)):
        raise ImageReadError(f"a stack with {_photometric(page)}; save it as grey or RGB")
    length = dict(zip(axes, shape, strict=True))
    is_colour = page.photometric == _RGB and length.get("S", 1) >= 3
    axes = axes if is_colour else axes.replace("S", "C")
    check_kind(series.dtype)
    check_axes(shape, axes, projection, max_pixels)
    _check_whole(series, size)
    stack = _intensities(page, series.asarray(maxworkers=1).reshape(shape))
    count = max(length.get(axis, 1) for axis in "CSQI")
    pixels, names = to_channels(stack, axes, _names(file, count), projection, max_pixels=max_pixels)
    return _decoded(page, pixels, is_colour, names)


def _only_series(file: Any) -> Any:
    """The pages that belong together, without thumbnails and smaller copies.

    Raises:
        ImageReadError: several such series.
    """
    series = [each for each in file.series if not (each.keyframe.is_reduced or each.keyframe.is_subifd) and math.prod(each.shape)]
    if len(series) != 1:
        sizes = ", ".join("x".join(str(size) for size in each.shape) for each in series[:4])
        more = ", ..." if len(series) > 4 else ""
        raise ImageReadError(f"a TIFF of {len(series)} images that do not belong together ({sizes}{more}); save one image a file")
    if file.is_ome and series[0].kind == "generic" and _ome_root(file) is not None:
        raise ImageReadError("the OME-XML does not fit the pages of the file; save it again, or without OME-XML")
    return series[0]


def _check_whole(series: Any, size: int) -> None:
    """Refuse planes that are not in the file."""
    if series.dataoffset is not None:
        if series.dataoffset + math.prod(series.get_shape(squeeze=False)) * series.dtype.itemsize > size:
            raise ImageReadError(_TRUNCATED)
        return
    pages = list(series)
    missing = math.prod(series.get_shape(squeeze=False)) // math.prod(series.keyframe.shape) - sum(page is not None for page in pages)
    if missing > 0:
        raise ImageReadError(f"{_TRUNCATED}, or was never whole: {missing} planes that it describes are not in it")
    for page in pages:
        _check_bytes(page, size)


# Names ------------------------------------------------------------------------------------------------------------------


def _names(file: Any, count: int) -> tuple[str, ...]:
    """The names of the channels; `""` for each where the file does not give as many."""
    found = [""] * count
    if file.is_ome:
        found = _ome_names(file)
    elif file.is_imagej:
        labels = (file.imagej_metadata or {}).get("Labels") or []
        found = [str(label) for label in ([labels] if isinstance(labels, str) else labels)]
    return tuple(name.strip() for name in found) if len(found) == count else ("",) * count


def _ome_root(file: Any) -> ElementTree.Element | None:
    text = file.ome_metadata or ""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ImageReadError("the OME-XML declares a document type of its own, which is not read")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None


def _ome_names(file: Any) -> list[str]:
    root = _ome_root(file)
    pixels = None if root is None else root.find("{*}Image/{*}Pixels")
    return [] if pixels is None else [channel.get("Name", "") for channel in pixels.iterfind("{*}Channel")]


def _check_ome(file: Any) -> None:
    """Refuse an OME-TIFF of several files: tifffile would put zeros where the planes of the others belong."""
    root = _ome_root(file) if file.is_ome else None
    if root is None:
        return
    binary = root.find("{*}BinaryOnly")
    if binary is not None:
        raise ImageReadError(f"its OME-XML is in another file ({binary.get('MetadataFile', 'unnamed')}); save it as one file")
    own = root.get("UUID")
    others = [item for item in root.iterfind(".//{*}TiffData/{*}UUID") if item.text != own]
    if others:
        raise ImageReadError(f"its OME-XML refers to other files ({others[0].get('FileName', others[0].text)}); save it as one file")
