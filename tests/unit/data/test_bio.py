"""Files of Zeiss, Nikon and Leica, written here byte by byte in their formats."""

from __future__ import annotations

import struct
import sys
import tempfile
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from coverslip.data.bio import BIO_SUFFIXES, read_bio
from coverslip.data.decoding import ImageReadError
from coverslip.data.reading import FileContent, Reading
from coverslip.errors import MissingExtraError

random = np.random.default_rng(0)
STACK = random.integers(0, 65536, (3, 2, 24, 36), dtype=np.uint16)  # z, c, y, x
COLOUR = random.integers(0, 256, (24, 36, 3), dtype=np.uint8)
MOST = 100_000_000
PACKAGES = {".czi": "czifile", ".nd2": "nd2", ".lif": "liffile"}


@pytest.mark.parametrize("suffix", sorted(PACKAGES))
def test_without_the_package_the_error_says_how_to_install_it(suffix, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[suffix], None)
    with pytest.raises(MissingExtraError, match=rf'{PACKAGES[suffix]}; install it with  pip install "coverslip\[bio\]"'):
        read_bio(tmp_path / f"image{suffix}", MOST)
    assert set(PACKAGES) == BIO_SUFFIXES


@pytest.mark.parametrize("suffix", sorted(PACKAGES))
@pytest.mark.parametrize("content", [b"", b"this is text, not pixels" * 40, b"ZISRAWFILE" + bytes(600), b"\xda\xce\xbe\x0a" + bytes(600)])
def test_broken_file(suffix, content, tmp_path):
    pytest.importorskip(PACKAGES[suffix])
    path = tmp_path / f"image{suffix.upper()}"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=f"not a whole {suffix[1:].upper()} file") as caught:
        read_bio(path, MOST)
    assert len(str(caught.value)) < 200
    with pytest.raises(ImageReadError, match="cannot be opened: no such file"):
        read_bio(tmp_path / f"none{suffix}", MOST)


# Zeiss ------------------------------------------------------------------------------------------------------------------


CZI_DTYPES = {("uint8", 1): 0, ("uint16", 1): 1, ("float32", 1): 2, ("uint8", 3): 3}
CZI_COMPRESSIONS = {"raw": 0, "zstd0": 5, "zstd1": 6}
Block = tuple[dict[str, int], np.ndarray]
"""Where a block of pixels begins along each axis, and its pixels, (h, w) or blue, green, red (h, w, 3)."""


def write_czi(path: Path, blocks: list[Block], names: list[str], compression: str = "raw") -> Path:
    """A CZI file (format version 1.0) of blocks of single planes; libCZI reads it too."""
    pytest.importorskip("czifile")
    content, entries = czi_segment("ZISRAWFILE", bytes(480)), []
    for starts, pixels in blocks:
        data = czi_pixels(pixels, compression)
        entries.append(czi_entry(starts, pixels, len(content), CZI_COMPRESSIONS[compression]))
        content += czi_segment("ZISRAWSUBBLOCK", struct.pack("<iiq", 0, 0, len(data)) + entries[-1].ljust(240, b"\0") + data)
    channels = "".join(f'<Channel Id="Channel:{i}" Name="{name}"/>' for i, name in enumerate(names))
    image = f"<Image><Dimensions><Channels>{channels}</Channels></Dimensions></Image>"
    text = f"<ImageDocument><Metadata><Information>{image}</Information></Metadata></ImageDocument>".encode()
    metadata, content = len(content), content + czi_segment("ZISRAWMETADATA", struct.pack("<ii248x", len(text), 0) + text)
    directory, content = len(content), content + czi_segment("ZISRAWDIRECTORY", struct.pack("<i124x", len(entries)) + b"".join(entries))
    head = struct.pack("<iiii16s16siqqiq", 1, 0, 0, 0, b"one", b"one", 0, directory, metadata, 0, 0)
    path.write_bytes(czi_segment("ZISRAWFILE", head.ljust(480, b"\0")) + content[512:])
    return path


def czi_segment(name: str, data: bytes) -> bytes:
    return struct.pack("<16sqq", name.encode(), len(data) + -len(data) % 32, len(data)) + data + bytes(-len(data) % 32)


def czi_entry(starts: dict[str, int], pixels: np.ndarray, position: int, compression: int) -> bytes:
    sizes = {"X": pixels.shape[1], "Y": pixels.shape[0]}
    axes = ["X", "Y", *(axis for axis in "CZTMS" if axis in starts)]
    kind = CZI_DTYPES[pixels.dtype.name, 1 if pixels.ndim == 2 else 3]
    sides = [struct.pack("<4siifi", axis.encode(), starts.get(axis, 0), sizes.get(axis, 1), 0.0, sizes.get(axis, 1)) for axis in axes]
    return struct.pack("<2siqiiB5xi", b"DV", kind, position, 0, compression, 0, len(axes)) + b"".join(sides)


def czi_pixels(pixels: np.ndarray, compression: str) -> bytes:
    data = pixels.tobytes()
    if compression == "raw":
        return data
    if compression == "zstd0":
        return bytes(imagecodecs.zstd_encode(data))
    halves = np.frombuffer(data, np.uint8).reshape(-1, 2).T.tobytes()  # all low bytes, then all high ones
    return b"\x03\x01\x01" + bytes(imagecodecs.zstd_encode(halves))


def planes_of(stack: np.ndarray) -> list[Block]:
    return [({"Z": z, "C": channel}, stack[z, channel]) for z in range(stack.shape[0]) for channel in range(stack.shape[1])]


@pytest.mark.parametrize("compression", sorted(CZI_COMPRESSIONS))
def test_czi_stack(compression, tmp_path):
    path = write_czi(tmp_path / "a.czi", planes_of(STACK), ["DAPI", "GFP"], compression)
    for projection, expected in (("max", STACK.max(0)), ("mean", np.rint(STACK.mean(0))), (1, STACK[1])):
        image = read_bio(path, MOST, projection)
        assert image.pixels.dtype == np.uint16
        assert np.array_equal(image.pixels, expected.transpose(1, 2, 0))
        assert (image.format, image.mode, image.bits, image.names) == ("CZI", "2 x uint16", 16, ("DAPI", "GFP"))
    with pytest.raises(ImageReadError, match="z-stack of 3 planes; say how"):
        read_bio(path, MOST)
    with pytest.raises(ImageReadError, match=r"too large.*data.max_pixels"):
        read_bio(path, STACK.size - 1, "max")
    write_czi(path, planes_of(STACK)[:-1], ["DAPI", "GFP"], compression)
    with pytest.raises(ImageReadError, match=r"missing|not a whole CZI file"):
        read_bio(path, MOST, "max")


def test_czi_grey_and_colour(tmp_path):
    grey = read_bio(write_czi(tmp_path / "a.czi", [({"C": 0}, STACK[0, 0])], ["DAPI"], "zstd0"), MOST)
    assert np.array_equal(grey.pixels, STACK[0, 0][..., None])
    assert (grey.mode, grey.names) == ("I;16", ())
    floats = STACK[0, 0].astype(np.float32) / 7
    assert np.array_equal(read_bio(write_czi(tmp_path / "f.czi", [({"C": 0}, floats)], ["DAPI"]), MOST).pixels[..., 0], floats)
    for compression in ("raw", "zstd0"):
        path = write_czi(tmp_path / f"{compression}.czi", [({"C": 0}, COLOUR[..., ::-1])], ["colour"], compression)
        image = read_bio(path, MOST)
        assert np.array_equal(image.pixels, COLOUR)
        assert (image.mode, image.names) == ("RGB", ())


def test_a_file_in_memory_gives_the_same_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = write_czi(tmp_path / "colour.czi", [({"Y": 0, "X": 0}, COLOUR)], [])
    pixels, facts = Reading().read([FileContent("../of/another.CZI", path.read_bytes())])
    expected, facts_of_file = Reading().read([path])
    assert np.array_equal(pixels, expected)
    assert facts == facts_of_file
    for suffix in BIO_SUFFIXES:
        for content in (b"", b"this is text, not pixels" * 40, b"\xda\xce\xbe\x0a" + bytes(600)):
            with pytest.raises(ImageReadError, match=f"not a whole {suffix[1:].upper()} file") as caught:
                Reading().read([FileContent(f"a{suffix}", content)])
            assert str(tmp_path) not in str(caught.value)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_czi_mosaic_is_put_together(tmp_path):
    tiles: list[Block] = [({"X": x - 10, "Y": 5, "C": 0, "M": x // 36}, STACK[0, x // 36]) for x in (0, 36)]
    image = read_bio(write_czi(tmp_path / "a.czi", tiles, ["DAPI"]), MOST)
    assert np.array_equal(image.pixels[..., 0], np.hstack([STACK[0, 0], STACK[0, 1]]))


def test_czi_of_several_images_is_refused(tmp_path):
    series: list[Block] = [({"C": 0, "T": time}, STACK[time, 0]) for time in range(3)]
    with pytest.raises(ImageReadError, match=r"3 time points \(axis T\)"):
        read_bio(write_czi(tmp_path / "t.czi", series, ["DAPI"]), MOST)
    scenes: list[Block] = [({"X": 50 * scene, "C": 0, "S": scene}, STACK[0, 0]) for scene in range(2)]
    with pytest.raises(ImageReadError, match="a CZI file of 2 scenes; save one scene a file"):
        read_bio(write_czi(tmp_path / "s.czi", scenes, []), MOST)


def test_czi_cut_anywhere_is_an_error(tmp_path):
    whole = write_czi(tmp_path / "a.czi", planes_of(STACK), ["DAPI", "GFP"]).read_bytes()
    check_cuts(tmp_path / "cut.czi", whole, STACK.max(0).transpose(1, 2, 0))


def check_cuts(path: Path, whole: bytes, expected: np.ndarray) -> None:
    errors = 0
    for size in range(0, len(whole), max(1, len(whole) // 100)):
        path.write_bytes(whole[:size])
        try:
            image = read_bio(path, MOST, "max")
        except ImageReadError:
            errors += 1
            continue
        assert np.array_equal(image.pixels, expected), size
    assert errors > 50


# Nikon ------------------------------------------------------------------------------------------------------------------


def write_nd2(path: Path, pixels: np.ndarray, names: list[str], dye: str = "<sName runtype='CLxStringW' value='x'/>") -> Path:
    """An ND2 file of version 2 with one frame, (h, w, c), and an XML description."""
    pytest.importorskip("nd2")
    height, width, count = pixels.shape
    numbers = {"uiWidth": width, "uiHeight": height, "uiComp": count, "uiBpcInMemory": 16, "uiBpcSignificant": 16, "uiSequenceCount": 1}
    numbers |= {"uiWidthBytes": width * count * 2, "eCompression": 2, "uiTileWidth": 0, "uiTileHeight": 0}
    attributes = "".join(f'<{name} runtype="lx_uint32" value="{value}"/>' for name, value in numbers.items())
    planes = "".join(
        f'<a{i} runtype="CLxListVariant"><sDescription runtype="CLxStringW" value="{name}"/><uiCompCount runtype="lx_uint32" value="1"/>'
        f'<uiColor runtype="lx_uint32" value="255"/><pFluorescentProbe runtype="CLxListVariant">{dye}</pFluorescentProbe></a{i}>'
        for i, name in enumerate(names)
    )
    metadata = (
        '<bCalibrated runtype="bool" value="true"/><dCalibration runtype="double" value="0.5"/>'
        f'<sPicturePlanes runtype="CLxListVariant"><uiCount runtype="lx_uint32" value="{len(names)}"/>'
        f'<sPlaneNew runtype="CLxListVariant">{planes}</sPlaneNew></sPicturePlanes>'
    )
    chunks = {
        b"ImageAttributes!": f"<variant><no_name>{attributes}</no_name></variant>".encode(),
        b"ImageMetadataSeq|0!": f"<variant><no_name>{metadata}</no_name></variant>".encode(),
        b"ImageDataSeq|0!": bytes(8) + pixels.tobytes(),
    }
    content, table = nd2_chunk(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver2.1".ljust(64, b"\0")), b""
    for name, data in chunks.items():
        table += name + struct.pack("<QQ", len(content), len(data))
        content += nd2_chunk(name.ljust(4072, b"\0"), data)  # where the pixels are expected
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", len(content))
    path.write_bytes(content + nd2_chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", table + end))
    return path


def nd2_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack("<IIQ", 0x0ABECEDA, len(name), len(data)) + name + data


def test_nd2_channels(tmp_path):
    path = write_nd2(tmp_path / "a.nd2", STACK[0].transpose(1, 2, 0), ["DAPI", "GFP"])
    image = read_bio(path, MOST)
    assert np.array_equal(image.pixels, STACK[0].transpose(1, 2, 0))
    assert (image.format, image.mode, image.bits, image.names) == ("ND2", "2 x uint16", 16, ("DAPI", "GFP"))
    with pytest.raises(ImageReadError, match=r"too large.*data.max_pixels"):
        read_bio(path, STACK[0].size - 1)
    assert read_bio(write_nd2(tmp_path / "c.nd2", STACK[0].transpose(1, 2, 0), ["DAPI", "GFP"], dye=""), MOST).names == ("", "")
    whole = path.read_bytes()
    entry = b"ImageDataSeq|0!" + struct.pack("<Q", whole.index(b"ImageDataSeq") - 16)
    assert entry in whole
    (tmp_path / "lost.nd2").write_bytes(whole.replace(entry, b"ImageDataSeq|9!" + bytes(8)))
    with pytest.raises(ImageReadError, match="a frame that is missing"):
        read_bio(tmp_path / "lost.nd2", MOST)
    check_cuts(tmp_path / "cut.nd2", whole, image.pixels)
    grey = read_bio(write_nd2(tmp_path / "b.nd2", STACK[0, 0][..., None], ["DAPI"]), MOST)
    assert np.array_equal(grey.pixels, STACK[0, 0][..., None])
    assert (grey.mode, grey.names) == ("I;16", ())


# Leica ------------------------------------------------------------------------------------------------------------------


def lif_image(name: str, stack: np.ndarray, dyes: list[str], *, planes: str = "3") -> str:
    """The XML of an image whose channels follow each other in every plane; `planes` is the number of the first axis (4 = time)."""
    count, channels, height, width = stack.shape
    step = stack.dtype.itemsize
    described = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * step}" NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" '
        f'LUTName="{("Blue", "Green", "Red", "Gray")[i]}" IsLUTInverted="0" BytesInc="{i * height * width * step}" BitInc="0">'
        + (f"<ChannelProperty><Key>DyeName</Key><Value>{dyes[i]}</Value></ChannelProperty>" if dyes else "")
        + "</ChannelDescription>"
        for i in range(channels)
    )
    sizes = (("1", width, step), ("2", height, width * step), (planes, count, channels * height * width * step))
    axes = "".join(
        f'<DimensionDescription DimID="{axis}" NumberOfElements="{size}" Origin="0" Length="1" Unit="m" BitInc="0" BytesInc="{increment}"/>'
        for axis, size, increment in sizes
        if size > 1
    )
    description = f"<ImageDescription><Channels>{described}</Channels><Dimensions>{axes}</Dimensions></ImageDescription>"
    return (
        f'<Element Name="{name}"><Data><Image>{description}</Image></Data><Memory Size="{stack.nbytes}" MemoryBlockID="{name}"/></Element>'
    )


def write_lif(path: Path, images: dict[str, np.ndarray], dyes: list[str], **options: str) -> Path:
    pytest.importorskip("liffile")
    inner = "".join(lif_image(name, stack, dyes, **options) for name, stack in images.items())
    text = f'<LMSDataContainerHeader Version="2"><Element Name="x"><Children>{inner}</Children></Element></LMSDataContainerHeader>'
    content = struct.pack("<IIBI", 0x70, 2 * len(text) + 5, 0x2A, len(text)) + text.encode("utf-16-le")
    for name, stack in images.items():
        content += struct.pack("<IIBQBI", 0x70, 0, 0x2A, stack.nbytes, 0x2A, len(name)) + name.encode("utf-16-le") + stack.tobytes()
    path.write_bytes(content)
    return path


def test_lif_stack(tmp_path):
    path = write_lif(tmp_path / "a.lif", {"one": STACK}, ["DAPI", "Alexa 488"])
    image = read_bio(path, MOST, "max")
    assert np.array_equal(image.pixels, STACK.max(0).transpose(1, 2, 0))
    assert (image.format, image.mode, image.bits, image.names) == ("LIF", "2 x uint16", 16, ("DAPI", "Alexa 488"))
    with pytest.raises(ImageReadError, match="z-stack of 3 planes; say how"):
        read_bio(path, MOST)
    with pytest.raises(ImageReadError, match=r"too large.*data.max_pixels"):
        read_bio(path, STACK.size - 1, "max")
    assert read_bio(write_lif(tmp_path / "b.lif", {"one": STACK}, []), MOST, 0).names == ("Blue", "Green")
    assert read_bio(write_lif(tmp_path / "c.lif", {"one": STACK}, ["DAPI", "DAPI"]), MOST, 0).names == ("", "")
    grey = read_bio(write_lif(tmp_path / "d.lif", {"one": STACK[:1, :1]}, ["DAPI"]), MOST)
    assert np.array_equal(grey.pixels, STACK[0, 0][..., None])
    assert (grey.mode, grey.names) == ("I;16", ())


def test_lif_of_several_images_is_refused(tmp_path):
    with pytest.raises(ImageReadError, match="a LIF file of 2 scenes; save one scene a file"):
        read_bio(write_lif(tmp_path / "a.lif", {"one": STACK, "two": STACK}, []), MOST)
    with pytest.raises(ImageReadError, match=r"3 time points \(axis T\)"):
        read_bio(write_lif(tmp_path / "b.lif", {"one": STACK}, [], planes="4"), MOST)


def test_lif_cut_anywhere_is_an_error(tmp_path):
    whole = write_lif(tmp_path / "a.lif", {"one": STACK}, []).read_bytes()
    check_cuts(tmp_path / "cut.lif", whole, STACK.max(0).transpose(1, 2, 0))
