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

from coverslip.data.decoding import ImageReadError
from coverslip.data.images import decode_image, has_colour, over_background, read_bytes, to_colour, to_grey
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
    decoded = decode_image(encoded(array, kind))
    assert np.array_equal(decoded.pixels.squeeze(), array)
    assert (decoded.format, decoded.mode, decoded.bits, decoded.names) == (kind, mode, 8, ())
    assert decoded.pixels.shape == (24, 36, 3 if mode == "RGB" else 1)


PNG_KINDS = {
    "grey": lambda: Image.fromarray(GREY),
    "colour": lambda: Image.fromarray(COLOUR),
    "transparent": lambda: Image.fromarray(random.integers(0, 256, (24, 36, 4), dtype=np.uint8)),
    "grey and alpha": lambda: Image.fromarray(COLOUR).convert("LA"),
    "palette": lambda: Image.fromarray(COLOUR).quantize(16),
    "one bit": lambda: Image.fromarray(GREY > 127),
    "deep": lambda: Image.fromarray(DEEP),
}


@pytest.mark.parametrize("kind", PNG_KINDS)
def test_a_png_has_the_pixels_of_libpng(kind):
    data = encoded(PNG_KINDS[kind](), "PNG")
    expected = imagecodecs.png_decode(data)
    assert np.array_equal(decode_image(data).pixels.squeeze(), expected)
    with ThreadPoolExecutor(1) as pool:
        assert np.array_equal(pool.submit(decode_image, data).result().pixels.squeeze(), expected)


def test_a_png_with_a_transparent_colour_has_the_pixels_of_libpng():
    data = encoded(COLOUR, "PNG", transparency=tuple(int(value) for value in COLOUR[3, 4]))
    assert np.array_equal(decode_image(data).pixels, imagecodecs.png_decode(data))
    assert decode_image(data).pixels[3, 4, 3] == 0


def test_what_the_quick_decoder_refuses_is_left_to_libpng(monkeypatch):
    def refuse(*_):
        raise Exception("Failed to decode the png image.")

    monkeypatch.setattr("coverslip.data.images.decode_image_png_u8", refuse)
    assert np.array_equal(decode_image(encoded(COLOUR, "PNG")).pixels, COLOUR)


def test_webp_without_loss():
    decoded = decode_image(encoded(COLOUR, "WEBP", lossless=True))
    assert np.array_equal(decoded.pixels, COLOUR)
    assert decoded.format == "WEBP"


@pytest.mark.parametrize("array", [GREY, COLOUR])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_has_the_pixels_of_pillow(array, progressive):
    data = encoded(array, "JPEG", quality=80, progressive=progressive)
    assert np.array_equal(decode_image(data).pixels.squeeze(), np.asarray(Image.open(io.BytesIO(data))))


def test_cmyk_jpeg_becomes_rgb():
    data = encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG")
    decoded = decode_image(data)
    assert np.array_equal(decoded.pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert decoded.mode == "CMYK"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_grey_is_never_clipped(kind):
    decoded = decode_image(encoded(DEEP, kind))
    assert decoded.pixels.dtype == np.uint16
    assert np.array_equal(decoded.pixels[..., 0], DEEP)
    assert (decoded.mode, decoded.bits) == ("I;16", 16)


def test_deep_colour_is_kept():
    deep = random.integers(0, 65536, (24, 36, 3), dtype=np.uint16)
    for data in (imagecodecs.png_encode(deep), tiff(deep, photometric="rgb")):
        decoded = decode_image(data)
        assert np.array_equal(decoded.pixels, deep)
        assert (decoded.mode, decoded.bits) == ("RGB", 16)


def test_one_bit_becomes_black_and_white():
    source = Image.fromarray(GREY).convert("1")
    for kind in ("PNG", "TIFF", "BMP"):
        decoded = decode_image(encoded(source, kind))
        assert np.array_equal(decoded.pixels[..., 0], np.asarray(source) * np.uint8(255)), kind
        assert (decoded.mode, decoded.bits) == ("1", 1)


def test_palette_with_a_transparent_entry():
    source = Image.new("P", (2, 2))
    source.putpalette([10, 20, 30, 200, 100, 50])
    source.putdata([0, 1, 1, 0])
    decoded = decode_image(encoded(source, "PNG", transparency=0))
    image = over_background(decoded.pixels, "#00ff00")
    assert image.tolist() == [[[0, 255, 0], [200, 100, 50]], [[200, 100, 50], [0, 255, 0]]]
    assert decoded.mode == "P"


def test_transparent_pixels_show_the_background():
    alpha = random.integers(0, 256, (24, 36), dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    decoded = decode_image(encoded(np.dstack([COLOUR, alpha]), "PNG"))
    assert np.array_equal(decoded.pixels, np.dstack([COLOUR, alpha]))
    image = over_background(decoded.pixels, "#204060")
    share = alpha[..., None] / 255
    expected = COLOUR * share + np.array([0x20, 0x40, 0x60]) * (1 - share)
    assert np.abs(image - expected).max() <= 0.5 + 1e-9
    assert (image[0] == [0x20, 0x40, 0x60]).all()
    assert np.array_equal(image[1], COLOUR[1])
    assert decoded.mode == "RGBA"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_opaque_pixels_lose_their_transparency_only(dtype, channels):
    full = np.iinfo(dtype).max
    colour = random.integers(0, full, (24, 36, channels), dtype=dtype, endpoint=True)
    opaque = np.dstack([colour, np.full((24, 36), full, dtype)])
    for background in ("#000000", "#ffffff", "#204060"):
        assert np.array_equal(over_background(opaque, background), colour)
        assert np.array_equal(over_background(colour, background), colour)
    clear = opaque.copy()
    clear[..., -1] = 0
    assert (over_background(clear, "#ffffff") == full).all()
    assert np.array_equal(opaque[..., :-1], colour)


def test_grey_with_transparency_stays_grey():
    source = Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (36, 24), 0)])
    decoded = decode_image(encoded(source, "PNG"))
    assert decoded.pixels.shape == (24, 36, 2)
    assert decoded.mode == "LA"
    image = over_background(decoded.pixels, "#ffffff")
    assert image.shape == (24, 36, 1)
    assert (image == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_that_of_pillow(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(COLOUR, kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoded = decode_image(data)
    assert np.array_equal(decoded.pixels, expected)
    assert decoded.orientation == 1


def test_tiff_variants():
    assert np.array_equal(decode_image(tiff(GREY, photometric="miniswhite")).pixels[..., 0], 255 - GREY)
    planes = np.ascontiguousarray(COLOUR.transpose(2, 0, 1))
    assert np.array_equal(decode_image(tiff(planes, photometric="rgb", planarconfig="separate")).pixels, COLOUR)
    for compression in ("lzw", "deflate"):
        assert np.array_equal(decode_image(tiff(COLOUR, photometric="rgb", compression=compression)).pixels, COLOUR)
    assert np.array_equal(decode_image(tiff(COLOUR, photometric="rgb", tile=(16, 16))).pixels, COLOUR)


def test_floating_point_and_deep_integers_are_kept_as_float32_unscaled():
    for source in (
        GREY.astype(np.float32) / 7 - 3,
        GREY.astype(np.float64) / 7,
        GREY.astype(np.uint32) * 70_000,
        GREY.astype(np.int16) - 90,
    ):
        decoded = decode_image(tiff(source))
        assert decoded.pixels.dtype == np.float32
        assert decoded.pixels.shape == (24, 36, 1)
        assert decoded.names == ()
        assert np.array_equal(decoded.pixels[..., 0], source.astype(np.float32))


def test_pages_and_other_numbers_of_samples_are_channels_without_names():
    planes = random.integers(0, 256, (5, 24, 36), dtype=np.uint8)
    for data in (tiff(planes, photometric="minisblack"), tiff(planes.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig")):
        decoded = decode_image(data)
        assert decoded.names == ("",) * 5
        assert decoded.mode == "5 x uint8"
        assert np.array_equal(decoded.pixels, planes.transpose(1, 2, 0))


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
        (tiff(np.where(GREY > 9, GREY, np.nan).astype(np.float32)), "NaN"),
        (tiff(GREY.astype(np.complex64)), "complex64"),
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
                decoded = decode_image(bytes(broken), max_pixels=1_000_000)
            except ImageReadError:
                continue
            assert decoded.pixels.ndim == 3


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
        assert decode_image(encoded(COLOUR, kind), max_pixels=24 * 36).pixels.shape == (24, 36, 3)


def test_what_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(ImageReadError, match="cannot be opened: no such file"):
        read_bytes(tmp_path / "none.png")
    with pytest.raises(ImageReadError, match="cannot be opened"):
        read_bytes(tmp_path)


def test_file_too_large_for_its_bound_is_not_read(tmp_path):
    with (tmp_path / "huge.png").open("wb") as stream:
        stream.truncate(70_000_000)
    with pytest.raises(ImageReadError, match="too large"):
        read_bytes(tmp_path / "huge.png", max_pixels=1000)


def test_decoding_in_threads_gives_the_same():
    files = [encoded(COLOUR, kind) for kind in ("PNG", "JPEG", "TIFF")] * 10
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda data: decode_image(data).pixels, files))
    for data, image in zip(files, images, strict=True):
        assert np.array_equal(image, decode_image(data).pixels)


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
    four = np.dstack([COLOUR, GREY])
    assert not has_colour(four)
    assert np.array_equal(to_grey(four)[..., 0], (four.astype(np.int64).sum(axis=2) + 2) // 4)
    numbers = (four / 3).astype(np.float32)
    assert to_grey(numbers).dtype == np.float32
    np.testing.assert_allclose(to_grey(numbers)[..., 0], numbers.mean(axis=2), rtol=1e-6)
    same[3, 5, 1] ^= 1
    assert has_colour(same)
