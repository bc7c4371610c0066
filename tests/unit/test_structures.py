from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.structures import (
    Channel,
    RunResult,
    Split,
    Table,
    Task,
    class_counts,
    headline,
    natural_key,
    natural_order,
    number_text,
)


def table(targets: list[int] | list[list[int]] | None = None) -> Table:
    return Table(
        root=Path("/data"),
        images=("a/1.png", "a/2.png", "b/3.png", "b/4.png"),
        classes=("x", "y", "z"),
        targets=None if targets is None else np.array(targets, dtype=np.int64),
        task=Task.MULTICLASS,
        groups=np.array(["g", "g", "h", "i"]),
        preset=np.array(["train", "train", "test", "validation"]),
        notes=("merged",),
    )


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["c10", "c2", "c1"], ["c1", "c2", "c10"]),
        (["b", "A", "a", "B"], ["A", "a", "B", "b"]),
        (["10", "9", "a", "1"], ["1", "9", "10", "a"]),
        (["t1.10", "t1.9", "t01.5"], ["t01.5", "t1.9", "t1.10"]),
        (["area2²", "area²", "²", "area10"], ["area2²", "area10", "area²", "²"]),
    ],
)
def test_natural_order(names: list[str], ordered: list[str]) -> None:
    assert list(natural_order(names)) == ordered


@given(st.lists(st.text(max_size=6), max_size=8))
def test_natural_order_takes_any_names_and_does_not_depend_on_their_order(names: list[str]) -> None:
    assert natural_order(names) == natural_order(reversed(names))
    assert set(natural_order(names)) == set(names)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_numbers_are_compared_as_numbers(first: int, second: int) -> None:
    assert (natural_key(f"x{first}y") < natural_key(f"x{second}y")) == (first < second)


def test_rows_are_taken_in_the_given_order_with_everything_that_belongs_to_them() -> None:
    taken = table([0, 1, 2, 0]).take(np.array([2, 0]))
    assert taken.images == ("b/3.png", "a/1.png")
    assert taken.labels.tolist() == [2, 0]
    assert taken.groups is not None
    assert taken.groups.tolist() == ["h", "g"]
    assert taken.preset is not None
    assert taken.preset.tolist() == ["test", "train"]
    assert (taken.classes, taken.notes, len(taken)) == (("x", "y", "z"), ("merged",), 2)


def test_rows_can_be_chosen_by_a_mask() -> None:
    assert table([0, 1, 2, 0]).take(np.array([False, True, False, True])).images == ("a/2.png", "b/4.png")
    assert len(table([0, 1, 2, 0]).take(np.zeros(4, dtype=bool))) == 0


def test_a_table_without_labels() -> None:
    bare = table()
    assert bare.take(np.array([1])).targets is None
    with pytest.raises(ValueError, match="no labels"):
        _ = bare.labels


def test_labels_as_text() -> None:
    assert table([0, 1, 2, 0]).label_text(2) == "z"
    assert table([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]).label_text(0) == "x|z"


def test_the_files_of_a_sample_are_below_the_root() -> None:
    assert table().samples[2] == (Path("/data/b/3.png"),)
    assert len(table().samples) == 4


def test_a_sample_of_several_files_keeps_them_with_its_row() -> None:
    files = tuple((f"{name}_red.tif", f"{name}_green.tif") for name in "abcd")
    several = replace(table([0, 1, 2, 0]), files=files)
    assert several.samples[3] == (Path("/data/d_red.tif"), Path("/data/d_green.tif"))
    taken = several.take(np.array([2, 0]))
    assert taken.images == ("b/3.png", "a/1.png")
    assert taken.files == (("c_red.tif", "c_green.tif"), ("a_red.tif", "a_green.tif"))
    assert taken.samples[1] == several.samples[0]
    assert table().take(np.array([1])).files is None


def test_channels_keep_the_names_of_their_source_unless_told_otherwise() -> None:
    assert Channel.of("red", "DNA") == (Channel("red", "red"), Channel("DNA", "DNA"))


def test_parts_of_a_split_in_table_order() -> None:
    split = Split(np.array(["test", "train", "validation", "train"]), seed=1, method="random")
    assert split.rows("train").tolist() == [1, 3]
    assert split.rows("validation", "train").tolist() == [1, 2, 3]
    assert split.rows().tolist() == []


def test_class_counts_see_classes_without_images() -> None:
    assert class_counts(np.array([0, 2, 2]), ("x", "y", "z")).tolist() == [1, 0, 2]
    assert class_counts(np.array([[1, 1, 0], [0, 1, 0]]), ("x", "y", "z")).tolist() == [1, 2, 0]


def test_the_bundle_lies_in_the_run_folder() -> None:
    assert RunResult(Path("runs/x"), {}, 1.0).bundle == Path("runs/x/bundle")


# A run's numbers in words ---------------------------------------------------------------------------------------------


def numbers(value: float | None = 0.9545) -> dict[str, Any]:
    number = (
        {"value": value, "low": 0.7716, "high": 0.9988, "method": "exact"}
        if value is not None
        else {"value": None, "low": None, "high": None}
    )
    return {"n": 22, "confusion": [[1] * 50] * 50} | dict.fromkeys(("accuracy", "macro_f1", "roc_auc", "sensitivity"), number)


def test_headline_names_each_part_with_its_interval() -> None:
    said = headline({"test": numbers(), "validation": numbers()})
    assert said.splitlines()[0] == (
        "test part, 22 images: accuracy 0.955 (0.772 to 0.999), macro f1 0.955 (0.772 to 0.999), roc auc 0.955 (0.772 to 0.999)"
    )
    assert said.splitlines()[1].startswith("validation part, 22 images")
    assert "no honest number" in headline({})


def test_a_macro_number_says_when_it_runs_over_some_of_the_classes() -> None:
    number = {"value": 0.5, "low": None, "high": None, "classes_defined": 2}
    metrics = {"task": "multilabel", "classes": ["a", "b", "c"], "test": {"n": 9, "macro_f1": number, "micro_f1": {"value": 0.25}}}
    assert headline(metrics) == "test part, 9 images: macro f1 0.500 over 2 of 3 classes, micro f1 0.250, macro roc auc undefined"
    assert "over" not in headline({**metrics, "classes": ["a", "b"]})


def test_undefined_numbers_are_said() -> None:
    assert number_text({"value": None}) == "undefined"
    assert number_text({"value": 0.5, "low": None, "high": None}) == "0.500"
    assert "undefined" in headline({"folds": numbers(None)})


def test_a_result_is_short_in_a_terminal(tmp_path: Path) -> None:
    run = RunResult(tmp_path / "gel", {"test": numbers()}, 3.0)
    assert len(repr(run)) < 300
    assert "accuracy 0.955" in repr(run)
    assert "confusion" not in repr(run)
    assert "confusion" not in str(run)
    assert str(run).endswith(f"folder: {tmp_path / 'gel'}")
    run.bundle.mkdir(parents=True)
    run.report.touch()
    assert str(run).splitlines()[1:] == [f"report: {run.report}", f"model: {run.bundle}"]


def test_a_result_is_a_table_in_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunResult(Path("runs/a <b> & c"), {"test": numbers(), "validation": numbers()}, 3.0, ("merged <x> into y",))
    run.bundle.mkdir(parents=True)
    run.report.touch()
    page = run._repr_html_()
    assert page.count("<tr>") == 5
    assert page.count("<td>0.955 (0.772 to 0.999)</td>") == 8
    assert 'href="runs/a%20%3Cb%3E%20%26%20c/report.html"' in page
    assert "<b>" not in page
    assert "merged &lt;x&gt; into y" in page
    assert str(tmp_path) not in page


def test_a_result_without_numbers_says_so(tmp_path: Path) -> None:
    page = RunResult(tmp_path, {"task": "binary"}, 1.0)._repr_html_()
    assert "no honest number" in page
    assert "<table>" not in page
    assert "report" not in page
