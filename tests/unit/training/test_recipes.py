import re
import shlex
from pathlib import Path

import pytest

from coverslip.config import load_config
from coverslip.errors import ConfigError, MissingInputError
from coverslip.models.classifier import build_classifier
from coverslip.models.networks import count_weights
from coverslip.training.recipes import load_recipe, recipe_names, recipe_text

NAMES = recipe_names()


def test_there_are_recipes() -> None:
    assert {"gel-probe", "quick"} <= set(NAMES)
    assert sorted(set(NAMES)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_loads_and_contradicts_itself_nowhere(name: str) -> None:
    layer = load_recipe(name)
    assert layer
    load_config(layer).check()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_changes_something_and_names_no_data_of_its_own(name: str) -> None:
    config = load_config(load_recipe(name))
    assert config != load_config({})
    assert config.data.path is None


@pytest.mark.parametrize("name", NAMES)
def test_the_head_of_a_recipe_says_what_it_is_and_gives_the_command(name: str) -> None:
    head = []
    for line in recipe_text(name).splitlines():
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    assert head[0].startswith(f"{name}: ")
    commands = [shlex.split(line) for line in head if line.startswith("coverslip ")]
    assert commands
    command = commands[0]
    assert command[:2] == ["coverslip", "train"]
    assert command[command.index("--recipe") + 1] == name
    from coverslip.config import parse_overrides

    overrides = [command[place + 1] for place, word in enumerate(command) if word == "-s"]
    load_config(load_recipe(name), parse_overrides(overrides)).check()


@pytest.mark.parametrize("name", NAMES)
def test_recipes_are_short_and_have_no_key_twice(name: str) -> None:
    sections = re.findall(r"^\[(.+)\]$", recipe_text(name), flags=re.MULTILINE)
    assert len(sections) == len(set(sections)) > 0


def test_an_unknown_recipe_offers_the_near_name_and_all_of_them() -> None:
    with pytest.raises(MissingInputError, match="Did you mean 'gel-probe'") as caught:
        load_recipe("gel-prob")
    assert all(name in str(caught.value) for name in NAMES)


def test_a_recipe_is_also_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[training]\nepochs = 3\n")
    (tmp_path / "plain").write_text("[training]\nepochs = 4\n")
    (tmp_path / "bad.toml").write_text("[training")
    assert load_recipe(tmp_path / "mine.toml") == {"training": {"epochs": 3}}
    assert load_recipe(str(tmp_path / "plain")) == {"training": {"epochs": 4}}
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_recipe(tmp_path / "bad.toml")
    with pytest.raises(MissingInputError, match=r"none\.toml"):
        load_recipe(tmp_path / "none.toml")


TEN = {
    "Mitochondria", "Nuclear bodies", "Nucleoli", "Golgi apparatus", "Nucleoplasm", "Nucleoli fibrillar center", "Cytosol",
    "Plasma membrane", "Centrosome", "Nuclear speckles",
}  # fmt: skip
HPA = ("hpa-10-transfer", "hpa-28", "hpa-large", "hpa-small")


def test_recipes_for_cells_are_what_they_are_called() -> None:
    configs = {name: load_config(load_recipe(name)) for name in HPA}
    assert len(configs) == 4
    for config in configs.values():
        assert config.split.method == "iterative"
        assert len(config.data.classes or ()) == 28
    whole, ten, small, large = (configs[name] for name in ("hpa-28", "hpa-10-transfer", "hpa-small", "hpa-large"))
    assert (whole.pixels.height, whole.pixels.width, len(whole.data.channels or ())) == (512, 512, 4)
    assert whole.model.backbone.startswith("resnet")
    assert whole.augment.horizontal_flip
    assert whole.augment.vertical_flip
    assert whole.augment.quarter_turns
    assert (whole.training.schedule, whole.decision.thresholds) == ("step", "per_class")
    assert set(ten.data.keep or ()) == TEN
    assert (ten.model.backbone, ten.pixels.normalise) == ("resnet18", "backbone")
    assert (ten.training.optimizer, ten.training.schedule, ten.training.frozen_first) == ("adam", "onecycle", True)
    assert min(ten.training.weight_decay, ten.training.gradient_clip, ten.augment.random_crop, ten.augment.rotation_degrees) > 0
    assert ten.augment.crop_scale < 1
    assert (small.model.backbone, large.model.backbone) == ("small_200k", "inception_resnet_v2")
    for config in (small, large):
        assert config.training.batch_size == 10
        assert config.training.steps_per_epoch is not None
        assert config.augment.rotation_degrees > 0
        assert config.augment.horizontal_flip
        assert config.augment.vertical_flip


def test_the_small_recipe_for_cells_has_about_200_000_weights() -> None:
    config = load_config(load_recipe("hpa-small"))
    classifier = build_classifier(config.model, channels=4, classes=28, size=(128, 128), seed=0)
    assert 180_000 < count_weights(classifier) < 230_000
