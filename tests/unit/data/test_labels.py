import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coverslip.config import DataConfig
from coverslip.data.labels import class_names, separator_note, several_labels, single_labels
from coverslip.errors import ConfigError, InputError
from coverslip.structures import Task

SETS = [("cat", "dog"), ("dog",), ("bird", "cat"), ("dog", "cat", "bird")]


def several(sets: Any = SETS, known: Any = None, **keys: Any) -> Any:
    return several_labels([tuple(labels) for labels in sets], DataConfig(separator="|", **keys), known)


def test_one_column_of_zeros_and_ones_a_class_in_natural_order() -> None:
    found = several()
    assert found.classes == ("bird", "cat", "dog")
    assert found.targets.tolist() == [[0, 1, 1], [0, 0, 1], [1, 1, 0], [1, 1, 1]]
    assert found.task is Task.MULTILABEL
    assert found.kept.tolist() == [0, 1, 2, 3]


def test_numbers_count_into_the_stated_names_and_names_stand_for_themselves() -> None:
    found = several([("0", "2"), ("dog",)], classes=["cat", "dog", "bird"])
    assert found.classes == ("cat", "dog", "bird")
    assert found.targets.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_a_stated_class_without_an_image_keeps_its_column() -> None:
    assert several([("0",), ("1",)], classes=["a", "b", "c"]).targets.tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("label", ["28", "dgo"])
def test_a_label_that_is_not_in_the_class_list(label: str) -> None:
    with pytest.raises(InputError, match=rf"1 label of the table is not in data\.classes: {label} \(line 3\).*3 classes: cat, dog, bird"):
        several([("cat",), (label,)], classes=["cat", "dog", "bird"])


def test_where_labels_that_are_in_no_list_stand_is_said() -> None:
    rows = [("cat",), ("x1", "dog"), ("x2",), ("x1",), *[(f"x{number}",) for number in range(3, 9)]]
    with pytest.raises(InputError, match=r"8 labels of the table are not .*: x1 \(line 3\), x2 \(line 4\), .*x5 \(line 8\) and 3 more"):
        several(rows, classes=["cat", "dog"])


def test_another_list_of_classes_beside_the_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("one\ntwo\nthree\n")
    told = "classes.txt beside the table has 3 others: where it is meant, say -s data.classes=classes.txt"
    config = DataConfig(separator=" ", classes=["cat", "dog"])
    assert any(told in note for note in several_labels([("0",), ("1",)], config, folder=tmp_path).notes)
    assert not any("beside" in note for note in several_labels([("cat",), ("dog",)], config, folder=tmp_path).notes)
    alike = DataConfig(separator=" ", classes=["one", "two", "three"])
    assert not any("beside" in note for note in several_labels([("0",), ("1",)], alike, folder=tmp_path).notes)
    named = DataConfig(separator=" ", classes="classes.txt")
    assert not any("beside" in note for note in several_labels([("0",), ("1",)], named, folder=tmp_path).notes)


def test_class_names_from_a_file_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("one\ntwo words\n\nthree\n")
    assert class_names(DataConfig(classes="names.txt"), tmp_path) == ["one", "two words", "three"]
    with pytest.raises(InputError, match=r"data\.classes = 'other\.txt': there is no such file"):
        class_names(DataConfig(classes="other.txt"), tmp_path)
    with pytest.raises(InputError, match="names a more than once"):
        class_names(DataConfig(classes=["a", "b", "a"]))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("names.csv", b"number,name\n0,one\n", "is a table, which begins 'number,name'"), ("names.txt", b"gr\xf6n\n", "not UTF-8 text")],
)
def test_files_that_are_no_list_of_class_names(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        class_names(DataConfig(classes=name), tmp_path)


def test_one_name_a_line_may_lie_in_a_file_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("one\ntwo, words\n")
    assert class_names(DataConfig(classes="names.csv"), tmp_path) == ["one", "two, words"]


@pytest.mark.parametrize("mark", ["|", ";", ",", " "])
def test_the_mark_that_fits_is_offered(mark: str) -> None:
    offered = re.escape(f"Parted at {mark!r} they are: -s 'data.separator=\"{mark}\"'.")
    with pytest.raises(InputError, match=rf"not in data\.classes.*{offered}"):
        several([(f"0{mark}2",), ("1",)], classes=["cat", "dog", "bird"])
    other = ";" if mark != ";" else "|"
    for stated in (None, other):
        [note] = separator_note([f"0{mark}2", "1", f"1{mark}12"], stated)
        assert f"2 labels hold {mark!r}" in note
        assert ("no label holds" in note) == (stated is not None)
    assert separator_note([f"0{mark}2", "1"], mark) == ()


def test_spaces_in_names_are_no_mark() -> None:
    assert separator_note(["Golgi apparatus", "Nuclear bodies", "Cytosol"], None) == ()
    with pytest.raises(InputError, match=r"which is not in the data.*2 labels hold ' '"):
        single_labels(["0 1", "1", "2 0"], DataConfig(classes=["cat", "dog", "bird"]))


def test_merged_classes_are_carried_once() -> None:
    found = several(merge={"pet": ["cat", "dog"]})
    assert found.classes == ("bird", "pet")
    assert found.targets.tolist() == [[0, 1], [0, 1], [1, 1], [1, 1]]
    assert any("merged cat, dog into pet (4 images)" in note for note in found.notes)


def test_kept_classes_and_rows_that_are_left_without_a_label() -> None:
    found = several(keep=["bird", "cat"])
    assert found.classes == ("bird", "cat")
    assert found.kept.tolist() == [0, 2, 3]
    assert found.targets.tolist() == [[0, 1], [1, 1], [1, 1]]
    assert any("1 of 4 rows are left without a label" in note for note in found.notes)
    assert several(keep=["bird", "cat"], allow_empty=True).targets.tolist() == [[0, 1], [0, 0], [1, 1], [1, 1]]
    with pytest.raises(InputError, match=r"data\.keep names 'brid'.*bird"):
        several(keep=["brid", "cat"])


def test_rare_classes_are_dropped_and_named() -> None:
    found = several(drop_rare=3)
    assert found.classes == ("cat", "dog")
    assert any("dropped bird (2 images)" in note for note in found.notes)
    with pytest.raises(InputError, match="1 classes are left"):
        several([("a",), ("a", "b"), ("a",)], drop_rare=3)


def test_an_empty_cell_needs_leave() -> None:
    with pytest.raises(InputError, match=r"1 row has no label: line 3 .*data\.allow_empty=true"):
        several([("a",), (), ("b",)])
    assert several([("a",), (), ("b",)], allow_empty=True).targets.tolist() == [[1, 0], [0, 0], [0, 1]]


def test_a_model_judges_with_its_own_classes() -> None:
    found = several([("dog",), ("cat",)], known=("bird", "cat", "dog"))
    assert found.classes == ("bird", "cat", "dog")
    assert found.targets.tolist() == [[0, 0, 1], [0, 1, 0]]
    with pytest.raises(InputError, match="classes that the model does not know: cow"):
        several([("cow",)], known=("bird", "cat"))


def test_merges_that_contradict_themselves() -> None:
    with pytest.raises(ConfigError, match="into 'pet' and into 'beast'"):
        several(merge={"pet": ["cat"], "beast": ["cat"]})
    with pytest.raises(InputError, match="'cow', which is not in the data"):
        several(merge={"pet": ["cow"]})


def test_targets_are_int64() -> None:
    assert several().targets.dtype == np.int64
