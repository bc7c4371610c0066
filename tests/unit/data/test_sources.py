"""Folders and tables become a `Table`; whatever is wrong is named, with the way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from coverslip.config import DataConfig, SplitConfig, load_config
from coverslip.data.inputs import list_samples
from coverslip.data.sources import load_table
from coverslip.errors import ConfigError, InputError, MissingInputError
from coverslip.structures import Table, Task


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(root / name, "PNG")
    return root


def load(path: Path | str, split: SplitConfig | None = None, **data: object) -> Table:
    return load_table(DataConfig(path=str(path), **data), split or SplitConfig())


def write(root: Path, text: str, name: str = "table.csv") -> Path:
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def test_folder_of_class_folders_in_natural_order(tmp_path):
    touch(tmp_path, "c10/a.png", "c2/b10.png", "c2/b9.PNG", "c2/deep/er.tif", "C1/x.jpeg")
    for clutter in ("c2/notes.txt", "c2/.hidden.png", "c2/Thumbs.db"):
        (tmp_path / clutter).write_text("x")
    touch(tmp_path, "__MACOSX/c2/._b9.png", ".git/x.png")
    table = load(tmp_path)
    assert table.classes == ("C1", "c2", "c10")
    assert table.images == ("C1/x.jpeg", "c2/b9.PNG", "c2/b10.png", "c2/deep/er.tif", "c10/a.png")
    assert table.labels.tolist() == [0, 1, 1, 1, 2]
    assert table.task is Task.MULTICLASS
    assert set(table.ignored) == {"c2/notes.txt", "c2/.hidden.png", "c2/Thumbs.db"}
    assert table.preset is None
    assert table.groups is None
    assert any("natural order: C1, c2, c10" in note for note in table.notes)


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Training", "VAL", "Testing"), ("train", "valid", "test"), ("train", "test")]
)
def test_parts_above_the_classes_become_the_preset(tmp_path, names):
    for name in names:
        touch(tmp_path, f"{name}/a/1.png", f"{name}/b/2.png")
    table = load(tmp_path)
    assert table.preset is not None
    assert set(table.preset) == ({"train", "test"} if len(names) == 2 else {"train", "validation", "test"})
    assert table.classes == ("a", "b")
    assert table.task is Task.BINARY
    for image, part in zip(table.images, table.preset, strict=True):
        assert image[:2].casefold() == part[:2]


def test_many_classes_are_stated_by_the_first_and_the_last(tmp_path):
    table = load(touch(tmp_path, *(f"c{number}/a.png" for number in range(40))))
    assert any(note.endswith("c26, c27, ... c39 (40 in all)") for note in table.notes)


def test_classes_may_be_called_test_and_train(tmp_path):
    table = load(touch(tmp_path, "train/1.png", "test/2.png", "plane/3.png"))
    assert table.classes == ("plane", "test", "train")
    assert table.preset is None


def test_parts_and_strangers_beside_them(tmp_path):
    with pytest.raises(InputError, match="beside them extra"):
        load(touch(tmp_path, "train/a/1.png", "train/b/1.png", "extra/c/1.png"))


def test_browsers_call_jpeg_files_by_other_names(tmp_path):
    assert load(touch(tmp_path, "a/1.jfif", "a/2.JPE", "b/3.jpg")).images == ("a/1.jfif", "a/2.JPE", "b/3.jpg")


def test_loose_images_are_listed_and_not_used(tmp_path):
    table = load(touch(tmp_path, "a/1.png", "b/1.png", "loose.png"))
    assert len(table) == 2
    assert "loose.png" in table.ignored
    assert any("1 images lie in no class folder" in note for note in table.notes)


def test_link_loops_end(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert load(tmp_path).images == ("a/1.png", "b/1.png")


def test_linked_class_folder_is_read(tmp_path):
    touch(tmp_path, "elsewhere/1.png", "data/a/1.png")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert load(tmp_path / "data").classes == ("a", "b")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv(tmp_path, separator, mark):
    touch(tmp_path, "img/1.png", "img/2.png", "img/3.png")
    rows = [["image", "label", "plate"], ["img/2.png", "NA", "p1"], ["img/1.png", "01", "p2"], ["img/3.png", "NA", "p1"]]
    table = load(write(tmp_path, mark + "\n".join(separator.join(row) for row in rows)), SplitConfig(group="plate"))
    assert table.images == ("img/2.png", "img/1.png", "img/3.png")
    assert table.classes == ("01", "NA")
    assert table.labels.tolist() == [1, 0, 1]
    assert table.groups is not None
    assert table.groups.tolist() == ["p1", "p2", "p1"]
    assert table.root == tmp_path


def test_parquet_with_other_columns_and_whole_numbers(tmp_path):
    touch(tmp_path, "1.png", "2.png")
    frame = pd.DataFrame({"file": ["1.png", str(tmp_path / "2.png")], "kind": [3, 12], "part": ["Train", "val"]})
    frame.to_parquet(tmp_path / "t.parquet")
    table = load(tmp_path / "t.parquet", SplitConfig(preset="part"), image="file", labels="kind")
    assert table.classes == ("3", "12")
    assert table.preset is not None
    assert table.preset.tolist() == ["train", "validation"]
    assert [path.is_file() for (path,) in table.samples] == [True, True]


@pytest.mark.parametrize(("encoding", "mark", "end"), [("cp1252", ";", "\n"), ("utf-8-sig", ";", "\r\n"), ("utf-16", "\t", "\r\n")])
def test_csv_of_windows_spreadsheets(tmp_path, encoding, mark, end):
    touch(tmp_path, "1.png", "2.png")
    lines = ["image;label", "1.png;größer", "2.png;kleiner", ""]
    (tmp_path / "t.csv").write_bytes(end.join(lines).replace(";", mark).encode(encoding))
    assert load(tmp_path / "t.csv").classes == ("größer", "kleiner")


def test_merge_order_and_positive(tmp_path):
    touch(tmp_path, "regular/1.png", "repeat/1.png", "chimeric/1.png")
    table = load(tmp_path, merge={"non_chimeric": ["regular", "repeat"]})
    assert table.classes == ("chimeric", "non_chimeric")
    assert table.task is Task.BINARY
    assert any("merged regular, repeat into non_chimeric (2 images)" in note for note in table.notes)
    positive = load(tmp_path, merge={"non_chimeric": ["regular", "repeat"]}, positive="chimeric")
    assert positive.classes == ("non_chimeric", "chimeric")
    assert [positive.label_text(i) for i in range(3)] == [table.label_text(i) for i in range(3)]
    assert load(tmp_path, classes=["repeat", "chimeric", "regular"]).classes == ("repeat", "chimeric", "regular")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"merge": {"x": ["regulr"]}}, "Did you mean 'regular'"),
        ({"classes": ["regular", "repeat"]}, "missing: chimeric"),
        ({"classes": ["regular", "repeat", "chimerc"]}, "Did you mean 'chimeric'"),
        ({"positive": "chimerc"}, "Did you mean 'chimeric'"),
        ({"positive": "chimeric"}, "there are 3"),
        ({"merge": {"x": ["regular"], "y": ["regular"]}}, "into 'x' and into 'y'"),
        ({"merge": {"all": ["regular", "repeat", "chimeric"]}}, "only one class, 'all'"),
    ],
)
def test_wrong_classes(tmp_path, data, message):
    touch(tmp_path, "regular/1.png", "repeat/1.png", "chimeric/1.png")
    with pytest.raises((InputError, ConfigError), match=message):
        load(tmp_path, **data)


def test_groups_by_pattern(tmp_path):
    touch(tmp_path, "a/cn_1.png", "a/sc_2.png", "b/cn_3.png")
    table = load(tmp_path, SplitConfig(group="regex:^([^_]+)_"))
    assert table.groups is not None
    assert table.groups.tolist() == ["cn", "sc", "cn"]
    whole = load(tmp_path, SplitConfig(group="regex:^.."))
    assert whole.groups is not None
    assert np.array_equal(whole.groups, table.groups)
    with pytest.raises(InputError, match=r"1 of 3 file names do not match.*sc_2.png"):
        load(tmp_path, SplitConfig(group="regex:^(cn)"))
    with pytest.raises(ConfigError, match="not a regular expression"):
        load(tmp_path, SplitConfig(group="regex:(("))
    with pytest.raises(InputError, match="is a folder; say regex"):
        load(tmp_path, SplitConfig(group="plate"))
    with pytest.raises(InputError, match=r"split\.preset"):
        load(tmp_path, SplitConfig(preset="part"))


def test_a_pattern_with_a_slash_looks_at_the_whole_path(tmp_path):
    touch(tmp_path, "a/plate1/x.png", "a/plate2/x.png", "b/plate1/y.png")
    table = load(tmp_path, SplitConfig(group="regex:/(plate[0-9])/"))
    assert table.groups is not None
    assert table.groups.tolist() == ["plate1", "plate2", "plate1"]
    with pytest.raises(InputError, match=r"3 of 3 file names do not match .* a pattern that holds a / is looked for in the whole path"):
        load(tmp_path, SplitConfig(group="regex:(plate[0-9])"))
    with pytest.raises(InputError, match=r"1 of 3 paths do not match .*: b/plate1/y.png$"):
        load(tmp_path, SplitConfig(group="regex:a/(plate[0-9])"))


def test_backslashes_of_tables_from_windows(tmp_path):
    touch(tmp_path, "img/a.png", "img/b.png", "c.png")
    path = write(tmp_path, "image,label\nimg\\a.png,yes\nimg/b.png,no\nc.png,no\n")
    table = load(path)
    assert table.images == ("img\\a.png", "img/b.png", "c.png")
    assert [(tmp_path / file).is_file() for (file,) in table.names] == [True] * 3
    samples, names = list_samples([path], DataConfig())
    assert names == list(table.images)
    assert all(Path(file).is_file() for (file,) in samples)
    with pytest.raises(MissingInputError, match=r"1 of the 2 images lacks files"):
        load(write(tmp_path, "image,label\nimg\\x.png,yes\nc.png,no\n"))


def test_wrong_paths(tmp_path):
    touch(tmp_path, "gels/a/1.png", "gels/b/1.png")
    with pytest.raises(MissingInputError, match="Did you mean 'gels'"):
        load(tmp_path / "gel")
    with pytest.raises(MissingInputError, match="Did you mean 'gels'"):
        load(tmp_path / "gelz" / "a" / "b")
    with pytest.raises(InputError, match="ftp:// is not read"):
        load("ftp://host/gels")
    with pytest.raises(InputError, match="no data given"):
        load_table(DataConfig(), SplitConfig())
    with pytest.raises(InputError, match="neither a folder nor a table"):
        load(tmp_path / "gels" / "a" / "1.png")


def test_wrong_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is empty"):
        load(tmp_path / "empty")
    with pytest.raises(InputError, match="3 images that lie in no class folder"):
        load(touch(tmp_path / "flat", "1.png", "2.png", "3.png"))
    with pytest.raises(InputError, match="only one class, 'a'"):
        load(touch(tmp_path / "one", "a/1.png"))
    write(tmp_path / "one", "image,label\n", "train.csv")
    with pytest.raises(InputError, match=r"holds the folder a only.*the table train.csv: to read that, say .*train.csv"):
        load(tmp_path / "one")
    (touch(tmp_path / "hole", "a/1.png", "b/1.png") / "c").mkdir()
    with pytest.raises(InputError, match="no images in the class folder c"):
        load(tmp_path / "hole")
    (tmp_path / "text" / "a").mkdir(parents=True)
    (tmp_path / "text" / "a" / "x.txt").write_text("x")
    with pytest.raises(InputError, match="no file that ends in"):
        load(tmp_path / "text")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagee,label\n1.png,a\n", r"no column 'image' \(data.image\). Did you mean 'imagee'.*Its columns: imagee, label"),
        ("image,labels\n1.png,a\n", "no column 'label'"),
        ("image,label\n", "no rows"),
        ("", "cannot be read as a table"),
        ("image,label\n1.png,a,b\n2.png,b\n", "cannot be read as a table: a line holds more values .* put quotes around"),
        ("image,label\n1.png,a\n2.png,a,b\n", "cannot be read as a table: line 3 holds more values .* put quotes around"),
        ('image,label\n1.png,"a\n2.png,b\n', "cannot be read as a table: EOF inside string"),
        ("image,label\n1.png,a\n2.png,\n", "1 row .* no value .* data.labels: line 3"),
        ("image,label\n1.png,a\n2.png,b\n9.png,b\n", "1 of the 3 images lacks files: 9.png"),
        ("image,label\n1.png,a\n./1.png,a\n2.png,b\n", "1 image is listed more than once"),
        ("image,label\n1.png,a\n1.png,b\n2.png,b\n", r"1 image stands under two labels .*1.png \(a, b\)"),
    ],
)
def test_wrong_tables(tmp_path, text, message):
    touch(tmp_path, "1.png", "2.png")
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, text))


def test_marks_at_the_end_of_every_line_are_no_values(tmp_path):
    touch(tmp_path, "1.png", "2.png")
    assert load(write(tmp_path, "image,label\n1.png,a,\n2.png,b,\n")).classes == ("a", "b")


# Several labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [" ", "|", ";", ","])
@pytest.mark.parametrize("column", [",", ";", "\t"])
def test_several_labels_with_a_stated_mark_between(tmp_path, mark, column):
    touch(tmp_path, "1.png", "2.png", "3.png")
    rows = [["image", "labels"], ["1.png", f'"b{mark}a"'], ["2.png", '"b"'], ["3.png", f'"a {mark} c{mark}a"']]
    table = load(write(tmp_path, "\n".join(column.join(row) for row in rows)), labels="labels", separator=mark)
    assert table.task is Task.MULTILABEL
    assert table.classes == ("a", "b", "c")
    assert table.labels.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("TRUE", "false")])
def test_a_column_of_zeros_and_ones_a_class(tmp_path, yes, no):
    touch(tmp_path, "1.png", "2.png")
    text = f"image,dot,bar\n1.png,{yes},{no}\n2.png,{yes},{yes}\n"
    table = load(write(tmp_path, text), labels=["dot", "bar"], classes=["bar", "dot"])
    assert table.classes == ("bar", "dot")
    assert table.labels.tolist() == [[0, 1], [1, 1]]


def test_a_column_of_zeros_is_a_class_too(tmp_path):
    touch(tmp_path, "1.png", "2.png")
    table = load(write(tmp_path, "image,c,a,b\n1.png,1,0,0\n2.png,1,0,1\n"), labels=["c", "a", "b"])
    assert table.classes == ("a", "b", "c")
    assert table.labels.tolist() == [[0, 0, 1], [0, 1, 1]]


def test_booleans_of_parquet(tmp_path):
    touch(tmp_path, "1.png", "2.png")
    frame = pd.DataFrame({"image": ["1.png", "2.png"], "dot": [True, False], "bar": [1.0, 1.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert load(tmp_path / "t.parquet", labels=["dot", "bar"]).labels.tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ("image,a,b\n1.png,1,0\n2.png,2,1\n", {"labels": ["a", "b"]}, r"'2' under a \(line 3\); expected 0 or 1"),
        ("image,a,b\n1.png,1,\n2.png,0,1\n", {"labels": ["a", "b"]}, r"hold nothing under b \(line 2\)"),
        ("image,a,b\n1.png,1,0\n2.png,0,1\n", {"labels": ["a", "bb"]}, "no column 'bb'"),
        ("image,a,b\n1.png,1,0\n2.png,0,0\n", {"labels": ["a", "b"]}, r"1 row has no label: line 3 .*allow_empty"),
        (
            "image,label\n1.png,a|b\n1.png,b\n2.png,a\n",
            {"separator": "|"},
            r"two labels .*1.png \(a\|b and b\); one image stands in one row",
        ),
        ("image,label\n1.png,a|b\n1.png,b|a\n2.png,a\n", {"separator": "|"}, "1 image is listed more than once"),
        ("image,label\n1.png,a|b\n2.png,\n", {"separator": "|"}, r"1 row has no label: line 3 .*allow_empty"),
        ("image,label\n1.png,a|b\n2.png,c\n", {"separator": "|", "classes": ["a", "b"]}, r"1 label .* not in data\.classes: c"),
    ],
)
def test_wrong_tables_of_several_labels(tmp_path, text, data, message):
    touch(tmp_path, "1.png", "2.png")
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, text), **data)


def test_groups_parts_and_files_follow_the_rows_that_are_kept(tmp_path):
    touch(tmp_path / "images", *both("a", "b", "c", "d"))
    text = "Id,label,plate,part\na,x|y,p1,train\nb,z,p2,test\nc,y,p3,val\nd,x,p4,test\n"
    split = SplitConfig(group="plate", preset="part")
    table = load(write(tmp_path, text), split, **BY_CHANNEL, separator="|", keep=["x", "y"])
    assert table.images == ("a", "c", "d")
    assert table.files is not None
    assert [own[0] for own in table.files] == ["images/a_red.png", "images/c_red.png", "images/d_red.png"]
    assert table.groups is not None
    assert table.preset is not None
    assert table.groups.tolist() == ["p1", "p3", "p4"]
    assert table.preset.tolist() == ["train", "validation", "test"]
    assert table.labels.tolist() == [[1, 1], [0, 1], [1, 0]]
    assert "1 of 4 rows are left without a label by the classes that were dropped, and are not used" in table.notes


def test_one_column_for_two_classes():
    with pytest.raises(ConfigError, match="expected each column once; a stands there more than once"):
        load_config({"data": {"labels": ["a", "b", "a"]}})


# Splits ---------------------------------------------------------------------------------------------------------------


def test_wrong_columns_of_the_split(tmp_path):
    touch(tmp_path, "1.png", "2.png")
    table = write(tmp_path, "image,label,part\n1.png,a,train\n2.png,b,holdout\n")
    with pytest.raises(InputError, match="'holdout'"):
        load(table, SplitConfig(preset="part"))
    with pytest.raises(InputError, match=r"table.csv has no column 'parts'.*Did you mean 'part'"):
        load(table, SplitConfig(group="parts"))
    table = write(tmp_path, "image,label,plate\n1.png,a,p1\n2.png,b,\n")
    with pytest.raises(InputError, match=r"1 row .* has no value in the column of split\.group: line 3"):
        load(table, SplitConfig(group="plate"))


def test_list_samples(tmp_path):
    touch(tmp_path, "in/b10.png", "in/b9.png", "in/deep/c.png", "single.dat")
    (tmp_path / "in" / "notes.txt").write_text("x")
    table = write(tmp_path, "image\nin/b9.png\nnone.png\n")
    plain = DataConfig()
    samples, names = list_samples([tmp_path / "in"], plain)
    assert names == ["b9.png", "b10.png", "deep/c.png"]
    assert samples[2] == (tmp_path / "in" / "deep" / "c.png",)
    assert list_samples([table], plain)[1] == ["in/b9.png", "none.png"]
    assert list_samples([str(tmp_path / "single.dat")], plain)[0] == [(tmp_path / "single.dat",)]
    both, _ = list_samples([tmp_path / "in", tmp_path / "in" / "b9.png"], plain)
    assert len(both) == 3
    touch(tmp_path, "other/b9.png")
    _, clashing = list_samples([tmp_path / "in", tmp_path / "other"], plain)
    assert len(set(clashing)) == 4
    (tmp_path / "void").mkdir()
    with pytest.raises(InputError, match="no images in"):
        list_samples([tmp_path / "void"], plain)
    with pytest.raises(MissingInputError):
        list_samples([tmp_path / "nowhere"], plain)


# Samples of one file a channel ----------------------------------------------------------------------------------------

BY_CHANNEL = {"image": "images/{Id}_{channel}.png", "channels": ["red", "green"]}


def both(*ids: str) -> list[str]:
    return [f"{name}_{channel}.png" for name in ids for channel in ("red", "green")]


def test_a_table_with_a_pattern(tmp_path):
    touch(tmp_path / "images", *both("a_1", "b_2", "c_3"))
    path = write(tmp_path, "Id,label,plate\nb_2,x,p\na_1,y,q\nc_3,x,p\n")
    table = load(path, SplitConfig(group="plate"), **BY_CHANNEL)
    assert table.images == ("b_2", "a_1", "c_3")
    assert table.files is not None
    assert table.files[1] == ("images/a_1_red.png", "images/a_1_green.png")
    assert table.samples[0] == (tmp_path / "images" / "b_2_red.png", tmp_path / "images" / "b_2_green.png")
    assert all(file.is_file() for files in table.samples for file in files)
    assert table.labels.tolist() == [0, 1, 0]
    assert table.groups is not None
    assert table.groups.tolist() == ["p", "q", "p"]


def test_the_files_carry_the_source_of_a_channel_in_the_order_of_the_config(tmp_path):
    touch(tmp_path / "images", *both("a", "b"))
    path = write(tmp_path, "Id,label\na,x\nb,y\n")
    table = load(path, image=BY_CHANNEL["image"], channels={"er": "green", "nucleus": "red"})
    assert table.files is not None
    assert table.files[0] == ("images/a_green.png", "images/a_red.png")


def test_a_table_with_a_pattern_of_single_files(tmp_path):
    touch(tmp_path, "p1/a.tif", "p2/a.tif")
    table = load(write(tmp_path, "Plate,Id,label\np1,a,x\np2,a,y\n"), image="{Plate}/{Id}.tif")
    assert table.images == ("p1/a", "p2/a")
    assert table.samples == [(tmp_path / "p1" / "a.tif",), (tmp_path / "p2" / "a.tif",)]
    with pytest.raises(MissingInputError, match=r"1 of the 2 images lacks files: p1/b \(p1/b\.tif\)"):
        load(write(tmp_path, "Plate,Id,label\np1,b,x\np2,a,y\n"), image="{Plate}/{Id}.tif")


def test_a_missing_channel_names_its_sample_its_channel_and_its_file(tmp_path):
    touch(tmp_path / "images", *both("a", "b"))
    (tmp_path / "images" / "b_green.png").unlink()
    path = write(tmp_path, "Id,label\na,x\nb,y\n")
    with pytest.raises(MissingInputError, match=r"1 of the 2 images lacks files: b has no green \(images/b_green\.png\)") as caught:
        load(path, **BY_CHANNEL)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(MissingInputError, match=r"b has no er \(images/b_green\.png\)"):
        load(path, image=BY_CHANNEL["image"], channels={"dna": "red", "er": "green"})


@pytest.mark.parametrize("form", ["images/{Id}_{channel}.png", "{channel}/{Id}.png", "{Id}/{channel}/{Id}_{channel}.png"])
def test_a_channel_that_no_sample_has_is_told_with_those_that_are_there(tmp_path, form):
    files = [form.format(Id=name, channel=channel) for name in ("a", "b") for channel in ("red", "green", "grey")]
    path = write(touch(tmp_path, *files), "Id,label\na,x\nb,y\n")
    told = r"has no gren.*No image has the channel 'gren'\. Did you mean 'green'\? The first has green, grey, red \(data\.channels\)"
    with pytest.raises(MissingInputError, match=told):
        load(path, image=form, channels=["red", "gren"])
    with pytest.raises(MissingInputError, match=r"not one file of the 2 images .*channel 'Gren'\. Did you mean 'green'"):
        load(path, image=form, channels={"protein": "Gren"})


def test_a_pattern_that_leads_nowhere_is_told_once(tmp_path):
    path = write(touch(tmp_path / "images", *both("a", "b")), "Id,label\na,x\nb,y\n")
    with pytest.raises(
        MissingInputError, match=r"not one file of the 2 images is there .*the first would be x/a_red\.png.*relative to"
    ) as caught:
        load(path.rename(tmp_path / "t.csv"), **{**BY_CHANNEL, "image": "x/{Id}_{channel}.png"})
    assert "The first has" not in str(caught.value)
    with pytest.raises(InputError, match=r"no column 'chanel'.*Did you mean 'channel'"):
        load(tmp_path / "t.csv", image="images/{Id}_{chanel}.png", channels=["red"])


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ("Ids,label\na,x\nb,y\n", BY_CHANNEL, r"no column 'Id' .*Did you mean 'Ids'"),
        ("Id,label\na,x\nb,y\n", {"image": "{Id}_{channel}.png"}, "data.channels="),
        ("Id,label\na,x\nb,y\n", {"image": "{Id_red.png"}, "columns in braces"),
        ("Id,label\na,x\na,x\nb,y\n", BY_CHANNEL, "1 image is listed more than once"),
        ("Id,label\na,x\na,y\nb,y\n", BY_CHANNEL, r"1 image stands under two labels .*a \(x, y\)"),
        ("Id,label\na,x\n,y\nb,y\n", BY_CHANNEL, "1 row .* line 3"),
    ],
)
def test_wrong_tables_with_a_pattern(tmp_path, text, data, message):
    touch(tmp_path / "images", *both("a", "b"))
    with pytest.raises((InputError, ConfigError), match=message):
        load(write(tmp_path, text), **data)


def test_a_folder_of_class_folders_with_a_file_for_each_channel(tmp_path):
    touch(tmp_path, "cat/odd.png", *(f"{name}/{file}" for name in ("cat", "dog") for file in both("1", "2_x")))
    table = load(tmp_path, image="{Id}_{channel}.png", channels=["red", "green"])
    assert table.images == ("cat/1", "cat/2_x", "dog/1", "dog/2_x")
    assert table.labels.tolist() == [0, 0, 1, 1]
    assert table.files is not None
    assert table.files[1] == ("cat/2_x_red.png", "cat/2_x_green.png")
    assert table.ignored == ("cat/odd.png",)
    with pytest.raises(InputError, match=r"none of the 9 images .* is of the form of data.image = '\{Id\}-\{channel\}.png'"):
        load(tmp_path, image="{Id}-{channel}.png", channels=["red", "green"])
    (tmp_path / "dog" / "1_red.png").unlink()
    with pytest.raises(MissingInputError, match=r"dog/1 has no red \(dog/1_red\.png\)"):
        load(tmp_path, image="{Id}_{channel}.png", channels=["red", "green"])


def test_a_folder_of_parts_with_a_folder_for_each_channel(tmp_path):
    names = [f"{part}/{name}/{channel}/{part}{name}.png" for part in ("train", "test") for name in "ab" for channel in ("red", "green")]
    table = load(touch(tmp_path, *names), image="{channel}/{Id}.png", channels=["red", "green"])
    assert sorted(table.images) == ["test/a/testa", "test/b/testb", "train/a/traina", "train/b/trainb"]
    assert table.classes == ("a", "b")
    assert table.preset is not None
    assert [image.split("/")[0] for image in table.images] == table.preset.tolist()
    assert all(len(files) == 2 and all(file.is_file() for file in files) for files in table.samples)


def test_a_folder_of_class_folders_with_a_folder_for_each_sample(tmp_path):
    touch(tmp_path, *(f"{name}/{number}/{channel}.png" for name in "ab" for number in (1, 2) for channel in ("red", "green")))
    table = load(tmp_path, image="{Id}/{channel}.png", channels=["red", "green"])
    assert table.images == ("a/1", "a/2", "b/1", "b/2")


def test_a_folder_of_files_of_microscopes(tmp_path):
    table = load(touch(tmp_path, "a/1.czi", "a/2.nd2", "b/1.LIF"), channels=["dna"])
    assert table.images == ("a/1.czi", "a/2.nd2", "b/1.LIF")


def test_samples_to_predict_by_table_by_folder_by_any_file_and_by_path(tmp_path):
    touch(tmp_path / "images", *both("a_1", "b_2"))
    config, folder = DataConfig(**BY_CHANNEL), tmp_path / "images"
    first, second = [tuple(folder / file for file in both(name)) for name in ("a_1", "b_2")]
    table = write(tmp_path, "Id,label\nb_2,x\na_1,y\n")
    assert list_samples([table], config) == ([second, first], ["b_2", "a_1"])
    assert list_samples([folder], config) == ([first, second], ["a_1", "b_2"])
    assert list_samples([tmp_path], config) == ([first, second], ["images/a_1", "images/b_2"])
    for file in second:
        assert list_samples([file], config) == ([second], [str(folder / "b_2")])
    assert list_samples([str(folder / "b_2")], config) == ([second], [str(folder / "b_2")])
    assert sorted(list_samples([*second, *first, folder / "a_1", folder], config)[0]) == [first, second]


def test_an_image_of_another_form_is_a_sample_of_one_file(tmp_path):
    touch(tmp_path, "all_channels.tif", *both("a"))
    config = DataConfig(image="{Id}_{channel}.png", channels=["red", "green"])
    assert list_samples([tmp_path / "all_channels.tif"], config) == (
        [(tmp_path / "all_channels.tif",)],
        [str(tmp_path / "all_channels.tif")],
    )
    assert sorted(list_samples([tmp_path], config)[0]) == [tuple(tmp_path / file for file in both("a")), (tmp_path / "all_channels.tif",)]


def test_a_path_of_no_sample_is_named(tmp_path):
    touch(tmp_path, *both("plate_a"))
    config = DataConfig(image="{Id}_{channel}.png", channels=["red", "green"])
    with pytest.raises(MissingInputError, match=r"there is nothing at .*plate_c"):
        list_samples([tmp_path / "plate_c"], config)
    with pytest.raises(InputError, match="no column 'Id'"):
        list_samples([write(tmp_path, "image\nplate_a_red.png\n")], config)
