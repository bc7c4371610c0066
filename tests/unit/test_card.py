from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from coverslip.bundle import Bundle
from coverslip.card import model_card
from coverslip.evaluation.uncertainty import Conformal
from coverslip.neighbours import Neighbours
from unit.export.kinds import KINDS

NUMBER = {"value": 0.9, "low": 0.8, "high": 0.95, "method": "exact"}
METRICS = {
    "level": 0.9,
    "test": {"n": 50, "accuracy": NUMBER, "macro_f1": NUMBER, "per_class": {"a|b": {"support": 7, "precision": NUMBER, "recall": NUMBER}}},
}


def described(kind: str, **provenance: Any) -> Bundle:
    made = KINDS[kind]()
    made.provenance = {
        "backbone": "small_30k",
        "weights": "none",
        "dataset": "cells",
        "images": 200,
        "trained_on": 120,
        "groups": 9,
        "licence": "CC-BY-NC-4.0",
        "split": {"method": "stratified by class", "seed": 4},
        "class_images": {"a|b": {"train": 12, "test": 7}, "c": {"train": 108, "test": 43}},
        **provenance,
    }
    return made


def test_a_card_says_what_the_model_learned_from_and_how_good_it_is() -> None:
    text = model_card(described("grey"), METRICS)
    for words in (
        "`cells`: 200 images, of which the model learned from 120.",
        "Split: stratified by class, seed 4.",
        "9 groups, none of which stands in two parts",
        "| a\\|b | 12 | 7 |",
        "\n## Validation\n",
        "On images that the model has not seen (50 images), with 90% intervals:",
        "- accuracy: 0.900 (0.800 to 0.950)",
        "| a\\|b | 7 | 0.900 (0.800 to 0.950) | 0.900 (0.800 to 0.950) |",
        "`b` where its score is at least 0.3.",
        "log-scores are divided by 1.7",
        "Fewer than 20 training images: a|b.",
        "weights under CC-BY-NC-4.0",
    ):
        assert words in text
    assert ModelCard(text).data.license == "cc-by-nc-4.0"


def test_several_labels_have_a_threshold_each() -> None:
    text = model_card(described("several labels", licence="", class_images={}), {"validation": {"n": 9, "macro_f1": NUMBER}})
    assert "at least its threshold: a 0.3, b 0.5, c 0.6." in text
    assert "An image without any label gets the nearest one." in text
    assert "a line on the log-odds of each class" in text
    assert "states no licence" in text
    assert "It was not judged on images that had no part in making it." in text


def test_a_title_names_some_of_many_classes() -> None:
    made = described("colour")
    assert "\n# a, b, c\n" in model_card(made, METRICS)
    made.classes = tuple("abcdefgh")
    text = model_card(made, METRICS)
    assert "\n# a, b, c and 5 more\n" in text
    assert "- Classes: a, b, c, d, e, f, g, h\n" in text


def test_a_card_says_what_the_marks_are_worth() -> None:
    made = described("grey")
    made.decision = replace(made.decision, conformal=Conformal(0.9, 40, 0.2))
    worth = {"uncertain": {**NUMBER, "value": 0.12}, "wrong_unmarked": {**NUMBER, "value": 0.03}, "right_unmarked": NUMBER}
    text = model_card(made, {**METRICS, "uncertainty": {"test": worth}})
    assert "- `score`: another class cannot be ruled out, or none is likely enough; at most 10% of the images are wrong" in text
    assert "split conformal on 40 validation images" in text
    assert "by their distance from the training images none" in text
    assert "On images that the model has not seen, as shares of images: marked 0.120" in text
    made.neighbours = replace(Neighbours.of(np.eye(4, dtype=np.float32), "abcd"), reference=np.arange(9.0), source="validation images")
    text = model_card(made, METRICS)
    assert "- `unlike`: an image is unlike the training images when it is farther from them than all of 9 validation images" in text
    made.decision = replace(made.decision, conformal=None)
    assert "by their scores none: too few images" in model_card(made, METRICS)
    made.neighbours = None
    assert "No decision is marked as uncertain" in model_card(made, METRICS)


@pytest.mark.parametrize(("licence", "stated"), [(None, None), ("", None), ("ask the lab", None), ("Apache-2.0", "apache-2.0")])
def test_the_hub_is_told_a_licence_only_where_it_knows_it(licence: str | None, stated: str | None) -> None:
    card = ModelCard(model_card(described("colour", licence=licence), {}))
    assert card.data.license == stated
    assert "there is no honest number" in card.text
    assert (f"weights under {licence}" in card.text) is bool(licence)
