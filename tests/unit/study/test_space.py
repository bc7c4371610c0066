"""Where a search looks: files, overrides, and everything that is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coverslip.config import parse_overrides
from coverslip.errors import ConfigError, MissingInputError
from coverslip.study.dimensions import Dimension
from coverslip.study.space import Space, load_space, read_space, space_names

DATA = {"data": {"path": "charts"}}


def read(space: dict[str, Any] | None = None, *settings: str, **parts: Any) -> Space:
    content: dict[str, Any] = {"space": space or {"training.learning_rate": {"low": 1e-4, "high": 0.1, "log": True}}, **parts}
    return read_space("mine", content, DATA, parse_overrides(settings))


def problems(space: dict[str, Any] | None = None, *settings: str, **parts: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(space, *settings, **parts)
    return caught.value.problems


def dimension(space: Space, key: str) -> Dimension:
    return next(one for one in space.dimensions if one.key == key)


# What a space says ----------------------------------------------------------------------------------------------------


def test_the_spaces_that_come_with_the_package_are_sound() -> None:
    assert space_names() == ["small-cnn"]
    space = read_space("small-cnn", load_space("small-cnn"), DATA, {})
    assert len(space.dimensions) == 4
    for one in space.dimensions:
        assert one.log
        assert one.high / one.low >= 30, one
    defaults = space.default_values()
    assert defaults == {
        "training.learning_rate": 0.001, "training.weight_decay": 0.01, "training.batch_size": 32, "model.arguments.width": 16,
    }  # fmt: skip
    assert space.settings.compare_random


def test_the_type_of_the_key_decides_between_whole_and_other_numbers() -> None:
    space = read(
        {
            "training.learning_rate": {"low": 1, "high": 2},
            "training.batch_size": {"low": 4, "high": 64.0, "step": 4},
            "model": {"arguments": {"width": {"low": 2, "high": 8}}},
            "training.optimizer": ["adam", "sgd"],
        },
        base={"model": {"backbone": "small_30k"}},
    )
    kinds = {one.key: one.kind for one in space.dimensions}
    assert kinds == {
        "training.learning_rate": "float", "training.batch_size": "integer", "model.arguments.width": "integer",
        "training.optimizer": "choice",
    }  # fmt: skip
    assert dimension(space, "training.batch_size").step == 4
    assert isinstance(dimension(space, "training.learning_rate").low, float)


def test_a_point_of_the_space_is_a_config() -> None:
    space = read({"training.learning_rate": {"low": 1e-4, "high": 1.0}, "training": {"batch_size": {"low": 4, "high": 64}}})
    config = space.config({"training.learning_rate": 0.02, "training.batch_size": 8}, {"training": {"epochs": 3}})
    assert (config.training.learning_rate, config.training.batch_size, config.training.epochs) == (0.02, 8, 3)
    assert config.data.path == "charts"
    assert space.defaults.training.batch_size == 32


def test_choices_may_be_tables_and_lists() -> None:
    tables = [{"backbone": "small_30k", "weights": "none"}, {"backbone": "resnet18", "weights": "none"}]
    space = read({"model": tables, "training.step_at": [[0.5], [0.3, 0.6]]}, base={"training": {"regime": "scratch"}})
    model = dimension(space, "model")
    assert model.labels == ['{"backbone": "small_30k", "weights": "none"}', '{"backbone": "resnet18", "weights": "none"}']
    assert [model.value(label) for label in model.labels] == tables
    assert space.config({"model": tables[1]}).model.backbone == "resnet18"
    assert dimension(space, "training.step_at").labels == ["[0.5]", "[0.3, 0.6]"]


def test_a_base_may_begin_with_a_recipe() -> None:
    space = read(base={"recipe": "quick", "training": {"epochs": 4}})
    assert space.defaults.model.backbone == "small_200k"
    assert space.defaults.training.epochs == 4
    assert space.default_values() == {"training.learning_rate": 0.003}
    assert read(base={"training": {"learning_rate": 0.5}}).default_values() is None


def test_what_is_written_is_read_back() -> None:
    space = read({"training.batch_size": {"low": 4, "high": 64, "step": 4}, "training.optimizer": ["adam", "sgd"]}, search={"looks": 3})
    again = read_space("mine", {"kind": "search", "command": "...", **space.to_toml()}, DATA, {})
    assert again == space


# Overrides ------------------------------------------------------------------------------------------------------------


def test_a_table_or_a_list_replaces_a_range_and_a_plain_value_fixes_it() -> None:
    ranges = {"training.learning_rate": {"low": 1e-4, "high": 0.1}, "training.batch_size": {"low": 4, "high": 64}}
    space = read(ranges, "training.learning_rate={low=0.5, high=1.0}", "training.batch_size=[8, 16]")
    assert dimension(space, "training.learning_rate").low == 0.5
    assert dimension(space, "training.batch_size").choices == (8, 16)
    fixed = read(ranges, "training.batch_size=16")
    assert [one.key for one in fixed.dimensions] == ["training.learning_rate"]
    assert fixed.defaults.training.batch_size == 16


def test_other_keys_begin_to_vary_or_belong_to_the_base() -> None:
    space = read(None, "augment.noise={low=0.1, high=0.5}", "training.optimizer=['adam','sgd']", "model.head=[64, 32]", "pixels.height=32")
    assert [one.key for one in space.dimensions] == ["training.learning_rate", "augment.noise", "training.optimizer"]
    assert space.defaults.model.head == [64, 32]
    assert space.defaults.pixels.height == 32


def test_the_length_that_is_stated_last_takes_the_place_of_the_others() -> None:
    base = {"training": {"minutes": 2.0}}
    assert read(None, "training.epochs=7", base=base).defaults.training.minutes is None
    assert read(None, base=base).defaults.training.minutes == 2.0


def test_settings_of_the_search() -> None:
    assert read(None, "search.looks=3", search={"metric": "macro_f1"}).settings.looks == 3
    assert problems(None, "search.looks=0", search={"metrics": "f1", "trial_share": 2, "compare_random": "no"}) == [
        "search.metrics is not a key of a search. Did you mean 'metric'? Known: metric, trial_share, looks, compare_random",
        "search.trial_share = 2: expected a number above 0, up to 1",
        "search.compare_random = 'no': expected true or false",
        "search.looks = 0: expected a whole number from 1",
    ]


# Refusals -------------------------------------------------------------------------------------------------------------


def test_no_such_space() -> None:
    with pytest.raises(MissingInputError, match=r"no space 'small-cn'.*Did you mean 'small-cnn'"):
        load_space("small-cn")
    with pytest.raises(MissingInputError, match=r"no config file at .*mine\.toml"):
        load_space("mine.toml")


def test_a_file_that_is_no_space(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("[training]\nepochs = 3\n")
    with pytest.raises(ConfigError, match=r"recipe\.toml holds training where \[search\], \[base\] and \[space\] are expected"):
        read_space("recipe.toml", load_space(str(tmp_path / "recipe.toml")), DATA, {})
    with pytest.raises(ConfigError, match=r"holds no \[space\]"):
        read_space("mine", {}, DATA, {})


@pytest.mark.parametrize(
    ("key", "stated", "words"),
    [
        ("training.learnin_rate", {"low": 1, "high": 2}, "Did you mean 'learning_rate'?"),
        ("trainin.epochs", {"low": 1, "high": 2}, "Did you mean 'training'?"),
        ("training.batch_size", {"low": 8.5, "high": 20}, "training.batch_size = 8.5: Input should be a valid integer"),
        ("training.batch_size", {"low": 0, "high": 20}, "training.batch_size = 0: Input should be greater than or equal to 1"),
        ("training.batch_size", {"low": 4, "high": 8, "step": 1.5}, "step = 1.5: expected a whole number above 0"),
        ("training.batch_size", {"low": 4, "high": 8, "step": 5}, "step = 5 is wider than the range from 4 to 8"),
        ("training.batch_size", {"low": 4, "high": 64, "step": 4, "log": True}, "contradict each other"),
        ("training.batch_size", {"low": 4, "high": 15, "step": 4}, "steps of 4 from 4 do not lead to high = 15; say 12"),
        ("augment.noise", {"low": 0.1, "high": 0.75, "step": 0.1}, "steps of 0.1 from 0.1 do not lead to high = 0.75; say 0.7"),
        ("training.learning_rate", {"low": 0.1, "high": 0.01}, "low = 0.1 is above high = 0.01: the range is empty"),
        ("training.learning_rate", {"low": 0.1, "high": 0.1}, "low = high = 0.1 leaves one value; fix it"),
        ("training.learning_rate", {"low": "small", "high": 1}, "'small' is no number"),
        ("training.learning_rate", {"low": True, "high": 2}, "True is no number"),
        ("training.learning_rate", {"low": 0.1}, "a range needs low and high; high is missing"),
        ("training.learning_rate", {"low": 0.1, "high": 1, "logg": True}, "Did you mean 'log'?"),
        ("training.learning_rate", {"low": 0.1, "high": 1, "log": 1}, "log = 1: expected true or false"),
        ("training.learning_rate", 0.1, "expected {low = ..., high = ...}, or a list of values"),
        ("training.weight_decay", {"low": 0.0, "high": 1.0, "log": True}, "begin above 0, not at low = 0"),
        ("training.optimizer", {"low": 1, "high": 2}, "training.optimizer = 1: Input should be 'exact'"),
        ("training.optimizer", [], "the list of choices is empty"),
        ("training.optimizer", ["adam"], "there is one choice only, 'adam'"),
        ("training.optimizer", ["adam", "adam", "sgd"], "a choice stands twice"),
        ("training.optimizer", ["adam", "agd"], "training.optimizer = 'agd': Input should be"),
        ("split.seed", [0, 1], "every trial must be judged on the same images"),
        ("data.path", ["a", "b"], "every trial must see the same images"),
        ("training.minutes", {"low": 1, "high": 2}, "the length of a training is the search's budget"),
        ("model.backbone", ["small_30k", "small_3k"], "'small_3k' is not a known architecture. Did you mean 'small_30k'?"),
        ("model.arguments.widht", {"low": 1, "high": 2}, "small_30k takes width, depth. Did you mean 'width'?"),
        ("model.arguments.width", {"low": 0.5, "high": 2.5}, "small_30k takes a whole number from 1 to 512"),
        ("pixels.fit", ["squash", "crop", "stretch"], "pixels.fit = 'stretch'"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(key: str, stated: Any, words: str) -> None:
    found = problems({key: stated}, base={"model": {"backbone": "small_30k", "weights": "none"}, "training": {"regime": "scratch"}})
    assert any(words in problem for problem in found), found


def test_contradictions_show_at_every_end_and_all_at_once() -> None:
    found = problems(
        {"training.optimizer": ["adam", "exact"], "augment.mixup": {"low": 0.0, "high": 0.4}}, base={"training": {"regime": "scratch"}}
    )
    assert found == ['training.optimizer = "exact" solves a head on frozen features: it needs training.regime = "probe", not "scratch"']
    found = problems({"training.learnin_rate": {"low": 1, "high": 2}, "training.batch_size": [], "split.test": [0.1, 0.2]})
    assert len(found) == 3


def test_two_dimensions_must_not_hold_each_other() -> None:
    found = problems({"model": [{"backbone": "small_30k"}, {"backbone": "small_200k"}], "model.arguments.width": {"low": 2, "high": 4}})
    assert found == ["model and model.arguments.width are both varied, and the first holds the second"]
    assert "nothing varies" in problems({"training.epochs": 3}, "training.epochs=3")[0]
