"""The files of a sample become one image: the same pixels whatever form they are saved in, the channels that were asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from PIL import Image

from coverslip.config import DataConfig
from coverslip.data.decoding import ImageReadError
from coverslip.data.geometry import GREY, RGB, Geometry
from coverslip.data.normalisation import Normalisation
from coverslip.data.reading import Facts, FileContent, Reading, joint_hash, stated_channels
from coverslip.data.scan import hash_files
from coverslip.structures import Channel, Table, Task

Array = npt.NDArray[Any]

STAINS = ("dna", "tubulin", "er", "protein")
PLANES = np.random.default_rng(0).integers(0, 256, (4, 24, 36), dtype=np.uint8)
IMAGE = np.moveaxis(PLANES, 0, 2)


def save(path: Path, array: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        Image.fromarray(array).save(path)
    return path


def save_each(root: Path, planes: Iterable[Array], kind: str = "png") -> tuple[Path, ...]:
    return tuple(save(root / f"a_{number}.{kind}", plane) for number, plane in enumerate(planes))


def save_stack(path: Path, planes: Array, names: Sequence[str] = ()) -> Path:
    """An OME-TIFF of several channels."""
    described = {"axes": "CYX"} | ({"Channel": {"Name": list(names)}} if names else {})
    tifffile.imwrite(path, planes, ome=True, photometric="minisblack", metadata=described)
    return path


def deep(planes: Array) -> Array:
    return planes.astype(np.uint16) * np.uint16(257)


def reading(*names: str) -> Reading:
    return Reading(channels=Channel.of(*names))


def refused(how: Reading, *files: Path) -> str:
    with pytest.raises(ImageReadError) as caught:
        how.read(files)
    assert len(str(caught.value)) < 300
    return str(caught.value)


# One image in several forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(24, 36), (16, 16), (40, 50)])
@pytest.mark.parametrize("fit", ["squash", "letterbox", "crop"])
def test_four_small_files_and_one_deep_stack_of_the_same_values_give_the_same_pixels(
    tmp_path: Path, size: tuple[int, int], fit: Any
) -> None:
    how = reading(*STAINS)
    apart, _ = how.read(save_each(tmp_path, PLANES))
    together, _ = how.read((save_stack(tmp_path / "a.ome.tif", deep(PLANES), STAINS),))
    assert [apart.dtype.name, together.dtype.name] == ["uint8", "uint16"]
    geometry = Geometry(*size, fit, STAINS, 16)
    assert np.array_equal(geometry.apply(apart), geometry.apply(together))
    if size == (24, 36):
        assert np.array_equal(geometry.apply(together), deep(IMAGE))


@pytest.mark.parametrize("per_image", ["none", "together", "each"])
@pytest.mark.parametrize("invert", [False, True])
def test_the_network_sees_the_same_of_eight_and_of_sixteen_bits(tmp_path: Path, per_image: Any, invert: bool) -> None:
    how, size = reading(*STAINS), (24, 36)
    small = Geometry(*size, "squash", STAINS, 8).apply(how.read(save_each(tmp_path, PLANES))[0])
    large = Geometry(*size, "squash", STAINS, 16).apply(how.read((save_stack(tmp_path / "a.ome.tif", deep(PLANES), STAINS),))[0])
    assert [small.dtype.name, large.dtype.name] == ["uint8", "uint16"]
    numbers = {"invert": invert, "per_image": per_image, "mean": (0.1, 0.2, 0.3, 0.4), "deviation": (0.2, 0.3, 0.4, 0.5)}
    seen = [
        Normalisation((0.0,), (full,), **numbers).apply(torch.from_numpy(pixels[None]))
        for full, pixels in ((255.0, small), (65535.0, large))
    ]
    assert torch.equal(seen[0], seen[1])


def test_files_are_put_together_in_the_order_of_the_channels(tmp_path: Path) -> None:
    files = save_each(tmp_path, PLANES)
    pixels, facts = reading("x", "y", "z", "w").read([files[place] for place in (2, 0, 3, 1)])
    assert np.array_equal(pixels, IMAGE[..., [2, 0, 3, 1]])
    assert facts.mode == "4 files of L"
    assert (facts.format, facts.bits, facts.height, facts.width) == ("PNG", 8, 24, 36)


def test_the_hash_of_a_sample_tells_every_file_and_their_order(tmp_path: Path) -> None:
    files = save_each(tmp_path, PLANES[:2])
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    single = Reading().read(files[:1])[1].sha256
    both = reading("x", "y").read(files)[1].sha256
    assert single == digests[0]
    assert both == joint_hash(digests)
    assert len({single, both, reading("x", "y").read(files[::-1])[1].sha256, joint_hash(digests[::-1])}) == 3
    table = Table(tmp_path, ("a",), ("x",), None, Task.BINARY, files=(tuple(file.name for file in files),))
    assert hash_files(table) == [both]


def test_plain_images_come_with_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "wrong_suffix.jpg").write_bytes(save(tmp_path / "a.png", PLANES[0]).read_bytes())
    pixels, facts = Reading().read([tmp_path / "wrong_suffix.jpg"])
    assert np.array_equal(pixels, PLANES[0][..., None])
    assert facts == Facts(hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest(), "PNG", "L", 8, 24, 36)
    clear = save(tmp_path / "clear.png", np.zeros((5, 6, 4), np.uint8))
    assert (Reading("#204060").read([clear])[0] == [0x20, 0x40, 0x60]).all()
    assert "cannot be opened: no such file" in refused(Reading(), tmp_path / "none.png")
    assert "data.max_pixels" in refused(Reading(max_pixels=29), clear)


def test_floating_point_is_read_as_it_is(tmp_path: Path) -> None:
    values = (PLANES[0] / 7 - 9).astype(np.float32)
    pixels, facts = Reading().read([save(tmp_path / "a.tif", values)])
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, values[..., None])
    assert facts.bits == 32
    several, _ = reading("x", "y").read(save_each(tmp_path, [values, values * 2], "tif"))
    assert np.array_equal(several, np.stack([values, values * 2], axis=2))


def test_the_config_says_how(tmp_path: Path) -> None:
    config = DataConfig(background="#204060", max_pixels=99, projection="max", channels={"nucleus": "dna", "rest": "er"})
    assert Reading.of(config) == Reading("#204060", 99, (Channel("nucleus", "dna"), Channel("rest", "er")), "max")
    assert stated_channels(DataConfig(channels=["b", "a"])) == Channel.of("b", "a")
    assert stated_channels(DataConfig()) == ()
    stack = save(tmp_path / "z.tif", PLANES)
    projected, _ = Reading(projection="max").read([stack])
    assert np.array_equal(projected[..., 0], PLANES.max(axis=0))


# Choosing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "places"),
    [
        (Channel.of(*STAINS), [0, 1, 2, 3]),
        (Channel.of("protein", "dna", "er", "tubulin"), [3, 0, 2, 1]),
        (Channel.of("er"), [2]),
        (Channel.of("protein", "dna"), [3, 0]),
        ((Channel("nucleus", "dna"), Channel("dna", "protein")), [0, 3]),
        (Channel.of("3", "1"), [3, 1]),
        ((Channel("nucleus", "0"),), [0]),
    ],
    ids=["all", "another order", "one", "two", "renamed", "by number", "one by number"],
)
def test_channels_of_a_named_stack_are_chosen_by_name_or_number(tmp_path: Path, chosen: tuple[Channel, ...], places: list[int]) -> None:
    stack = save_stack(tmp_path / "a.ome.tif", PLANES, STAINS)
    pixels, facts = Reading(channels=chosen).read([stack])
    assert np.array_equal(pixels, IMAGE[..., places])
    assert pixels.flags.c_contiguous
    assert (facts.mode, facts.bits) == ("4 x uint8", 8)


@pytest.mark.parametrize(("chosen", "places"), [(("w", "x", "y", "z"), [0, 1, 2, 3]), (("2", "0"), [2, 0])])
def test_channels_without_names_are_taken_in_order_or_by_number(tmp_path: Path, chosen: tuple[str, ...], places: list[int]) -> None:
    for file in (save_stack(tmp_path / "a.ome.tif", PLANES), save(tmp_path / "pages.tif", PLANES)):
        assert np.array_equal(reading(*chosen).read([file])[0], IMAGE[..., places])


def test_planes_of_a_colour_image_are_channels_too(tmp_path: Path) -> None:
    colour = save(tmp_path / "a.png", np.ascontiguousarray(IMAGE[..., :3]))
    assert np.array_equal(reading("blue", "green").read([colour])[0], IMAGE[..., [2, 1]])
    assert np.array_equal(reading(*RGB).read([colour])[0], IMAGE[..., :3])
    assert "Did you mean 'green'" in refused(reading("gren"), colour)
    grey = save(tmp_path / "grey.png", PLANES[0])
    assert np.array_equal(reading("phase").read([grey])[0], PLANES[0][..., None])


def test_a_wrong_name_is_named_with_the_near_one_and_with_all_there_are(tmp_path: Path) -> None:
    stack = save_stack(tmp_path / "a.ome.tif", PLANES, STAINS)
    said = refused(reading("dna", "protien"), stack)
    assert "no channel 'protien'. Did you mean 'protein'?" in said
    assert "dna, tubulin, er, protein" in said
    assert "no channel '4'" in refused(reading("4"), stack)


def test_too_few_names_for_channels_without_names(tmp_path: Path) -> None:
    said = refused(reading("dna", "er"), save(tmp_path / "a.tif", PLANES))
    assert "4 channels without names" in said
    assert "data.channels has 2 (dna, er)" in said
    assert "by number" in said


@pytest.mark.parametrize(("names", "said"), [(STAINS, "4 channels, dna, tubulin, er, protein"), ((), "4 channels without names")])
def test_channels_have_to_be_asked_for(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    message = refused(Reading(), save_stack(tmp_path / "a.ome.tif", PLANES, names))
    assert said in message
    assert "data.channels=" in message


# Several files that do not fit ----------------------------------------------------------------------------------------


def test_files_in_memory_are_read_as_those_on_disk(tmp_path: Path) -> None:
    files = save_each(tmp_path, PLANES[:2])
    contents = [FileContent(f"/no/such/folder/{file.name}", file.read_bytes()) for file in files]
    how = reading("red", "green")
    on_disk, in_memory = how.read(files), how.read(contents)
    assert np.array_equal(on_disk[0], in_memory[0])
    assert on_disk[1] == in_memory[1]
    broken = [contents[0], FileContent("b.png", b"text")]
    with pytest.raises(ImageReadError, match=r"channel 'green', b\.png: not an image"):
        how.read(broken)


def test_a_missing_file_names_its_channel(tmp_path: Path) -> None:
    files = save_each(tmp_path, PLANES)
    files[2].unlink()
    said = refused(reading(*STAINS), *files)
    assert "channel 'er', a_2.png" in said
    assert "no such file" in said


def test_planes_of_other_size_name_both_channels(tmp_path: Path) -> None:
    files = save_each(tmp_path, [PLANES[0], PLANES[1], PLANES[2][:20], PLANES[3]])
    said = refused(reading(*STAINS), *files)
    assert "channel 'er' has 20x36 pixels, channel 'dna' 24x36" in said
    assert "24x36 pixels, channel 'dna' 36x24" in refused(reading("dna", "er"), *save_each(tmp_path, [PLANES[0].T.copy(), PLANES[1]]))


def test_colour_or_channels_where_one_plane_was_expected(tmp_path: Path) -> None:
    colour = save(tmp_path / "colour.png", np.ascontiguousarray(IMAGE[..., :3]))
    plane = save(tmp_path / "plane.png", PLANES[0])
    said = refused(reading("dna", "er"), plane, colour)
    assert "channel 'er', colour.png" in said
    assert "one grey plane was expected" in said
    stack = save_stack(tmp_path / "stack.ome.tif", PLANES, STAINS)
    said = refused(reading("dna", "er"), stack, plane)
    assert "channel 'dna', stack.ome.tif: 4 channels" in said
    assert "one file a channel was expected" in said


@pytest.mark.parametrize("lit", [(0,), (1,), (2,), (0, 1, 2), ()], ids=["red", "green", "blue", "grey", "black"])
def test_a_plane_that_is_saved_as_rgb_is_that_plane(tmp_path: Path, lit: tuple[int, ...]) -> None:
    colour = np.zeros((24, 36, 3), np.uint8)
    colour[..., list(lit)] = PLANES[0][..., None]
    pixels, _ = reading("dna", "er").read([save(tmp_path / "colour.png", colour), save(tmp_path / "plane.png", PLANES[1])])
    assert np.array_equal(pixels[..., 0], PLANES[0] if lit else np.zeros_like(PLANES[0]))
    assert np.array_equal(pixels[..., 1], PLANES[1])


def test_a_plane_that_is_saved_as_rgb_jpeg_is_that_plane(tmp_path: Path) -> None:
    colour = np.zeros((24, 36, 3), np.uint8)
    colour[..., 1] = 200
    colour[4:12, 4:20, 1] = 90
    Image.fromarray(colour).save(tmp_path / "colour.jpg", quality=95)
    pixels, _ = reading("dna", "er").read([tmp_path / "colour.jpg", save(tmp_path / "plane.png", PLANES[1])])
    assert np.abs(pixels[..., 0].astype(int) - colour[..., 1]).mean() < 10


def test_the_only_file_of_a_sample_may_be_saved_as_rgb_too(tmp_path: Path) -> None:
    file = save(tmp_path / "a_dna.png", np.repeat(PLANES[0][..., None], 3, axis=2))
    assert np.array_equal(reading("dna").read([file])[0], PLANES[0][..., None])


def test_two_lit_planes_of_rgb_are_colour(tmp_path: Path) -> None:
    colour = np.zeros((24, 36, 3), np.uint8)
    colour[..., :2] = PLANES[0][..., None]
    assert "a colour image" in refused(reading("dna", "er"), save(tmp_path / "colour.png", colour), save(tmp_path / "plane.png", PLANES[1]))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_eight_bits_beside_sixteen_are_brought_to_sixteen(tmp_path: Path, order: tuple[int, int]) -> None:
    twelve = PLANES[1].astype(np.uint16) * 16
    files = (save(tmp_path / "a.png", PLANES[0]), save(tmp_path / "b.png", twelve))
    pixels, facts = reading("x", "y").read([files[place] for place in order])
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels[..., order[0]], PLANES[0].astype(np.uint16) * 257)
    assert np.array_equal(pixels[..., order[1]], twelve)
    assert facts.bits == 16
    assert facts.mode == "2 files of " + ("L, I;16" if order == (0, 1) else "I;16, L")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_floating_point_beside_integers_is_refused(tmp_path: Path, order: tuple[int, int]) -> None:
    files = (save(tmp_path / "a.png", PLANES[0]), save(tmp_path / "b.tif", PLANES[1].astype(np.float32)))
    said = refused(reading("x", "y"), *(files[place] for place in order))
    assert "channel 'y' is" in said
    assert "float32" in said
    assert "uint8" in said


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, wrong: float) -> None:
    values = PLANES[0].astype(np.float32)
    values[3, 5] = wrong
    file = save(tmp_path / "a.tif", values)
    assert "1 pixel is NaN or infinite" in refused(Reading(), file)
    assert "channel 'y', a.tif: 1 pixel is NaN" in refused(reading("x", "y"), save(tmp_path / "b.tif", np.abs(PLANES[1] / 2)), file)
    with pytest.raises(ImageReadError, match="NaN or infinite"):
        reading("x").of_array(values)


# Names that nobody chose ----------------------------------------------------------------------------------------------


def test_the_channels_of_the_first_image_that_can_be_read_are_found(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"II*\0 no more")
    stack = save_stack(tmp_path / "a.ome.tif", PLANES, STAINS)
    assert Reading().names_of([(tmp_path / "broken.tif",), (tmp_path / "none.tif",), (stack,)]) == STAINS
    assert Reading().names_of([(save(tmp_path / "pages.tif", PLANES),), (stack,)]) == ("0", "1", "2", "3")
    assert Reading().names_of([(save(tmp_path / "grey.png", PLANES[0]),), (stack,)]) == ()
    assert Reading().names_of([(save(tmp_path / "rgb.png", np.ascontiguousarray(IMAGE[..., :3])),), (stack,)]) == ()
    assert Reading().names_of([]) == ()
    assert reading("er").names_of([(stack,)]) == ()


def kept_by_the_names_found(stack: Path) -> list[bool]:
    """Whether each plane is where it was when the channels found in a file are asked for."""
    pixels, _ = reading(*Reading().names_of([(stack,)])).read([stack])
    return [np.array_equal(pixels[..., number], plane) for number, plane in enumerate(PLANES)]


@pytest.mark.parametrize(
    "names",
    [
        STAINS,
        (),
        ("GFP", "DAPI", "GFP", "Cy5"),
        ("", "DAPI", "GFP", "Cy5"),
    ],
    ids=["named", "unnamed", "one name twice", "one without name"],
)
def test_the_names_that_are_found_give_every_channel_of_their_file(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert kept_by_the_names_found(save_stack(tmp_path / "a.ome.tif", PLANES, names)) == [True] * 4


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_arrays_without_channels() -> None:
    plain = Reading()
    for grey in (PLANES[0], PLANES[0][..., None], deep(PLANES[0])):
        assert plain.of_array(grey).shape == (24, 36, 1)
    assert np.array_equal(plain.of_array(IMAGE[..., :3]), IMAGE[..., :3])
    assert (Reading("#010203").of_array(np.zeros((4, 4, 4), np.uint8)) == [1, 2, 3]).all()
    assert (Reading("#ff00ff").of_array(np.zeros((4, 4, 4), np.uint16)) == [65535, 0, 65535]).all()
    wrong = [PLANES[0].astype(np.float32), PLANES[0].astype(np.int64), IMAGE[..., :2], PLANES[0][0], PLANES[0][:1], PLANES]
    for array in wrong:
        with pytest.raises(ImageReadError):
            plain.of_array(array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_of_named_channels_are_taken_in_their_order(dtype: Any) -> None:
    array = IMAGE.astype(dtype)
    assert np.array_equal(reading(*STAINS).of_array(array), array)
    assert reading("one").of_array(PLANES[0].astype(dtype)).shape == (24, 36, 1)
    with pytest.raises(ImageReadError, match=r"expected \(height, width, 2\): dna, er"):
        reading("dna", "er").of_array(array)
    with pytest.raises(ImageReadError, match="float64"):
        reading(*STAINS).of_array(IMAGE.astype(np.float64))


def test_the_image_of_a_sample_fits_its_geometry_only_with_as_many_channels(tmp_path: Path) -> None:
    pixels, _ = reading(*STAINS).read(save_each(tmp_path, PLANES))
    with pytest.raises(ImageReadError, match=r"4 channels, where 1 are expected \(grey\)"):
        Geometry(16, 16, "squash", GREY, 8).apply(pixels)
    with pytest.raises(ImageReadError, match="float32 pixels, where most images have uint8"):
        Geometry(16, 16, "squash", STAINS, 8).apply(pixels.astype(np.float32))
    with pytest.raises(ImageReadError, match="uint8 pixels, where most images have float32"):
        Geometry(16, 16, "squash", STAINS, 32).apply(pixels)
