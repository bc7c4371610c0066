"""Every kind of stack gives (height, width, channels); every broken one gives a short reason."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image

from coverslip.data.decoding import ImageReadError
from coverslip.data.tiff import read_tiff

random = np.random.default_rng(0)
GREY = random.integers(0, 256, (24, 36), dtype=np.uint8)
COLOUR = random.integers(0, 256, (24, 36, 3), dtype=np.uint8)
FOUR = random.integers(0, 65536, (4, 24, 36), dtype=np.uint16)
STACK = random.integers(0, 65536, (5, 3, 24, 36), dtype=np.uint16)  # z, c, y, x
NAMES = ["DNA", "tubulin", "ER", "protein"]
MOST = 100_000_000
UNNAMED = ("", "", "", "")


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **{"photometric": "minisblack", **options})
    return stream.getvalue()


def pages(*arrays: np.ndarray, byteorder: str = "<", **options: object) -> bytes:
    """Pages without any description, as most cameras write them."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, byteorder=byteorder) as writer:
        for array in arrays:
            writer.write(array, metadata=None, contiguous=False, **{"photometric": "minisblack", **options})
    return stream.getvalue()


def ome(array: np.ndarray, axes: str, names: list[str] | None = None, **options: object) -> bytes:
    metadata = {"axes": axes} | ({"Channel": {"Name": names}} if names else {})
    return tiff(array, ome=True, metadata=metadata, **options)


CHANNEL_FILES = {
    "ome": ome(FOUR, "CYX", NAMES),
    "ome, compressed tiles": ome(FOUR, "CYX", NAMES, compression="deflate", tile=(16, 16)),
    "ome, big-endian": ome(FOUR, "CYX", NAMES, byteorder=">"),
    "ome, BigTIFF": ome(FOUR, "CYX", NAMES, bigtiff=True),
    "ome with a pyramid": b"",
    "imagej": tiff(FOUR, imagej=True, metadata={"axes": "CYX", "Labels": NAMES}),
    "shaped": tiff(FOUR, metadata={"axes": "CYX"}),
    "shaped, no axes": tiff(FOUR),
    "pages": pages(*FOUR),
    "pages, big-endian": pages(*FOUR, byteorder=">"),
    "pages, compressed": pages(*FOUR, compression="lzw"),
    "interleaved": tiff(FOUR.transpose(1, 2, 0), planarconfig="contig"),
    "separate": tiff(FOUR, planarconfig="separate"),
    "rgb and one more": tiff(FOUR.transpose(1, 2, 0), photometric="rgb", planarconfig="contig", extrasamples=["unspecified"]),
}


def with_pyramid() -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, ome=True) as writer:
        writer.write(FOUR, subifds=1, photometric="minisblack", metadata={"axes": "CYX", "Channel": {"Name": NAMES}})
        writer.write(FOUR[:, ::2, ::2], subfiletype=1, photometric="minisblack")
    return stream.getvalue()


CHANNEL_FILES["ome with a pyramid"] = with_pyramid()


@pytest.mark.parametrize("kind", CHANNEL_FILES)
def test_four_channels_keep_every_value(kind):
    image = read_tiff(CHANNEL_FILES[kind], MOST)
    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels, FOUR.transpose(1, 2, 0))
    assert image.names == (tuple(NAMES) if kind.startswith(("ome", "imagej")) else UNNAMED)
    assert (image.format, image.mode, image.bits, image.orientation) == ("TIFF", "4 x uint16", 16, 1)


def test_names_are_kept_only_where_there_are_as_many_as_channels():
    assert read_tiff(ome(FOUR, "CYX"), MOST).names == UNNAMED
    assert read_tiff(tiff(FOUR, imagej=True, metadata={"axes": "CYX", "Labels": NAMES[:3]}), MOST).names == UNNAMED
    assert read_tiff(tiff(FOUR, imagej=True, metadata={"axes": "CYX"}), MOST).names == UNNAMED
    two = FOUR.transpose(1, 2, 0)[..., :2]
    assert read_tiff(tiff(two, planarconfig="contig", extrasamples=["unspecified"]), MOST).names == ("", "")


@pytest.mark.parametrize("projection", ["max", "mean", 0, 4])
@pytest.mark.parametrize("kind", ["ome", "imagej", "shaped"])
def test_planes_are_projected(kind, projection):
    data = {
        "ome": ome(STACK, "ZCYX", NAMES[:3]),
        "imagej": tiff(STACK, imagej=True, metadata={"axes": "ZCYX"}),
        "shaped": tiff(STACK, metadata={"axes": "ZCYX"}),
    }[kind]
    values = STACK.astype(np.float64)
    plane = np.rint(values.mean(0)) if projection == "mean" else values.max(0) if projection == "max" else values[projection]
    image = read_tiff(data, MOST, projection)
    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels, plane.transpose(1, 2, 0))
    assert image.names == (tuple(NAMES[:3]) if kind == "ome" else ("", "", ""))
    assert image.mode == "3 x uint16"
    with pytest.raises(ImageReadError, match=r"z-stack of 5 planes; .*data.projection=max"):
        read_tiff(data, MOST)
    with pytest.raises(ImageReadError, match="5 planes, 0 to 4"):
        read_tiff(data, MOST, 5)


def test_pages_of_unknown_meaning_are_planes_where_a_projection_is_asked_for():
    for data in (pages(*FOUR), tiff(FOUR)):
        assert np.array_equal(read_tiff(data, MOST, "max").pixels[..., 0], FOUR.max(0))
        assert read_tiff(data, MOST, "max").names == ()
        assert read_tiff(data, MOST).pixels.shape == (24, 36, 4)


def test_colour_stack_stays_colour():
    planes = np.stack([COLOUR, 255 - COLOUR])
    for data in (pages(*planes, photometric="rgb"), tiff(planes, photometric="rgb", metadata={"axes": "ZYXS"})):
        image = read_tiff(data, MOST, "max")
        assert np.array_equal(image.pixels, planes.max(0))
        assert (image.mode, image.names) == ("RGB", ())
    with pytest.raises(ImageReadError, match="cannot be told apart"):
        read_tiff(pages(*planes, photometric="rgb"), MOST)


def test_three_channels_are_not_colour():
    three = COLOUR.transpose(2, 0, 1)
    for data, names in ((ome(three, "CYX", NAMES[:3]), tuple(NAMES[:3])), (pages(*three), ("", "", "")), (tiff(three), ("", "", ""))):
        image = read_tiff(data, MOST)
        assert np.array_equal(image.pixels, COLOUR)
        assert (image.names, image.mode) == (names, "3 x uint8")
    assert read_tiff(tiff(COLOUR, photometric="rgb"), MOST).mode == "RGB"
    coloured = read_tiff(ome(COLOUR, "YXS", photometric="rgb"), MOST)
    assert np.array_equal(coloured.pixels, COLOUR)
    assert (coloured.mode, coloured.names) == ("RGB", ())


def test_one_channel_is_grey():
    for data in (
        ome(FOUR[:1], "CYX", ["DNA"]),
        ome(FOUR[0], "YX"),
        tiff(FOUR[0], imagej=True),
        ome(FOUR[None, :1], "ZCYX", ["DNA"]),
    ):
        image = read_tiff(data, MOST)
        assert np.array_equal(image.pixels, FOUR[0][..., None])
        assert (image.mode, image.names, image.bits) == ("I;16", (), 16)
    projected = read_tiff(ome(FOUR[:, None], "ZCYX", ["DNA"]), MOST, "mean")
    assert (projected.mode, projected.names, projected.pixels.shape) == ("I;16", (), (24, 36, 1))


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [("float16", "F"), ("float32", "F"), ("float64", "F"), ("uint32", "I"), ("int32", "I"), ("int16", "I"), ("int8", "I"), ("uint64", "I")],
)
def test_other_numbers_become_float32_and_are_not_scaled(dtype, mode):
    values = (GREY.astype(np.float64) / 2 - (0 if dtype.startswith("u") else 60)).astype(dtype)
    image = read_tiff(tiff(values), MOST)
    assert image.pixels.dtype == np.float32
    assert np.array_equal(image.pixels[..., 0], values.astype(np.float32))
    assert (image.mode, image.bits, image.names) == (mode, np.dtype(dtype).itemsize * 8, ())
    channels = read_tiff(pages(values, values), MOST)
    assert np.array_equal(channels.pixels, np.dstack([values, values]).astype(np.float32))
    assert (channels.mode, channels.names) == (f"2 x {dtype}", ("", ""))


def test_values_that_are_no_numbers_are_counted():
    values = GREY.astype(np.float32)
    values[0, :7], values[1, :5] = np.nan, np.inf
    for data in (tiff(values), pages(values, GREY.astype(np.float32))):
        with pytest.raises(ImageReadError, match=r"12 pixels are NaN or infinite, the first at .* mend them"):
            read_tiff(data, MOST)
    with pytest.raises(ImageReadError, match="complex64 pixels"):
        read_tiff(tiff(GREY.astype(np.complex64)), MOST)


def test_what_was_read_before_is_read_the_same():
    premultiplied = np.dstack([GREY // 2, GREY])
    for array, options, expected, mode in (
        (GREY, {}, GREY[..., None], "L"),
        (FOUR[0], {}, FOUR[0][..., None], "I;16"),
        (GREY, {"photometric": "miniswhite"}, 255 - GREY[..., None], "L"),
        (COLOUR, {"photometric": "rgb"}, COLOUR, "RGB"),
        (COLOUR.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}, COLOUR, "RGB"),
        (np.dstack([COLOUR, GREY]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, np.dstack([COLOUR, GREY]), "RGBA"),
        (premultiplied, {"planarconfig": "contig", "extrasamples": ["unassalpha"]}, premultiplied, "LA"),
    ):
        image = read_tiff(tiff(array, **options), MOST)
        assert np.array_equal(image.pixels, expected)
        assert (image.mode, image.names) == (mode, ())
    straight = read_tiff(tiff(premultiplied, planarconfig="contig", extrasamples=["assocalpha"]), MOST).pixels
    shown = GREY > 0
    assert np.abs(straight[..., 0][shown] - (GREY // 2 * 255.0 / np.maximum(GREY, 1))[shown]).max() <= 0.5
    stream = io.BytesIO()
    Image.fromarray(COLOUR).convert("CMYK").save(stream, "TIFF")
    assert read_tiff(stream.getvalue(), MOST).mode == "CMYK"


def test_bilevel_and_white_is_zero_pages():
    black_and_white = np.stack([GREY > 127, GREY > 50])
    image = read_tiff(pages(*black_and_white), MOST)
    assert np.array_equal(image.pixels, black_and_white.transpose(1, 2, 0) * np.uint8(255))
    assert np.array_equal(read_tiff(pages(*black_and_white), MOST, "max").pixels[..., 0], black_and_white.max(0) * np.uint8(255))
    image = read_tiff(pages(*FOUR, photometric="miniswhite"), MOST, "max")
    assert np.array_equal(image.pixels[..., 0], 65535 - FOUR.min(0))


def test_smaller_copies_are_skipped():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(COLOUR, subifds=1, photometric="rgb")
        writer.write(COLOUR[::2, ::2], subfiletype=1, photometric="rgb")
        writer.write(COLOUR[::4, ::4], subfiletype=1, photometric="rgb")
    assert np.array_equal(read_tiff(stream.getvalue(), MOST).pixels, COLOUR)


def test_orientation_is_told_for_every_kind():
    tag = [(274, "H", 1, 6, False)]
    assert read_tiff(tiff(GREY, extratags=tag), MOST).orientation == 6
    assert read_tiff(pages(GREY, GREY, extratags=tag), MOST).orientation == 6


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(STACK[:, 0], metadata={"axes": "TYX"}), r"5 time points \(axis T\)"),
        (tiff(STACK[:, 0], imagej=True, metadata={"axes": "TYX"}), r"5 time points \(axis T\)"),
        (ome(STACK, "TCYX"), r"5 time points \(axis T\)"),
        (tiff(STACK), "5 x 3 images whose axes cannot be told apart"),
        (pages(GREY, COLOUR[:10, :10, 0]), r"2 images that do not belong together \(24x36, 10x10\); save one image a file"),
        (pages(GREY, GREY.astype(np.uint16)), "2 images that do not belong together"),
        (pages(GREY, GREY).replace(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01", b"\x06\x01\x03\x00\x01\x00\x00\x00\x05"), "SEPARATED"),
    ],
)
def test_what_is_not_one_image_says_why(data, reason):
    with pytest.raises(ImageReadError, match=reason) as caught:
        read_tiff(data, MOST)
    assert len(str(caught.value)) < 200


def test_several_ome_images_are_refused():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, ome=True) as writer:
        for _ in range(3):
            writer.write(FOUR, photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(ImageReadError, match="3 images that do not belong together"):
        read_tiff(stream.getvalue(), MOST)


OME_HEAD = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
OME_PIXELS = (
    '<Image><Pixels DimensionOrder="XYZCT" SizeX="36" SizeY="24" SizeZ="1" SizeC="{}" SizeT="1" Type="uint16">{}</Pixels></Image></OME>'
)


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        (
            f'{OME_HEAD} UUID="urn:a">'
            + OME_PIXELS.format(4, '<TiffData IFD="0" PlaneCount="2"/><TiffData><UUID FileName="b.ome.tif">urn:b</UUID></TiffData>'),
            r"refers to other files \(b.ome.tif\)",
        ),
        (f'{OME_HEAD}><BinaryOnly MetadataFile="plate.companion.ome" UUID="urn:b"/></OME>', "in another file .plate.companion.ome."),
        (f"{OME_HEAD}>" + OME_PIXELS.format(6, "<TiffData/>"), "the file is truncated, or was never whole: 4 planes"),
        (f'<!DOCTYPE OME [<!ENTITY a "b">]>{OME_HEAD}>' + OME_PIXELS.format(2, "<TiffData/>"), "document type of its own"),
    ],
)
def test_ome_of_other_planes_than_its_own(description, reason):
    with pytest.raises(ImageReadError, match=reason):
        read_tiff(pages(FOUR[0], FOUR[1], description=description), MOST)


def test_broken_ome_xml_leaves_the_pixels():
    broken = CHANNEL_FILES["ome"].replace(b"<Pixels", b"<Pixel<", 1)
    assert broken != CHANNEL_FILES["ome"]
    image = read_tiff(broken, MOST)
    assert np.array_equal(image.pixels, FOUR.transpose(1, 2, 0))
    assert image.names == UNNAMED


def test_size_of_all_planes_is_bounded_before_decoding():
    for kind, data in CHANNEL_FILES.items():
        assert read_tiff(data, 4 * 24 * 36).pixels.shape == (24, 36, 4), kind
        if kind == "rgb and one more":
            continue
        with pytest.raises(ImageReadError, match=r"too large.*data.max_pixels"):
            read_tiff(data, 4 * 24 * 36 - 1)
    assert read_tiff(tiff(COLOUR, photometric="rgb"), 24 * 36).mode == "RGB"
    with pytest.raises(ImageReadError, match=r"too large: 24x36 pixels"):
        read_tiff(tiff(GREY), 24 * 36 - 1)
    with pytest.raises(ImageReadError, match=r"too large: 5x3x24x36 pixels"):
        read_tiff(ome(STACK, "ZCYX"), 14 * 24 * 36, "max")


@pytest.mark.parametrize("kind", CHANNEL_FILES)
def test_a_file_cut_anywhere_is_an_error(kind):
    whole = CHANNEL_FILES[kind]
    expected = read_tiff(whole, MOST).pixels
    checked = 0
    for size in range(8, len(whole), max(1, len(whole) // 150)):
        checked += 1
        try:
            image = read_tiff(whole[:size], MOST)
        except ImageReadError:
            continue
        assert np.array_equal(image.pixels, expected), size
    assert checked >= 100
    with pytest.raises(ImageReadError, match="truncated"):
        read_tiff(whole[: len(whole) // 3], MOST)


def test_threads_give_the_same():
    files = list(CHANNEL_FILES.values()) * 5
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda data: read_tiff(data, MOST).pixels, files))
    assert len(images) == len(files) == 5 * len(CHANNEL_FILES)
    for image in images:
        assert np.array_equal(image, FOUR.transpose(1, 2, 0))
