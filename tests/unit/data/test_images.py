"""Every kind of file gives (height, width, channels); every broken one gives a short reason."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from coverslip.data.images import (
    Facts,
    ImageReadError,
    decode_image,
    has_colour,
    image_from_array,
    read_image,
    to_colour,
    to_grey,
)
from coverslip.errors import CoverslipError

random = np.random.default_rng(0)
GREY = random.integers(0, 256, (24, 36), dtype=np.uint8)
COLOUR = random.integers(0, 256, (24, 36, 3), dtype=np.uint8)
DEEP = random.integers(0, 65536, (24, 36), dtype=np.uint16)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize(("array", "mode"), [(GREY, "L"), (COLOUR, "RGB")])
def test_lossless_formats_keep_every_pixel(kind, array, mode):
    image, facts = decode_image(encoded(array, kind))
    assert np.array_equal(image.squeeze(), array)
    assert facts == Facts(kind, mode, 8, 24, 36)
    assert image.shape == (24, 36, 3 if mode == "RGB" else 1)


def test_webp_without_loss():
    image, facts = decode_image(encoded(COLOUR, "WEBP", lossless=True))
    assert np.array_equal(image, COLOUR)
    assert facts.format == "WEBP"


@pytest.mark.parametrize("array", [GREY, COLOUR])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_has_the_pixels_of_pillow(array, progressive):
    data = encoded(array, "JPEG", quality=80, progressive=progressive)
    assert np.array_equal(decode_image(data)[0].squeeze(), np.asarray(Image.open(io.BytesIO(data))))


def test_cmyk_jpeg_becomes_rgb():
    data = encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG")
    image, facts = decode_image(data)
    assert np.array_equal(image, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert facts.mode == "CMYK"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_grey_is_never_clipped(kind):
    image, facts = decode_image(encoded(DEEP, kind))
    assert image.dtype == np.uint16
    assert np.array_equal(image[..., 0], DEEP)
    assert (facts.mode, facts.bits) == ("I;16", 16)


def test_deep_colour_is_kept():
    deep = random.integers(0, 65536, (24, 36, 3), dtype=np.uint16)
    for data in (imagecodecs.png_encode(deep), tiff(deep, photometric="rgb")):
        image, facts = decode_image(data)
        assert np.array_equal(image, deep)
        assert (facts.mode, facts.bits) == ("RGB", 16)


def test_one_bit_becomes_black_and_white():
    source = Image.fromarray(GREY).convert("1")
    for kind in ("PNG", "TIFF", "BMP"):
        image, facts = decode_image(encoded(source, kind))
        assert np.array_equal(image[..., 0], np.asarray(source) * np.uint8(255)), kind
        assert (facts.mode, facts.bits) == ("1", 1)


def test_palette_with_a_transparent_entry():
    source = Image.new("P", (2, 2))
    source.putpalette([10, 20, 30, 200, 100, 50])
    source.putdata([0, 1, 1, 0])
    image, facts = decode_image(encoded(source, "PNG", transparency=0), background="#00ff00")
    assert image.tolist() == [[[0, 255, 0], [200, 100, 50]], [[200, 100, 50], [0, 255, 0]]]
    assert facts.mode == "P"


def test_transparent_pixels_show_the_background():
    alpha = random.integers(0, 256, (24, 36), dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    image, facts = decode_image(encoded(np.dstack([COLOUR, alpha]), "PNG"), background="#204060")
    share = alpha[..., None] / 255
    expected = COLOUR * share + np.array([0x20, 0x40, 0x60]) * (1 - share)
    assert np.abs(image - expected).max() <= 0.5 + 1e-9
    assert (image[0] == [0x20, 0x40, 0x60]).all()
    assert np.array_equal(image[1], COLOUR[1])
    assert facts.mode == "RGBA"


def test_grey_with_transparency_stays_grey():
    source = Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (36, 24), 0)])
    image, facts = decode_image(encoded(source, "PNG"))
    assert image.shape == (24, 36, 1)
    assert (image == 255).all()
    assert facts.mode == "LA"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_that_of_pillow(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(COLOUR, kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    image, facts = decode_image(data)
    assert np.array_equal(image, expected)
    assert (facts.height, facts.width) == expected.shape[:2]


def test_tiff_variants():
    assert np.array_equal(decode_image(tiff(GREY, photometric="miniswhite"))[0][..., 0], 255 - GREY)
    planes = np.ascontiguousarray(COLOUR.transpose(2, 0, 1))
    assert np.array_equal(decode_image(tiff(planes, photometric="rgb", planarconfig="separate"))[0], COLOUR)
    for compression in ("lzw", "deflate"):
        assert np.array_equal(decode_image(tiff(COLOUR, photometric="rgb", compression=compression))[0], COLOUR)
    assert np.array_equal(decode_image(tiff(COLOUR, photometric="rgb", tile=(16, 16)))[0], COLOUR)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is text, not pixels", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
        (encoded(COLOUR, "PNG")[:-200], "truncated"),
        (encoded(COLOUR, "PNG")[:-6], "truncated"),
        (encoded(COLOUR, "JPEG")[:-200], "truncated"),
        (encoded(COLOUR, "TIFF")[:-200], "truncated"),
        (encoded(COLOUR, "BMP")[:-200], "truncated"),
        (encoded(GREY[:1, :1], "PNG"), "too small: 1x1"),
        (encoded(GREY[:1], "PNG"), "too small: 1x36"),
        (tiff(np.stack([GREY] * 3), photometric="minisblack"), "3 pages"),
        (tiff(GREY.astype(np.float32)), "float32"),
        (tiff(GREY.astype(np.uint32)), "uint32"),
        (tiff(np.dstack([GREY] * 5), photometric="minisblack", planarconfig="contig"), "5 channels"),
        (encoded(Image.fromarray(GREY), "PNG", save_all=True, append_images=[Image.fromarray(255 - GREY)]), "animated"),
        (encoded(Image.fromarray(COLOUR), "WEBP", save_all=True, append_images=[Image.fromarray(255 - COLOUR)]), "animated"),
    ],
)
def test_what_is_not_read_says_why(data, reason):
    with pytest.raises(ImageReadError, match=reason) as caught:
        decode_image(data)
    assert isinstance(caught.value, CoverslipError)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 200


def test_damage_in_the_middle_is_an_error_or_an_image_and_never_a_crash():
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        whole = encoded(COLOUR, kind)
        for place in range(0, len(whole), max(1, len(whole) // 60)):
            broken = bytearray(whole)
            broken[place] ^= 0x5A
            try:
                image, _ = decode_image(bytes(broken), max_pixels=1_000_000)
            except ImageReadError:
                continue
            assert image.ndim == 3


def test_size_is_bounded_before_decoding():
    header = bytearray(encoded(GREY, "PNG"))
    header[16:24] = (20_000).to_bytes(4, "big") * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageReadError, match=r"too large: 20000x20000.*100,000,000.*data.max_pixels"):
            decode_image(bytes(header))
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        with pytest.raises(ImageReadError, match="too large: 24x36"):
            decode_image(encoded(COLOUR, kind), max_pixels=24 * 36 - 1)
        assert decode_image(encoded(COLOUR, kind), max_pixels=24 * 36)[0].shape == (24, 36, 3)


def test_read_image_from_disk(tmp_path):
    (tmp_path / "wrong_suffix.jpg").write_bytes(encoded(GREY, "PNG"))
    image, facts = read_image(tmp_path / "wrong_suffix.jpg")
    assert facts.format == "PNG"
    assert np.array_equal(image[..., 0], GREY)
    with pytest.raises(ImageReadError, match="cannot be opened: no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageReadError, match="cannot be opened"):
        read_image(tmp_path)


def test_file_too_large_for_its_bound_is_not_read(tmp_path):
    with (tmp_path / "huge.png").open("wb") as stream:
        stream.truncate(70_000_000)
    with pytest.raises(ImageReadError, match="too large"):
        read_image(tmp_path / "huge.png", max_pixels=1000)


def test_decoding_in_threads_gives_the_same():
    files = [encoded(COLOUR, kind) for kind in ("PNG", "JPEG", "TIFF")] * 10
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda data: decode_image(data)[0], files))
    for data, image in zip(files, images, strict=True):
        assert np.array_equal(image, decode_image(data)[0])


def test_arrays():
    for array in (GREY, GREY[..., None], DEEP):
        assert image_from_array(array).shape == (24, 36, 1)
    assert np.array_equal(image_from_array(COLOUR), COLOUR)
    assert (image_from_array(np.zeros((4, 4, 4), np.uint8), background="#010203") == [1, 2, 3]).all()
    assert (image_from_array(np.zeros((4, 4, 4), np.uint16), background="#ff00ff") == [65535, 0, 65535]).all()
    for wrong in (GREY.astype(np.float32), GREY[:, :, None].repeat(2, 2), GREY[0], GREY[:1]):
        with pytest.raises(ImageReadError):
            image_from_array(wrong)


def test_luma_is_rounded_once():
    exact = COLOUR.astype(np.int64) @ np.array([299, 587, 114])
    assert np.array_equal(to_grey(COLOUR)[..., 0], (exact + 500) // 1000)
    deep = random.integers(0, 65536, (24, 36, 3), dtype=np.uint16)
    assert np.array_equal(to_grey(deep)[..., 0], (deep.astype(np.int64) @ np.array([299, 587, 114]) + 500) // 1000)
    same = to_colour(GREY[..., None], 3)
    assert np.array_equal(to_colour(same, 1)[..., 0], GREY)
    assert to_colour(COLOUR, 3) is COLOUR
    assert not has_colour(same)
    assert has_colour(COLOUR)
    same[3, 5, 1] ^= 1
    assert has_colour(same)
