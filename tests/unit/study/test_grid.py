"""Grids: every combination once, names that are folders, overrides that do what they say, mistakes met at once."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from coverslip.errors import ConfigError, MissingInputError
from coverslip.study.grid import NAME_LENGTH, Grid, model_ids, override, parse_grid, plan
from coverslip.study.grids import grid_names, load_grid

AXES = {"training.device": ["cpu", "gpu"], "model.backbone": ["a", "b", "c"], "model.head": ["single", "multi"]}
FROZEN = {"base": {"training": {"regime": "probe"}}}


def grid(**parts: Any) -> Grid:
    return parse_grid({"axes": AXES, **parts})


def problems(call: Any, *arguments: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return caught.value.problems


def test_every_combination_comes_once_the_last_axis_fastest() -> None:
    runs = plan(grid())
    found = [(run.config.training.device, run.config.model.backbone, run.config.model.head) for run in runs]
    assert found == list(itertools.product(*AXES.values()))
    assert [run.model_id for run in runs][:3] == ["cpu-a-single", "cpu-a-multi", "cpu-b-single"]
    assert len({run.model_id for run in runs}) == 12


def test_the_built_in_grid_is_complete() -> None:
    assert grid_names() == ["gel-24", "weight-decay"]
    runs = plan(load_grid("gel-24"))
    assert len(runs) == 24
    assert {run.config.model.backbone for run in runs} == {"resnet18", "vgg16", "mobilenetv3_large_100"}
    for run in runs:
        training, augment, pixels = run.config.training, run.config.augment, run.config.pixels
        assert (training.learning_rate, training.batch_size, training.epochs, training.regime) == (0.001, 23, 20, "probe")
        assert (training.views, pixels.colour, augment.horizontal_flip, augment.rotation_degrees) == (20, "grey", True, 10.0)
        assert augment.crop_scale < 1
    assert runs[0].model_id == "cpu-resnet18-single-adam"
    with pytest.raises(MissingInputError, match="Did you mean 'gel-24'"):
        load_grid("gel24")


def test_axes_may_be_written_as_tables_and_exclusions_too() -> None:
    nested = parse_grid({"axes": {"training": {"device": ["cpu", "gpu"]}, "model": {"head": ["single", "multi"]}}})
    assert list(nested.axes) == ["training.device", "model.head"]
    left = plan(parse_grid({"axes": AXES, "exclude": [{"training": {"device": "gpu"}, "model.backbone": ["a", "b"]}]}))
    assert len(left) == 12 - 4
    assert not any(run.config.training.device == "gpu" and run.config.model.backbone in "ab" for run in left)


def test_whole_sections_are_axes() -> None:
    tables = [{"backbone": "a"}, {"backbone": "b", "weights": "none"}, {"backbone": "b", "weights": "x/y.safetensors"}]
    runs = plan(parse_grid({"axes": {"model": tables, "model.head": ["single", "multi"]}}))
    assert [run.model_id for run in runs][::2] == ["a-single", "b-weights-none-single", "b-y.safetensors-single"]
    assert [(run.config.model.backbone, run.config.model.weights, run.config.model.head) for run in runs][2:4] == [
        ("b", "none", "single"), ("b", "none", "multi"),
    ]  # fmt: skip
    assert runs[0].config.model.weights == "pretrained"


# Overrides ------------------------------------------------------------------------------------------------------------


def test_a_list_replaces_an_axis_in_its_place() -> None:
    changed = override(grid(), ['model.backbone=["x"]'])
    assert list(changed.axes.items())[1] == ("model.backbone", ("x",))
    added = override(grid(), ["training.learning_rate=[0.1, 0.01]"])
    assert list(added.axes) == [*AXES, "training.learning_rate"]
    assert plan(added)[0].model_id == "cpu-a-single-learning-rate-0.1"


def test_tables_replace_the_axes_inside_their_section_and_leave_the_others() -> None:
    changed = override(grid(), ['model=[{backbone="x"},{backbone="y",weights="none"}]'])
    assert list(changed.axes) == ["training.device", "model", "model.head"]
    assert [run.model_id for run in plan(changed)][:4] == [
        "cpu-x-single",
        "cpu-x-multi",
        "cpu-y-weights-none-single",
        "cpu-y-weights-none-multi",
    ]


def test_one_value_sets_the_base_and_shrinks_its_axis() -> None:
    changed = override(grid(), ["training.device=cpu", "training.epochs=3", 'model={pooling="max"}'])
    runs = plan(changed)
    assert len(runs) == 6
    assert {(run.config.training.device, run.config.training.epochs, run.config.model.pooling) for run in runs} == {("cpu", 3, "max")}
    assert runs[0].model_id == "a-single"


def test_a_list_that_is_a_value_stays_one() -> None:
    changed = override(grid(), ["pixels.range=[0, 255]", 'data.channels=["red", "green"]'])
    assert list(changed.axes) == list(AXES)
    assert changed.base == {"pixels": {"range": [0, 255]}, "data": {"channels": ["red", "green"]}}
    heads = override(grid(), ['model.head=[[64, 32], "single"]'])
    assert heads.axes["model.head"] == ([64, 32], "single")
    assert plan(heads)[0].model_id == "cpu-a-head-64x32"
    only = override(parse_grid({"axes": {"training.seed": [0, 1]}}), ["model.head=[64, 32]"])
    assert only.base == {"model": {"head": [64, 32]}}


def test_the_axes_of_a_study_are_a_grid_again() -> None:
    first = override(grid(exclude=[{"model.head": "multi", "training.device": "gpu"}]), ["training.epochs=2", 'model.backbone=["x","y"]'])
    again = parse_grid({"kind": "compare", "command": "coverslip compare", **first.to_toml()})
    assert [(run.model_id, run.config) for run in plan(again)] == [(run.model_id, run.config) for run in plan(first)]


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_unknown_keys_are_named_with_the_near_one() -> None:
    (one,) = problems(plan, override(grid(), ['training.optimzer=["adam","sgd"]']))
    assert "training.optimzer is not a key of the config. Did you mean 'optimizer'?" in one
    (two,) = problems(plan, parse_grid({"axes": {"modle": [{"backbone": "a"}]}}))
    assert "Did you mean 'model'?" in two
    (three,) = problems(plan, grid(exclude=[{"training.devise": "cpu"}]))
    assert "Did you mean 'training.device'?" in three
    assert "Did you mean 'axes'?" in problems(parse_grid, {"axis": {}})[0]


def test_an_exclusion_that_no_run_can_meet_is_refused() -> None:
    (one,) = problems(plan, grid(exclude=[{"model.head": ["mlti", "single"]}]))
    assert one.startswith("[[exclude]] model.head = 'mlti': Input should be 'single' or 'multi'")
    assert len(plan(parse_grid({"axes": {"model.head": ["single", [64, 32]]}, "exclude": [{"model.head": [64, 32]}]}))) == 1
    assert len(plan(parse_grid({"axes": {"model.head": ["single", [64, 32]]}, "exclude": [{"model.head": [[64, 32], "multi"]}]}))) == 1


def test_axes_that_are_none() -> None:
    found = problems(parse_grid, {"axes": {"training.device": [], "training.seed": 3, "model": ["a"], "split.seed": [1, 1]}})
    words = ("training.seed = 3: expected a list", "training.device is empty", "values are tables", "split.seed holds 1 twice")
    assert len(found) == 4
    assert all(any(part in problem for problem in found) for part in words)
    assert "no axes" in problems(plan, parse_grid({}))[0]
    assert "the axis training.device is empty" in problems(override, grid(), ["training.device=[]"])[0]
    assert "excluded" in problems(plan, grid(exclude=[{"model.head": ["single", "multi"]}]))[0]
    assert "combinations" in problems(plan, parse_grid({"axes": {"training.seed": list(range(200)), "split.seed": list(range(200))}}))[0]


def test_axes_that_contradict_each_other() -> None:
    both = {"model": [{"backbone": "a"}, {"backbone": "b"}], "model.backbone": ["c"]}
    (found,) = problems(parse_grid, {"axes": both})
    assert "model and model.backbone contradict each other: both set model.backbone" in found
    (found,) = problems(override, grid(), ['model.backbone=["x"]', 'model=[{backbone="y"}]'])
    assert "contradict each other" in found
    (found,) = problems(override, parse_grid({"axes": {"model": both["model"]}}), ["model.backbone=x"])
    assert "the axis model sets model.backbone too" in found


def test_contradicting_values_name_their_runs() -> None:
    wrong = parse_grid(
        FROZEN | {"axes": {"training.optimizer": ["exact", "adam"], "model.head": ["single", "multi"], "training.epochs": [0, 1]}}
    )
    found = problems(plan, wrong)
    assert len(found) == 2
    assert any("training.epochs = 0" in problem and "(in 4 of 8 combinations: exact-single-epochs-0" in problem for problem in found)
    assert any("needs model.head" in problem and "(in 1 of 8 combinations: exact-multi-epochs-1;" in problem for problem in found)
    allowed = parse_grid({**FROZEN, "axes": {"training.optimizer": ["exact", "adam"], "model.head": ["single", "multi"]},
                          "exclude": [{"training.optimizer": "exact", "model.head": "multi"}]})  # fmt: skip
    assert len(plan(allowed)) == 3


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["CON", "a/b\\c:d*?", "nul.txt", "é", "x" * 300, "..", "", 3, 1e-5, True, [1, "b"], {"size": "a b"}])
def test_names_are_folders_on_every_system(value: Any) -> None:
    axes = {"model.backbone": [value, "other"], "training.seed": [0, 1]}
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    names = model_ids(axes, combinations)
    assert len({name.lower() for name in names}) == 4
    assert model_ids(axes, combinations) == names
    for name in names:
        assert re.fullmatch(r"[a-z0-9_][a-z0-9_.-]*", name)
        assert len(name) <= NAME_LENGTH
        assert not name.endswith((".", "-"))
        assert name.split(".")[0] not in {"con", "nul", "aux", "prn", "com1"}


def test_values_that_look_alike_get_names_of_their_own() -> None:
    axes = {"data.path": ["x/images", "y/images"]}
    names = model_ids(axes, [{"data.path": path} for path in axes["data.path"]])
    assert len(set(names)) == 2
    assert all(name.startswith("images-") for name in names)
