"""A pattern names the files of a sample, and a file tells its sample: one is the inverse of the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.data.patterns import Pattern, is_pattern, missing_files
from coverslip.errors import ConfigError, InputError
from coverslip.structures import Channel

COLOURS = Channel.of("red", "green", "blue")
CLEAR = {
    "{Id}_{channel}.png": ("a_1",),
    "images/{Id}_{channel}.png": ("a_1",),
    "{channel}/{Id}.png": ("a_1",),
    "x/{channel}/raw-{Id}.tif": ("a_1",),
    "{channel}_{Id}": ("a_1",),
    "{channel}/{Id}_{channel}.tif": ("a_1",),
    "{channel}/{Plate}/{Id}.png": ("p-2", "a_1"),
    "{Plate}@{Id}@{channel}.png": ("p-2", "a_1"),
}
"""Patterns and, for each, values of its columns that leave no doubt where one ends."""
values = st.text(st.sampled_from("ab01_-. +()[]^$é"), min_size=1, max_size=8).filter(lambda text: text not in (".", ".."))


# Files of a sample ----------------------------------------------------------------------------------------------------


def test_a_pattern_is_told_from_the_name_of_a_column_by_its_braces() -> None:
    assert [is_pattern(text) for text in ("image", "the image", "{Id}.png", "{Id", "Id}")] == [False, False, True, True, True]


def test_a_sample_has_a_file_for_each_channel_in_their_order() -> None:
    pattern = Pattern("images/{Id}_{channel}.png", COLOURS)
    assert pattern.files({"Id": "a_1"}) == ("images/a_1_red.png", "images/a_1_green.png", "images/a_1_blue.png")
    assert pattern.of_channels
    assert pattern.columns == ["Id"]


def test_the_source_of_a_channel_stands_in_the_file_not_its_name() -> None:
    pattern = Pattern("{Id}_{channel}.png", (Channel("nucleus", "w1"), Channel("er", "w2")))
    assert pattern.files({"Id": "a"}) == ("a_w1.png", "a_w2.png")
    assert pattern.sample_of("a_w2.png") == ("a", ("a_w1.png", "a_w2.png"))
    assert pattern.sample_of("a_nucleus.png") is None


def test_without_channel_a_sample_is_one_file() -> None:
    pattern = Pattern("{Plate}/{Well}-{Plate}.tif", COLOURS)
    assert pattern.files({"Plate": "p", "Well": "B02"}) == ("p/B02-p.tif",)
    assert not pattern.of_channels
    assert pattern.columns == ["Plate", "Well"]


@pytest.mark.parametrize("text", CLEAR)
@pytest.mark.parametrize("channel", ["red", "green", "blue"])
def test_any_file_tells_the_sample_and_all_its_files(text: str, channel: str) -> None:
    pattern, wanted = Pattern(text, COLOURS), dict(zip(Pattern(text, COLOURS).columns, CLEAR[text], strict=True))
    files = pattern.files(wanted)
    own = files[["red", "green", "blue"].index(channel)]
    assert channel in own
    for folder in ("", "some/where/"):
        found = pattern.sample_of(folder + own)
        assert found is not None
        assert found[0].startswith(folder)
        assert found[0].endswith("/".join(CLEAR[text]))
        assert found[1] == tuple(folder + file for file in files)


@given(name=values, place=st.integers(0, 2), folder=st.sampled_from(["", "x/", "class a/deep_er/"]))
@pytest.mark.parametrize(
    "text", ["{Id}_{channel}.png", "{channel}_{Id}.png", "{channel}/{Id}.png", "{Id}{channel}", "{channel}/{Id}_{channel}.tif"]
)
def test_whatever_the_name_its_files_lead_back_to_it(text: str, name: str, place: int, folder: str) -> None:
    pattern = Pattern(text, COLOURS)
    files = tuple(folder + file for file in pattern.files({"Id": name}))
    assert pattern.sample_of(files[place]) == (folder + name, files)
    assert pattern.files_at(folder + name) == files


@given(st.text(max_size=20))
def test_any_text_is_a_file_of_some_sample_or_of_none(file: str) -> None:
    found = Pattern("{Id}_{channel}.png", COLOURS).sample_of(file)
    if found is not None:
        assert file in found[1]


@pytest.mark.parametrize(
    "file", ["a_yellow.png", "a_red.tif", "a-red.png", "_red.png", "red.png", "a_red.png.bak", "a_RED.png", "a_red.png/b"]
)
def test_a_file_of_another_form_is_of_no_sample(file: str) -> None:
    assert Pattern("{Id}_{channel}.png", COLOURS).sample_of(file) is None


def test_a_column_that_stands_twice_has_one_value() -> None:
    pattern = Pattern("{channel}/{Id}-{Id}.png", COLOURS)
    assert pattern.sample_of("red/7-7.png") == ("7", ("red/7-7.png", "green/7-7.png", "blue/7-7.png"))
    assert pattern.sample_of("red/7-8.png") is None
    assert Pattern("{channel}/{Id}_{channel}.png", COLOURS).sample_of("red/7_green.png") is None


def test_a_channel_whose_name_begins_another() -> None:
    pattern = Pattern("{Id}_{channel}.png", Channel.of("ch1", "ch10", "ch1_raw"))
    assert [pattern.sample_of(f"a_{name}.png") for name in ("ch1", "ch10", "ch1_raw")] == [("a", pattern.files({"Id": "a"}))] * 3


def test_a_folder_for_each_sample() -> None:
    pattern = Pattern("{Id}/{channel}.png", COLOURS)
    files = ("x/a/red.png", "x/a/green.png", "x/a/blue.png")
    assert pattern.sample_of("x/a/green.png") == ("x/a", files)
    assert pattern.files_at("x/a") == files


# Many files -----------------------------------------------------------------------------------------------------------


def test_files_are_gathered_to_samples_in_their_order_and_the_others_are_listed() -> None:
    files = ["b_green.png", "b_red.png", "notes.png", "a_red.png", "c/a_blue.png"]
    samples, others = Pattern("{Id}_{channel}.png", COLOURS).gather(files)
    assert [name for name, _ in samples] == ["b", "a", "c/a"]
    assert all(len(own) == 3 for _, own in samples)
    assert others == ["notes.png"]


def test_rows_of_a_table_become_names_and_files() -> None:
    columns = {"Id": ["1", "2"], "Plate": ["p", "q"], "label": ["x", "y"]}
    names, files = Pattern("{Plate}/{Id}_{channel}.png", COLOURS[:2]).rows(columns, "t.csv")
    assert names == ["p/1", "q/2"]
    assert files == [("p/1_red.png", "p/1_green.png"), ("q/2_red.png", "q/2_green.png")]
    assert Pattern("{Id}.png", ()).rows(columns, "t.csv") == (["1", "2"], [("1.png",), ("2.png",)])


def test_missing_files_are_said_by_sample_and_channel() -> None:
    files = [("10_r.png", "10_g.png"), ("9_r.png", "9_g.png"), ("8_r.png", "8_g.png")]
    exists = {file: file in ("10_r.png", "8_r.png", "8_g.png") for own in files for file in own}
    said = missing_files(["10", "9", "8"], files, (Channel("nucleus", "r"), Channel("er", "g")), exists)
    assert said == ["9 has no nucleus (9_r.png) and no er (9_g.png)", "10 has no er (10_g.png)"]
    single = missing_files(["a.png", "b"], [("a.png",), ("b.tif",)], (), {"a.png": False, "b.tif": False})
    assert single == ["a.png", "b (b.tif)"]


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "channels", "message"),
    [
        ("{Id_{channel}.png", COLOURS, r"\{Id_\{channel\}\.png.*columns in braces"),
        ("Id}.png", COLOURS, "columns in braces"),
        ("{}_{channel}.png", COLOURS, "columns in braces"),
        ("{{Id}}.png", COLOURS, "columns in braces"),
        ("{channel}.png", COLOURS, "names no column"),
        ("{Id}_{channel}.png", (), "data.channels="),
    ],
)
def test_a_pattern_that_cannot_name_files(text: str, channels: tuple[Channel, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pattern(text, channels)


def test_a_table_without_the_column() -> None:
    with pytest.raises(InputError, match=r"the table t.csv has no column 'Id' .*Did you mean 'Ids'\? Its columns: Ids, label"):
        Pattern("{Id}_{channel}.png", COLOURS).rows({"Ids": ["1"], "label": ["x"]}, "t.csv")
