import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from coverslip.config import (
    AugmentConfig,
    RunConfig,
    dump_toml,
    load_config,
    merge_layers,
    parse_overrides,
    read_toml,
    schema,
    with_values,
)
from coverslip.errors import ConfigError, MissingInputError

SCRATCH = {"model": {"backbone": "small_30k", "weights": "none"}, "training": {"regime": "scratch"}}


def problems_of(*layers: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(*layers).check()
    return caught.value.problems


# Unknown keys and wrong values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "offered"),
    [
        ({"epochs": 3}, "training.epochs"),
        ({"training": {"height": 64}}, "pixels.height"),
        ({"model": {"seed": 1}}, "split.seed or training.seed"),
        ({"limit": 1}, "cache.limit or memory.limit"),
    ],
)
def test_a_key_of_another_section_is_offered_with_its_section(given: dict[str, Any], offered: str) -> None:
    (problem,) = problems_of(given)
    assert f"Did you mean {offered}?" in problem


def test_an_unknown_section_is_refused_with_the_near_name() -> None:
    (problem,) = problems_of({"trainin": {"epochs": 3}})
    assert "trainin is not a key" in problem
    assert "Did you mean 'training'?" in problem


@pytest.mark.parametrize("section", list(RunConfig.model_fields))
def test_an_unknown_key_is_refused_in_every_section_and_the_known_ones_are_listed(section: str) -> None:
    model = RunConfig.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    key = next(iter(model.model_fields))
    (problem,) = problems_of({section: {f"{key}x": 1}})
    assert f"{section}.{key}x is not a key" in problem
    assert f"Did you mean {key!r}?" in problem
    assert all(name in problem for name in model.model_fields)


def test_all_problems_come_at_once() -> None:
    problems = problems_of({"training": {"epocs": 3, "epochs": 0}, "splt": {}, "pixels": {"height": 3, "fit": "stretch"}})
    assert len(problems) == 5
    assert len([p for p in problems if p.startswith(("training.epocs", "training.epochs", "splt", "pixels.height", "pixels.fit"))]) == 5


def test_a_wrong_value_is_shown_with_its_key() -> None:
    (problem,) = problems_of({"training": {"epochs": -4}})
    assert problem.startswith("training.epochs = -4: ")


@pytest.mark.parametrize(
    ("section", "key", "value", "allowed"),
    [
        ("split", "seed", "x", "random"),
        ("model", "head", "singl", "multi"),
        ("pixels", "trim", "yes", "auto"),
        ("pixels", "invert", "maybe", "auto"),
    ],
)
def test_a_key_of_several_kinds_is_one_problem_under_the_name_that_was_written(section: str, key: str, value: str, allowed: str) -> None:
    (problem,) = problems_of({section: {key: value}})
    assert problem.startswith(f"{section}.{key} = {value!r}: ")
    assert allowed in problem
    assert "constrained" not in problem
    assert "literal" not in problem


def test_a_wrong_item_of_a_list_is_named_by_its_place() -> None:
    assert any(problem.startswith("model.head.1 = 0: ") for problem in problems_of({"model": {"head": [8, 0]}}))


def test_one_column_of_zeros_and_ones_is_too_few() -> None:
    assert any(problem.startswith("data.labels = []") for problem in problems_of({"data": {"labels": []}}))
    assert any(problem.startswith("data.labels = ['dot']") for problem in problems_of({"data": {"labels": ["dot"]}}))


def test_a_class_of_a_merge_is_named() -> None:
    (problem,) = problems_of({"data": {"merge": {"other": "one"}}})
    assert problem.startswith("data.merge.other = 'one': ")


def test_a_section_that_is_no_section() -> None:
    (problem,) = problems_of({"training": 5})
    assert problem.startswith("training: ")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"split": {"test": 0.6, "validation": 0.4}}, ["0.6", "0.4", "nothing to train on"]),
        ({"split": {"folds": 1}}, ["folds = 1"]),
        ({"pixels": {"trim": [0.5, 0.1, 0.5, 0.9]}}, ["[0.5, 0.1, 0.5, 0.9]", "top < bottom"]),
        ({"pixels": {"trim": [0.1, 0.9]}}, ["four shares"]),
    ],
)
def test_contradictions_inside_a_section(section: dict[str, Any], words: list[str]) -> None:
    (problem,) = problems_of(section)
    assert all(word in problem for word in words)


# Rules across sections ------------------------------------------------------------------------------------------------

BROKEN: list[tuple[dict[str, Any], list[str]]] = [
    ({"pixels": {"width": 64}}, ["pixels.width = 64", "pixels.height"]),
    ({"pixels": {"height": 32, "width": 64}, "augment": {"quarter_turns": True}}, ["32", "64", "square"]),
    ({"pixels": {"height": 32, "width": 64}, "training": {"tta": "turns"}}, ["32", "64", "square"]),
    ({"training": {"optimizer": "exact", "regime": "finetune"}}, ['"exact"', '"finetune"', '"probe"']),
    ({"training": {"optimizer": "exact", "regime": "probe"}, "model": {"head": "multi"}}, ['"exact"', "'multi'", '"single"']),
    ({"training": {"regime": "probe"}, "augment": {"mixup": 0.2}}, ["augment.mixup", '"probe"']),
    ({"decision": {"sensitivity": 0.9, "threshold": 0.3}}, ["0.9", "0.3"]),
    ({"training": {"patience": 3}, "split": {"validation": 0.0}}, ["patience = 3", "split.validation = 0"]),
]


@pytest.mark.parametrize(("layer", "words"), BROKEN)
def test_each_contradiction_is_met_and_shows_both_sides(layer: dict[str, Any], words: list[str]) -> None:
    (problem,) = problems_of(layer)
    assert all(word in problem for word in words), problem


@pytest.mark.parametrize(
    "layer",
    [
        {},
        SCRATCH,
        {"pixels": {"height": 64, "width": 64}, "augment": {"quarter_turns": True}, "training": {"tta": "turns"}},
        {"pixels": {"height": 64}, "augment": {"quarter_turns": True}},
        {"augment": {"quarter_turns": True}},
        {"pixels": {"height": 32, "width": 64}, "training": {"tta": "flips"}, "augment": {"vertical_flip": True}},
        {"training": {"optimizer": "exact", "regime": "probe"}},
        {"augment": {"mixup": 0.2}},
        {"decision": {"sensitivity": 0.9}},
        {"decision": {"threshold": 0.3}},
        {"training": {"patience": 3}},
        {"training": {"patience": 3}, "split": {"validation": 0.0, "preset": "part"}},
    ],
)
def test_what_does_not_contradict_passes(layer: dict[str, Any]) -> None:
    load_config(layer).check()


def test_contradictions_come_all_at_once() -> None:
    layer: dict[str, Any] = {}
    for broken, _ in (BROKEN[0], BROKEN[4], BROKEN[5], BROKEN[6]):
        layer = merge_layers(layer, broken)
    assert len(problems_of(layer)) == 4


# Layers, overrides, files ---------------------------------------------------------------------------------------------


def test_later_layers_win_key_by_key() -> None:
    config = load_config(
        {"training": {"epochs": 3, "batch_size": 4}}, {"training": {"epochs": 7}}, {"model": {"head": [64]}}, {"model": {"head": [8]}}
    )
    assert (config.training.epochs, config.training.batch_size, config.model.head) == (7, 4, [8])


def test_layers_are_not_changed_by_merging() -> None:
    below, above = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge_layers(below, above) == {"a": {"b": 1, "c": 2}}
    assert (below, above) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_a_section_replaces_a_value_and_the_other_way_round() -> None:
    assert merge_layers({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
    assert merge_layers({"a": {"b": 2}}, {"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("training.learning_rate=1e-3", 0.001),
        ("training.learning_rate = 0.5 ", 0.5),
        ("training.learning_rate=3", 3),
        ("training.learning_rate=true", True),
        ('training.learning_rate="3"', "3"),
        ("training.learning_rate=resnet18", "resnet18"),
        ("training.learning_rate=a b=c", "a b=c"),
        ("training.learning_rate=", ""),
        ('training.learning_rate=["a", "b"]', ["a", "b"]),
        ("training.learning_rate=[1, [2, 3]]", [1, [2, 3]]),
        ("training.learning_rate={x = 1}", {"x": 1}),
        ("training.learning_rate=regex:^([^_]+)_", "regex:^([^_]+)_"),
    ],
)
def test_a_value_is_toml_and_what_does_not_parse_is_a_string(text: str, value: Any) -> None:
    found = parse_overrides([text])["training"]["learning_rate"]
    assert found == value
    assert type(found) is type(value)


def test_overrides_gather_and_the_last_one_wins() -> None:
    layer = parse_overrides(["data.merge.other=['a', 'b']", "data.merge.rest=['c']", "training.epochs=3", "training.epochs=4"])
    assert layer == {"data": {"merge": {"other": ["a", "b"], "rest": ["c"]}}, "training": {"epochs": 4}}


@pytest.mark.parametrize("text", ["training.epochs", "=5", " = 5"])
def test_an_override_that_sets_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_overrides([text])


def test_a_config_survives_the_way_through_toml() -> None:
    config = load_config(
        {
            "data": {"path": 'a "b" \\ c', "merge": {"not it": ["x", "y"]}, "classes": ["b", "a"]},
            "split": {"seed": "random", "group": "regex:^(.)_"},
            "pixels": {"trim": [0.1, 0.0, 0.9, 1.0], "invert": True, "height": 32},
            "model": {"head": [64, 32], "arguments": {"drop_rate": 0.5, "n": 3, "flag": True, "s": "t"}},
            "training": {"minutes": 2.5, "gradient_clip": 0.0, "patience": 4, "learning_rate": 1e-7},
            "decision": {"sensitivity": 0.95},
        }
    )
    assert load_config(tomllib.loads(dump_toml(config))) == config
    assert load_config(tomllib.loads(dump_toml(RunConfig()))) == RunConfig()


def test_every_key_that_can_be_left_out_of_toml_is_left_out_by_default() -> None:
    optional = 0
    for section, field in RunConfig.model_fields.items():
        for key, inner in type(field.default).model_fields.items():
            try:
                load_config({section: {key: None}})
            except ConfigError:
                continue
            optional += 1
            assert inner.default is None, f"{section}.{key} = None would come back as {inner.default} from config.toml"
    assert optional >= 8


def test_toml_files(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text('[data]\npath = "µ"\n', encoding="utf-8")
    (tmp_path / "bad.toml").write_text("[data\n")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert read_toml(tmp_path / "good.toml") == {"data": {"path": "µ"}}
    for name in ("bad.toml", "binary.toml"):
        with pytest.raises(ConfigError, match=name):
            read_toml(tmp_path / name)
    with pytest.raises(MissingInputError, match=r"none\.toml"):
        read_toml(tmp_path / "none.toml")


def test_values_are_replaced_in_a_copy_and_checked() -> None:
    config = load_config({"training": {"epochs": 3, "minutes": 1.0}})
    changed = with_values(config, training={"steps": 100}, data={"path": "x"})
    assert (changed.training.steps, changed.training.epochs, changed.training.minutes, changed.data.path) == (100, 3, 1.0, "x")
    assert config.training.steps is None
    with pytest.raises(ConfigError, match=r"training\.stepz"):
        with_values(config, training={"stepz": 1})


def test_sections_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().training.epochs = 3  # type: ignore[misc]


def test_augmentation_is_active_when_anything_is_changed() -> None:
    assert not AugmentConfig().active
    changes = {"rotation_degrees": 3.0, "random_crop": 0.1, "crop_scale": 0.5, "brightness": 0.1, "noise": 0.1, "mixup": 0.1}
    changes |= dict.fromkeys(("horizontal_flip", "vertical_flip", "quarter_turns"), True)
    assert changes.keys() == AugmentConfig.model_fields.keys()
    assert all(AugmentConfig.model_validate({key: value}).active for key, value in changes.items())


def test_the_schema_describes_every_key() -> None:
    sections = schema()["$defs"]
    keys = [(section, key, value) for section, body in sections.items() for key, value in body["properties"].items()]
    assert len(keys) == sum(len(type(field.default).model_fields) for field in RunConfig.model_fields.values())
    assert len(keys) > 60
    assert [f"{section}.{key}" for section, key, value in keys if not value.get("description")] == []
    assert all(body["additionalProperties"] is False for body in sections.values())


def test_a_list_of_channels_that_lost_its_quotes_to_the_shell_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"data.channels = '\[red,blue\]': .*in single quotes as a whole: -s 'data.channels="):
        load_config({"data": {"channels": "[red,blue]"}})
    with pytest.raises(ConfigError) as caught:
        load_config({"data": {"channels": "red"}})
    assert "quotes" not in str(caught.value)


def test_precision_may_be_said_as_a_number() -> None:
    assert load_config({"training": {"precision": 32}}).training.precision == "32"
    with pytest.raises(ConfigError, match=r"training\.precision"):
        load_config({"training": {"precision": 64}})
