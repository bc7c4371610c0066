from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.config import load_config, merge_layers
from coverslip.structures import Task
from coverslip.training.choice import CANDIDATES, LOWER_HALVES, Sight, choose_recipe, working_size
from coverslip.training.symmetry import UNTESTED

WEIGHTS = ("mobilenetv2_100", "mobilenetv2_035")


def sight(**changes: Any) -> Sight:
    settings: dict[str, Any] = {
        "images": 5000, "classes": 3, "task": Task.MULTICLASS, "height": 120, "width": 200, "weights": WEIGHTS,
        "asked_backbone": None, "asked_regime": None, "minutes": None, "hardware": "bf16",
    }  # fmt: skip
    return Sight(**{**settings, **changes})


def regime(**changes: Any) -> str:
    return load_config(choose_recipe(sight(**changes)).layer).training.regime


def test_few_images_get_a_linear_head_judged_by_folds() -> None:
    config = load_config(choose_recipe(sight(images=92)).layer)
    assert config.training.regime == "probe"
    assert config.training.optimizer == "exact"
    assert config.split.folds >= 5


def test_many_images_with_weights_are_fine_tuned_on_the_best_weights_there_are() -> None:
    assert regime() == "finetune"
    assert load_config(choose_recipe(sight()).layer).model.backbone == "mobilenetv2_100"
    assert load_config(choose_recipe(sight(weights=("resnet18",))).layer).model.backbone == "resnet18"


@pytest.mark.parametrize("images", [50, 5000])
def test_without_weights_a_small_network_learns_from_scratch(images: int) -> None:
    choice = choose_recipe(sight(weights=(), images=images))
    config = load_config(choice.layer)
    assert (config.training.regime, config.model.weights) == ("scratch", "none")
    assert "no pretrained weights" in choice.why


@pytest.mark.parametrize(("images", "asked"), list(product([50, 5000], ["probe", "finetune", "scratch"])))
def test_a_regime_that_was_asked_for_is_respected(images: int, asked: str) -> None:
    assert regime(images=images, asked_regime=asked) == asked


@pytest.mark.parametrize(("images", "asked"), list(product([50, 5000], ["resnet50", "vgg16", "mobilenetv2_035"])))
def test_a_backbone_that_was_asked_for_is_respected(images: int, asked: str) -> None:
    choice = choose_recipe(sight(images=images, asked_backbone=asked))
    assert choice.layer["model"]["backbone"] == asked
    assert asked in choice.why
    assert load_config(choice.layer).model.weights == "pretrained"


@pytest.mark.parametrize("images", [50, 5000])
@pytest.mark.parametrize(
    "asked", [{"asked_backbone": "small_200k"}, {"asked_weights": "none"}, {"asked_backbone": "resnet18", "asked_weights": "none"}]
)
def test_what_has_no_learned_weights_starts_from_scratch(images: int, asked: dict[str, str]) -> None:
    config = load_config(choose_recipe(sight(images=images, **asked)).layer)
    assert (config.training.regime, config.model.weights) == ("scratch", "none")
    assert config.model.backbone == asked.get("asked_backbone", config.model.backbone)


@given(
    images=st.integers(2, 10**6), classes=st.integers(2, 50), height=st.integers(0, 5000), width=st.integers(0, 5000),
    weights=st.lists(st.sampled_from(CANDIDATES), unique=True).map(tuple), backbone=st.sampled_from([None, "resnet18", "small_30k"]),
    regime=st.sampled_from([None, "probe", "finetune", "scratch"]), kept=st.sampled_from([None, "pretrained", "none"]),
    minutes=st.sampled_from([None, 0.5, 30.0]),
)  # fmt: skip
def test_every_choice_agrees_with_itself_and_with_what_was_asked_for(
    images: int,
    classes: int,
    height: int,
    width: int,
    weights: tuple[str, ...],
    backbone: str | None,
    regime: str | None,
    kept: str | None,
    minutes: float | None,
) -> None:
    choice = choose_recipe(
        sight(
            images=images,
            classes=classes,
            height=height,
            width=width,
            weights=weights,
            minutes=minutes,
            asked_backbone=backbone,
            asked_regime=regime,
            asked_weights=kept,
        )
    )
    config = load_config(choice.layer)
    config.check()
    asked: dict[str, dict[str, Any]] = {"model": {}, "training": {}}
    if backbone:
        asked["model"]["backbone"] = backbone
    if kept:
        asked["model"]["weights"] = kept
    if regime:
        asked["training"]["regime"] = regime
    contradicts = kept == "none" and regime in ("probe", "finetune")
    impossible = not weights and backbone is None and regime in ("probe", "finetune")
    if not contradicts and not impossible:
        load_config(merge_layers(choice.layer, asked)).check()
    assert "\n" not in choice.why
    assert str(images) in choice.why
    assert f"{width}x{height}" in choice.why
    assert f"{classes} classes" in choice.why
    if config.training.minutes:
        assert config.training.minutes == (minutes or 5.0)
        assert f"{config.training.minutes:g} minutes" in choice.why


def test_the_line_says_found_only_of_weights_that_were_found() -> None:
    assert "pretrained mobilenetv2_100 found" in choose_recipe(sight()).why
    assert "found" not in choose_recipe(sight(asked_backbone="resnet50")).why
    assert "found" not in choose_recipe(sight(asked_regime="scratch")).why
    assert "too few" in choose_recipe(sight(images=50)).why
    assert "too few" not in choose_recipe(sight(images=50_000, asked_regime="probe")).why


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(2, 10**6), st.floats(0.1, 600), st.sampled_from(["cpu", "bf16", "gpu"]))
def test_the_working_size_keeps_the_shape_within_a_budget(height: int, width: int, images: int, minutes: float, hardware: str) -> None:
    rows, columns = working_size(sight(height=height, width=width, images=images, hardware=hardware), minutes)
    assert rows % 16 == columns % 16 == 0
    assert min(rows, columns) >= 32
    assert rows * columns <= 1.15 * 224**2
    if min(rows, columns) >= 64 and 0.5 <= width / height <= 2:
        assert columns / rows == pytest.approx(width / height, rel=0.25)
    if height == width:
        assert rows == columns


@given(st.integers(50, 3000), st.integers(50, 3000), st.integers(100, 10**5), st.floats(0.5, 60))
def test_more_time_never_makes_images_smaller_and_more_images_never_larger(height: int, width: int, images: int, minutes: float) -> None:
    def size(images: int, minutes: float) -> tuple[int, int]:
        return working_size(sight(height=height, width=width, images=images), minutes)

    for more, less in ((size(images, 2 * minutes), size(images, minutes)), (size(images, minutes), size(2 * images, minutes))):
        assert more[0] >= less[0]
        assert more[1] >= less[1]


@pytest.mark.parametrize("images", [50, 5000])
@pytest.mark.parametrize("shape", [(100, 100), (100, 200)])
@pytest.mark.parametrize("allowed", list(product([True, False], repeat=3)))
def test_images_are_flipped_and_turned_only_where_the_data_allows_it(
    images: int, shape: tuple[int, int], allowed: tuple[bool, bool, bool]
) -> None:
    symmetry = replace(UNTESTED, horizontal=allowed[0], vertical=allowed[1], turns=allowed[2])
    for weights in (WEIGHTS, ()):
        config = load_config(choose_recipe(sight(images=images, height=shape[0], width=shape[1], weights=weights, symmetry=symmetry)).layer)
        config.check()
        augment = config.augment
        for used, permitted in zip((augment.horizontal_flip, augment.vertical_flip, augment.quarter_turns), allowed, strict=True):
            assert permitted or not used
        assert not (augment.quarter_turns and shape[0] != shape[1])
        assert all(allowed) or config.training.tta != "turns"
        assert any(allowed[:2]) or config.training.tta != "flips"


@pytest.mark.parametrize("weights", [("mobilenetv2_100",), ()])
def test_a_length_that_was_asked_for_gets_no_budget_beside_it(weights: tuple[str, ...]) -> None:
    choice = choose_recipe(sight(weights=weights, images=2000, asked_length="3 epochs"))
    assert "minutes" not in choice.layer["training"]
    assert "for 3 epochs" in choice.why
    both = choose_recipe(sight(weights=weights, images=2000, asked_length="3 epochs", minutes=2.0))
    assert both.layer["training"]["minutes"] == 2.0


def test_a_size_that_was_asked_for_is_the_one_that_is_told() -> None:
    for weights in (WEIGHTS, ()):
        choice = choose_recipe(sight(weights=weights, asked_size=(64, 96)))
        assert "at 96x64 for" in choice.why
        assert (choice.layer["pixels"]["height"], choice.layer["pixels"]["width"]) == (64, 96)


def layers(**changes: Any) -> float:
    choice = choose_recipe(sight(**changes))
    share = load_config(choice.layer).training.frozen_share
    assert ("the upper half of its layers fine-tuned" if share else "all layers fine-tuned") in choice.why
    return share


def test_a_cpu_leaves_the_lower_half_as_it_is_where_there_is_no_time_for_all_layers_but_for_looking_through_it() -> None:
    assert layers(hardware="cpu") == layers(hardware="bf16") == 0.5
    assert layers(hardware="gpu") == 0
    assert layers(images=1800, height=64, width=64) == 0
    assert layers(hardware="cpu", minutes=60.0) == 0
    assert layers(hardware="cpu", asked_size=(96, 96), images=2500) == 0
    assert layers(images=10**6) == 0
    assert layers(images=10**6, minutes=600.0) == 0.5
    assert layers(images=10**6, minutes=600.0, cache_limit=10**9) == 0
    assert layers(asked_size=(1000, 1000)) == 0
    assert layers(asked_backbone="resnet18") == 0.5
    assert layers(asked_backbone="resnet50") == 0


@given(st.integers(500, 10**7), st.floats(0.5, 6000), st.integers(10**8, 10**11), st.sampled_from(["mobilenetv2_100", "resnet18"]))
def test_what_a_lower_half_gives_fits_into_the_cache(images: int, minutes: float, limit: int, backbone: str) -> None:
    choice = choose_recipe(sight(images=images, minutes=minutes, cache_limit=limit, asked_backbone=backbone))
    training, pixels = choice.layer["training"], choice.layer["pixels"]
    if training.get("frozen_share"):
        area, looks = pixels["height"] * pixels["width"], 0.7 * images * (1 + training["views"])
        assert LOWER_HALVES[backbone].bytes_per_pixel * area * looks <= 0.75 * limit
