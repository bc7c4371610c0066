"""From the files of a sample to one image: grey, RGB, or the named channels that the config chooses."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from coverslip.config import DataConfig
from coverslip.data.bio import BIO_SUFFIXES, read_bio
from coverslip.data.decoding import Decoded, ImageReadError, PixelArray, Projection
from coverslip.data.images import MAX_PIXELS, SMALLEST_SIDE, decode_image, has_colour, over_background, read_bytes
from coverslip.errors import ConfigError, did_you_mean
from coverslip.runtime import hash_file
from coverslip.storage import local_copy
from coverslip.structures import Channel, File

TRACE = 0.02
"""Share of the brightest plane of RGB that the others together may hold in a file of one colour: what JPEG leaves of it."""
_PLAIN_NAMES = {1: ("grey",), 3: ("red", "green", "blue")}


@dataclass(frozen=True)
class FileContent:
    """A file in memory, such as one that was uploaded.

    Attributes:
        name: what it is called; nothing of that name is opened.
        data: its bytes.
    """

    name: str
    data: bytes

    @property
    def suffix(self) -> str:
        """The ending of the name with its dot, or the empty string."""
        return PurePosixPath(self.name).suffix

    def read_bytes(self) -> bytes:
        """All of it."""
        return self.data


@dataclass(frozen=True)
class Facts:
    """What the files of a sample say of themselves.

    Attributes:
        sha256: of the bytes of the file; of the hashes of all files, one after the other, where there are several.
        format: `PNG`, `JPEG`, `BMP`, `WEBP`, `TIFF`, `CZI`, `ND2` or `LIF`, told by the content.
        mode: the pixel mode in Pillow's words, e.g. `1`, `L`, `LA`, `P`, `RGB`, `RGBA`, `CMYK`, `I;16` (16-bit grey); of
            several channels such as `4 x uint16`, of several files such as `4 files of L`.
        bits: bits of a channel as stored.
        height: rows, in pixels, upright.
        width: columns, in pixels, upright.
    """

    sha256: str
    format: str
    mode: str
    bits: int
    height: int
    width: int


@dataclass(frozen=True)
class Reading:
    """How the files of a sample become one image.

    Attributes:
        background: colour under transparent pixels, `#rrggbb`.
        max_pixels: largest height x width (x channels x planes, in a stack) that is decoded.
        channels: those that are chosen, in order; none for grey and RGB images.
        projection: how the planes of a z-stack become one.
    """

    background: str = "#ffffff"
    max_pixels: int = MAX_PIXELS
    channels: tuple[Channel, ...] = ()
    projection: Projection | None = None

    @staticmethod
    def of(config: DataConfig) -> Reading:
        """As the config says."""
        return Reading(config.background, config.max_pixels, stated_channels(config), config.projection)

    def read(self, files: Sequence[File]) -> tuple[PixelArray, Facts]:
        """Read one sample.

        Args:
            files: one image file, on disk or in memory, or one for each of `channels`, in their order.

        Returns:
            uint8, uint16 or float32 (h, w, c), c = 1 (grey), 3 (RGB) or the number of channels; and what the files say.

        Raises:
            ImageReadError: a file cannot be used; where there are several, the channel is named.
        """
        if len(files) == 1:
            decoded, digest = self._decoded(files[0])
            return self._chosen(decoded), _facts([decoded], [digest])
        read = [self._plane(file, channel.name) for file, channel in zip(files, self.channels, strict=True)]
        planes = [plane for _, plane, _ in read]
        return np.concatenate(_alike(planes, self.channels), axis=2), _facts([one for one, _, _ in read], [digest for _, _, digest in read])

    def names_of(self, samples: Iterable[Sequence[File]]) -> tuple[str, ...]:
        """The channels of the first sample that can be read, when it holds other than grey or RGB and none were chosen.

        Channels without names, or with one that another has too, are called by their numbers from 0.
        """
        for files in samples if not self.channels else ():
            try:
                names = self._decoded(files[0])[0].names
            except ImageReadError:
                continue
            return _distinct(names)
        return ()

    def of_array(self, array: npt.NDArray[Any]) -> PixelArray:
        """Bring an image in memory into the form of `read`.

        Args:
            array: uint8 or uint16 (h, w), (h, w, 1), (h, w, 3) RGB or (h, w, 4) RGBA; with channels uint8, uint16 or
                float32 (h, w, channels), in their order.

        Raises:
            ImageReadError: another dtype or shape.
        """
        found = f"an array of {array.dtype} with shape {array.shape}"
        image = array[..., None] if array.ndim == 2 else array
        depths = (np.uint8, np.uint16, np.float32) if self.channels else (np.uint8, np.uint16)
        if array.dtype not in depths:
            scaled = "; from 0 to 1 it becomes that by (255 * image).round().astype('uint8')" if array.dtype.kind == "f" else ""
            raise ImageReadError(f"{found}; expected uint8 (0 to 255) or uint16 (0 to 65535) pixels{scaled}")
        if self.channels and (image.ndim != 3 or image.shape[2] != len(self.channels)):
            raise ImageReadError(f"{found}; expected (height, width, {len(self.channels)}): {_named(self.channels)}")
        if image.ndim != 3 or not (self.channels or image.shape[2] in (1, 3, 4)):
            raise ImageReadError(f"{found}; expected (height, width), or (height, width, channels) with 1, 3 or 4 channels")
        if min(image.shape[:2]) < SMALLEST_SIDE:
            raise ImageReadError(f"too small: {image.shape[0]}x{image.shape[1]} pixels")
        if image.dtype == np.float32 and not np.isfinite(image).all():
            raise ImageReadError("some pixels are NaN or infinite; replace them, for example by 0")
        return image if self.channels else over_background(image, self.background)

    def _decoded(self, file: File) -> tuple[Decoded, str]:
        """One file, upright, and the SHA-256 of its bytes."""
        if file.suffix.lower() in BIO_SUFFIXES:
            with local_copy(file) as path:
                try:
                    return read_bio(path, self.max_pixels, self.projection), hash_file(path)
                except ImageReadError as error:
                    if path is file:
                        raise
                    said = str(error)  # it may name the copy, which nobody asked for
                    raise ImageReadError(said.partition(":")[0] if tempfile.gettempdir() in said else said) from None
        data = read_bytes(file, self.max_pixels)
        decoded = decode_image(data, max_pixels=self.max_pixels, projection=self.projection)
        return decoded, hashlib.sha256(data).hexdigest()

    def _chosen(self, decoded: Decoded) -> PixelArray:
        """The channels of one file that are asked for."""
        if not self.channels:
            if decoded.names:
                raise ImageReadError(f"{_channels_of(decoded)}; choose by name: -s 'data.channels=[...]'")
            return over_background(decoded.pixels, self.background)
        pixels = decoded.pixels if decoded.names else over_background(decoded.pixels, self.background)
        names = decoded.names or _PLAIN_NAMES[pixels.shape[2]]
        if len(self.channels) == 1 and not decoded.names and self.channels[0].source not in names:
            plane = _only_plane(pixels)
            if plane is not None:
                return plane
        places = _places(names, self.channels, decoded)
        return pixels if places == list(range(pixels.shape[2])) else np.ascontiguousarray(pixels[..., places])

    def _plane(self, file: File, channel: str) -> tuple[Decoded, PixelArray, str]:
        """The file of one channel as (h, w, 1)."""
        try:
            decoded, digest = self._decoded(file)
            return decoded, _single_plane(decoded, self.background), digest
        except ImageReadError as error:
            raise ImageReadError(f"channel {channel!r}, {file.name}: {error}") from error


def stated_channels(config: DataConfig) -> tuple[Channel, ...]:
    """The channels that a config names, in its order; none when it names none.

    Raises:
        ConfigError: one channel is named twice.
    """
    named = config.channels.items() if isinstance(config.channels, dict) else [(name, name) for name in config.channels or ()]
    channels = tuple(Channel(name, source) for name, source in named)
    if len({channel.source for channel in channels}) < len(channels):
        raise ConfigError(f"data.channels names one channel twice: {', '.join(channel.source for channel in channels)}")
    return channels


def joint_hash(digests: Sequence[str]) -> str:
    """The SHA-256 of a sample from those of its files: that of its only file, or of all of them one after the other."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _facts(decoded: list[Decoded], digests: list[str]) -> Facts:
    first, modes = decoded[0], dict.fromkeys(one.mode for one in decoded)
    several = len(decoded) > 1
    return Facts(
        sha256=joint_hash(digests),
        format=first.format,
        mode=f"{len(decoded)} files of {', '.join(modes)}" if several else first.mode,
        bits=max(one.bits for one in decoded),
        height=first.pixels.shape[0],
        width=first.pixels.shape[1],
    )


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names of channels; the number from 0 where there is none, or another channel has the same."""
    return tuple(name if name and names.count(name) == 1 else str(place) for place, name in enumerate(names))


def _places(names: tuple[str, ...], channels: tuple[Channel, ...], decoded: Decoded) -> list[int]:
    """Where each channel stands in the file: by its name or its number from 0, else all in the file's order."""
    sources, distinct = [channel.source for channel in channels], _distinct(names)
    places = [_place(source, distinct) for source in sources]
    found = [place for place in places if place is not None]
    if len(found) == len(places):
        return found
    if len(sources) == len(names) and (len(names) == 1 or not any(names)):
        return list(range(len(names)))
    missing = next(source for source, place in zip(sources, places, strict=True) if place is None)
    if any(names):
        raise ImageReadError(f"no channel {missing!r}.{did_you_mean(missing, distinct)} It holds {_channels_of(decoded)}")
    raise ImageReadError(
        f"{_channels_of(decoded)}, but data.channels has {len(sources)} ({', '.join(sources)}); name all of them, in the file's order, "
        'or choose by number: { nucleus = "0" }'
    )


def _place(source: str, names: tuple[str, ...]) -> int | None:
    if source in names:
        return names.index(source)
    return int(source) if source.isdecimal() and int(source) < len(names) else None


def _channels_of(decoded: Decoded) -> str:
    names = decoded.names or _PLAIN_NAMES.get(decoded.pixels.shape[2], ())
    return f"{len(names)} channels, {', '.join(names)}" if any(names) else f"{len(names)} channels without names"


def _single_plane(decoded: Decoded, background: str) -> PixelArray:
    """(h, w, 1) of a file that is one channel: grey, or RGB of equal planes or of one plane that is not black."""
    if len(decoded.names) > 1:
        raise ImageReadError(f"{_channels_of(decoded)}, where one file a channel was expected")
    pixels = decoded.pixels if decoded.names else over_background(decoded.pixels, background)
    plane = _only_plane(pixels)
    if plane is None:
        raise ImageReadError("a colour image, where one grey plane was expected")
    return plane


def _only_plane(pixels: PixelArray) -> PixelArray | None:
    """(h, w, 1) of grey, of RGB with equal planes, or with hardly anything but one colour; None of any other image."""
    totals = pixels.sum(axis=(0, 1), dtype=np.float64)
    brightest = int(totals.argmax())
    if totals.sum() - totals[brightest] <= TRACE * totals[brightest] or not has_colour(pixels):
        return np.ascontiguousarray(pixels[..., brightest : brightest + 1])
    return None


def _alike(planes: list[PixelArray], channels: tuple[Channel, ...]) -> list[PixelArray]:
    """Planes of one size and depth.

    Raises:
        ImageReadError: sizes differ, or some are floating point and some are not.
    """
    first = planes[0]
    for plane, channel in zip(planes, channels, strict=True):
        if plane.shape != first.shape:
            raise ImageReadError(
                f"channel {channel.name!r} has {plane.shape[0]}x{plane.shape[1]} pixels, channel {channels[0].name!r} "
                f"{first.shape[0]}x{first.shape[1]}; all channels of a sample must have one size"
            )
        if (plane.dtype == np.float32) != (first.dtype == np.float32):
            raise ImageReadError(f"channel {channel.name!r} is {plane.dtype}, channel {channels[0].name!r} {first.dtype}; save them alike")
    deep = any(plane.dtype == np.uint16 for plane in planes)
    return [plane.astype(np.uint16) * np.uint16(257) if deep and plane.dtype == np.uint8 else plane for plane in planes]


def _named(channels: tuple[Channel, ...]) -> str:
    return ", ".join(channel.name for channel in channels)
