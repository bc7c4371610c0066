"""From the bytes of a file, or an array, to pixels: (height, width, channels), as deep as the file has them.

The format is told by the first bytes, never by the suffix. Sizes are read from the header and checked before anything is
decoded. PNG and JPEG are decoded by imagecodecs, with the pixels of Pillow in a third to half of its time; TIFF by tifffile;
the rest by Pillow. All of them release the interpreter lock, so that a pool of threads decodes in parallel.
"""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from kornia_rs.io import decode_image_png_u8
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, WebPImagePlugin

from coverslip.data.decoding import BROKEN, Decoded, ImageReadError, PixelArray, Projection, check_size, pillow_pixels
from coverslip.data.tiff import read_tiff
from coverslip.errors import MissingInputError, UnreachableError
from coverslip.storage import URL, read
from coverslip.structures import File

_Array = npt.NDArray[Any]

IMAGE_SUFFIXES = frozenset({".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 100_000_000
SMALLEST_SIDE = 2
LUMA = (0.299, 0.587, 0.114)

_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_PLAIN_PNG = {0: "mono", 2: "rgb", 6: "rgba"}
_ORIENTATION = 0x0112


def read_bytes(file: File, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of a file that can hold an image of at most `max_pixels`.

    Raises:
        ImageReadError: the file cannot be opened, or is larger than such an image can be.
        UnreachableError: a store does not answer.
    """
    most = 64_000_000 + 8 * max_pixels
    try:
        if isinstance(file, URL):
            return read(file, most=most)
        size = file.stat().st_size if isinstance(file, Path) else 0
        if size > most:
            raise ImageReadError(f"too large: {size / 1e9:.1f} GB; {max_pixels:,} pixels (data.max_pixels) fit into {most / 1e9:.1f} GB")
        return file.read_bytes()
    except UnreachableError:
        raise
    except MissingInputError as error:
        raise ImageReadError(f"cannot be opened: {error}") from error
    except OSError as error:
        raise ImageReadError(f"cannot be opened: {(error.strerror or str(error)).lower()}") from error


class Fetched:
    """A file whose bytes are here already."""

    def __init__(self, file: File, max_pixels: int) -> None:
        self.name, self.suffix = file.name, file.suffix
        self._data = read_bytes(file, max_pixels)

    def read_bytes(self) -> bytes:
        """What was read."""
        return self._data


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, projection: Projection | None = None) -> Decoded:
    """Decode the bytes of one image file.

    Args:
        data: a JPEG, PNG, BMP, WebP or TIFF file.
        max_pixels: largest height x width (x channels x planes, in a stack) that is decoded.
        projection: how the planes of a z-stack become one.

    Returns:
        Grey, grey with alpha, RGB, RGBA or named channels; upright.

    Raises:
        ImageReadError: no image, truncated, too large, too small, or of a kind that is not read.
    """
    decoder = _decoder_of(data)
    try:
        decoded = _upright(decoder(data, max_pixels) if decoder is not None else read_tiff(data, max_pixels, projection))
    except ImageReadError:
        raise
    except BROKEN as error:
        raise ImageReadError(_reason(error)) from error
    if min(decoded.pixels.shape[:2]) < SMALLEST_SIDE:
        raise ImageReadError(f"too small: {decoded.pixels.shape[0]}x{decoded.pixels.shape[1]} pixels")
    return decoded


def over_background(image: _Array, background: str) -> PixelArray:
    """Put the transparent pixels of (h, w, 2 or 4) over a colour `#rrggbb`, rounded to nearest.

    What has none stays as it is: (h, w, 1 or 3), and the first planes of an opaque image, which are no copy of it.
    """
    if image.shape[2] in (1, 3):
        return np.ascontiguousarray(image)
    if _is_opaque(image):
        return image[..., :-1]
    alpha, full = image[..., -1], int(np.iinfo(image.dtype).max)
    colour = image[..., :-1].copy()
    see_through = alpha != full
    base = np.array([int(background[i : i + 2], 16) for i in (1, 3, 5)], np.uint8).astype(image.dtype) * np.array(full // 255, image.dtype)
    base = to_colour(base[None, None], colour.shape[2])[0, 0].astype(np.uint32)
    share = alpha[see_through].astype(np.uint32)[:, None]
    colour[see_through] = (colour[see_through] * share + base * (full - share) + full // 2) // full
    return colour


def _is_opaque(image: _Array) -> bool:
    """Whether the last channel is full everywhere. A bytewise AND over whole RGBA pixels is four times as fast as a strided one."""
    if image.dtype == np.uint8 and image.shape[2] == 4 and image.flags.c_contiguous:
        together = np.bitwise_and.reduce(image.view(np.uint32), axis=None)
        return bool(together.reshape(1).view(np.uint8)[3] == 255)
    return bool(image[..., -1].min() == np.iinfo(image.dtype).max)


def to_grey(image: _Array) -> PixelArray:
    """ITU-R 601 luma of three channels, the mean of other numbers; grey stays as it is.

    Computed in floating point and, for integers, rounded once, halves up.

    Args:
        image: uint8, uint16 or float32 (h, w, c).

    Returns:
        The same dtype, (h, w, 1).
    """
    channels = image.shape[2]
    if channels == 1:
        return image
    kind = np.float64 if image.dtype == np.uint16 else np.float32
    luma: _Array = image.astype(kind) @ np.array(LUMA if channels == 3 else (1 / channels,) * channels, kind)
    if image.dtype.kind == "f":
        return luma[..., None]
    grey: PixelArray = (luma + kind(0.5001))[..., None].astype(image.dtype)
    return grey


def to_colour(image: _Array, channels: int) -> PixelArray:
    """Grey to RGB by copying, RGB to grey by `to_grey`; (h, w, 1 or 3) to (h, w, channels)."""
    if image.shape[2] == channels:
        return image
    return to_grey(image) if channels == 1 else np.repeat(image, 3, axis=2)


def has_colour(image: _Array) -> bool:
    """Whether any pixel of (h, w, 1 or 3) is other than grey; channels that are not RGB have no colour."""
    if image.shape[2] != 3:
        return False
    return _differs(image[::8, ::8]) or _differs(image)


def _differs(image: _Array) -> bool:
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    return not (np.array_equal(red, green) and np.array_equal(green, blue))


_Decoder = Callable[[bytes, int], Decoded]


def _decoder_of(data: bytes) -> _Decoder | None:
    """What decodes these bytes; None for TIFF, which alone can hold stacks."""
    if not data:
        raise ImageReadError("the file is empty")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _decode_png
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return None
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _decode_webp
    if data.startswith(b"BM"):
        return _decode_bmp
    raise ImageReadError("not an image: the content is none of JPEG, PNG, BMP, WebP and TIFF")


def _decode_png(data: bytes, max_pixels: int) -> Decoded:
    width, height, bits, colour, interlaced = struct.unpack(">IIBBxxB", data[16:29])
    check_size(height, width, max_pixels)
    orientation, plain = 1, bits == 8 and not interlaced
    for name, content in _png_chunks(data):
        plain = plain and name != b"tRNS"
        if name == b"acTL":
            raise ImageReadError("an animated PNG; only single images are read")
        if name == b"eXIf":
            exif = Image.Exif()
            exif.load(content)
            orientation = exif.get(_ORIENTATION, 1)
    mode = "1" if bits == 1 and colour == 0 else "I;16" if bits == 16 and colour == 0 else _PNG_MODES[colour]
    pixels = _plain_png(data, height, width, colour) if plain else None
    return Decoded(imagecodecs.png_decode(data) if pixels is None else pixels, "PNG", mode, bits, orientation=orientation)


def _plain_png(data: bytes, height: int, width: int, colour: int) -> _Array | None:
    """The pixels of a PNG file of the most common kinds in half of libpng's time, uint8 (h, w, c); None where libpng is to have its say.

    The library lets no other thread of Python run meanwhile: it is for processes that read in their one thread.
    """
    if colour not in _PLAIN_PNG or threading.current_thread() is not threading.main_thread():
        return None
    try:
        return np.asarray(decode_image_png_u8(data, (height, width), _PLAIN_PNG[colour]))
    except Exception:  # noqa: BLE001 - the library has no errors of its own
        return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk; pixels (IDAT) without their content."""
    place = 8
    while place + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        if place + 12 + length > len(data):
            break
        yield name, b"" if name == b"IDAT" else data[place + 8 : place + 8 + length]
        if name == b"IEND":
            return
        place += 12 + length
    raise ImageReadError("the file is truncated")


def _decode_jpeg(data: bytes, max_pixels: int) -> Decoded:
    header = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    check_size(header.height, header.width, max_pixels)
    whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")  # the last scan is closed; libjpeg alone would fill up with grey
    if whole and header.mode in ("L", "RGB"):
        orientation = header.getexif().get(_ORIENTATION, 1)
        return Decoded(imagecodecs.jpeg8_decode(data), "JPEG", header.mode, 8, orientation=orientation)
    return _decode_by_pillow(header, max_pixels)


def _decode_webp(data: bytes, max_pixels: int) -> Decoded:
    header = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    if getattr(header, "n_frames", 1) > 1:
        raise ImageReadError("an animated WebP; only single images are read")
    return _decode_by_pillow(header, max_pixels)


def _decode_bmp(data: bytes, max_pixels: int) -> Decoded:
    return _decode_by_pillow(BmpImagePlugin.BmpImageFile(io.BytesIO(data)), max_pixels)


def _decode_by_pillow(header: ImageFile.ImageFile, max_pixels: int) -> Decoded:
    """Decode by the plugin's own class: `Image.open` would set its own bound on sizes, and warn."""
    check_size(header.height, header.width, max_pixels)
    kind, mode, orientation = header.format or "", header.mode, header.getexif().get(_ORIENTATION, 1)
    return Decoded(pillow_pixels(header), kind, mode, 1 if mode == "1" else 8, orientation=orientation)


def _upright(decoded: Decoded) -> Decoded:
    """Apply the EXIF orientation and give every image three axes."""
    image, orientation = decoded.pixels, decoded.orientation
    image = image[..., None] if image.ndim == 2 else image
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return replace(decoded, pixels=image, orientation=1)


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if any(sign in text for sign in ("truncated", "too small", "end of stream", "not enough image data", "Truncated")):
        return "the file is truncated"
    return f"cannot be decoded: {text[:120]}"
