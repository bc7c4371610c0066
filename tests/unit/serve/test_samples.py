from __future__ import annotations

from coverslip.data.patterns import Pattern
from coverslip.data.reading import FileContent
from coverslip.serve.samples import gather_samples
from coverslip.structures import Channel

TWO = (Channel("nucleus", "blue"), Channel("protein", "green"))


def parts(*names: str) -> list[FileContent]:
    return [FileContent(name, name.encode()) for name in names]


def test_without_several_channels_each_part_is_a_sample() -> None:
    for channels in ((), TWO[:1]):
        found = gather_samples(parts("a_blue.png", "a_green.png", "a_blue.png"), channels, None)
        assert [one.name for one in found] == ["a_blue.png", "a_green.png", "a_blue.png"]
        assert all(len(one.files) == 1 for one in found)


def test_channels_come_into_the_order_of_the_model() -> None:
    found = gather_samples(parts("x/a_green.png", "b-BLUE.tif", "x/a_blue.png", "b_protein.tif"), TWO, None)
    assert [(one.name, [file.name for file in one.files]) for one in found] == [
        ("x/a", ["x/a_blue.png", "x/a_green.png"]),
        ("b", ["b-BLUE.tif", "b_protein.tif"]),
    ]


def test_the_pattern_of_the_model_comes_first() -> None:
    pattern = Pattern("{channel}/{Id}.png", TWO)
    found = gather_samples(parts("plate/green/7.png", "plate/blue/7.png", "blue/8.png", "green/8.png"), TWO, pattern)
    assert [[file.name for file in one.files] for one in found] == [
        ["plate/blue/7.png", "plate/green/7.png"],
        ["blue/8.png", "green/8.png"],
    ]


def test_whole_samples_and_the_same_name_twice() -> None:
    found = gather_samples(parts("stack.tif", "a_blue.png", "a_blue.png", "a_green.png", "a_green.png"), TWO, None)
    assert [len(one.files) for one in found] == [1, 2, 2]
    assert found[1].files[0] is not found[2].files[0]


def test_what_is_missing_is_named() -> None:
    (found,) = gather_samples(parts("a_green.png"), TWO, None)
    assert found.files == ()
    assert found.problem == "there is no file for the channel blue (a_green.png came); a sample has blue, green"
