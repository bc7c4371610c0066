"""The methods paragraph says what the config says, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coverslip.config import dump_toml, load_config
from coverslip.report.citations import Citations, references
from coverslip.report.files import read_run
from coverslip.report.methods import FAMILIES, LOSSES, citation_family, methods
from unit.report.make_run import make_evaluation, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "gel")


def text_for(folder: Path, **sections: Any) -> str:
    (folder / "config.toml").write_text(dump_toml(load_config(sections)), encoding="utf-8")
    paragraphs, cited = methods(read_run(folder), "test")
    text = " ".join(paragraphs).replace("\u00a0", " ")
    marks = {int(n) for group in re.findall(r"\[(\d[\d, ]*)\]", text) for n in group.split(",")}
    assert marks == set(range(1, len(cited) + 1))
    assert "None" not in text
    assert "  " not in text
    return text


PIXELS = {"height": 224, "colour": "grey", "invert": True, "trim": [0.1, 0.125, 0.9, 1.0]}
PROBE = {"regime": "probe", "optimizer": "exact"}


def test_probe(folder: Path) -> None:
    text = text_for(folder, training=PROBE, model={"backbone": "mobilenetv2_100"}, pixels=PIXELS)
    assert "cut to 10–90 % of their height and 12.5–100 % of their width, converted" in text
    assert "The data set held 92 images of 2 classes (gel: " in text
    assert "divided at random, stratified by class" in text
    assert "resized to 224 × 224 pixels" in text
    assert "converted to grey values" in text
    assert "inverted" in text
    assert "kept frozen" in text
    assert "L-BFGS" in text
    assert "5-fold cross-validation, repeated 3 times" in text
    assert "95 % interval" in text
    assert "PyTorch 2.6.0" in text
    assert "They ran on cpu in 32-bit floating point, features of the frozen backbone by OpenVINO 2026.4.1." in text
    for wrong in ("AdamW", "epoch", "learning rate", "augmented", "calibrated", "All layers"):
        assert wrong not in text


@pytest.mark.parametrize(
    ("regime", "facts", "said"),
    [
        ("probe", {"precision": "bf16", "features_runtime": "torch 2.9", "features_precision": "32"}, " in 32-bit floating point."),
        (
            "probe", {"precision": "bf16", "features_runtime": "openvino 2026.4.1", "features_precision": "bf16"},
            " in 32-bit floating point, features of the frozen backbone in bfloat16 by OpenVINO 2026.4.1.",
        ),
        (
            "finetune", {"precision": "bf16", "features_runtime": "torch 2.9", "features_precision": "32 and bf16"},
            " in bfloat16 mixed precision for learning and in 32-bit floating point for all scores, features of the frozen backbone partly "
            "in bfloat16.",
        ),
        ("scratch", {"precision": "32", "features_runtime": "", "features_precision": ""}, " in 32-bit floating point."),
    ],
)  # fmt: skip
def test_in_which_precision(folder: Path, tmp_path: Path, regime: str, facts: dict[str, str], said: str) -> None:
    run = shutil.copytree(folder, tmp_path / "run")
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | facts))
    assert f"They ran on cpu{said}" in text_for(run, training={"regime": regime})


@pytest.mark.parametrize(("kept", "said"), [(0, True), (9, False)])
def test_weights_of_before_the_first_step_are_told(folder: Path, tmp_path: Path, kept: int, said: bool) -> None:
    run = shutil.copytree(folder, tmp_path / "run")
    rows = [{"fold": "", "phase": "all", "step": step, "kept": True if step == kept else None} for step in (0, 9)]
    pd.DataFrame(rows).to_csv(run / "history.csv", index=False)
    text = text_for(run, training={"regime": "finetune", "steps": 1})
    assert ("the weights before the first of these steps did best" in text) == said
    assert ", for 1 step of 32 images" in text


def test_folds_without_a_test_part(folder: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(folder, tmp_path / "alone")
    pd.read_csv(alone / "split.csv").assign(part="train").to_csv(alone / "split.csv", index=False)
    text = text_for(alone, training=PROBE)
    assert "All images were in one part: train (n = 92)" in text
    assert (
        "Performance was estimated by 5-fold cross-validation, repeated 3 times with new folds, on all images, "
        "and the final model was trained on all of them."
    ) in text


def test_finetune(folder: Path) -> None:
    training = {"regime": "finetune", "epochs": 7, "patience": 3, "label_smoothing": 0.1, "ema": 0.99, "tta": "flips", "batch_size": 16}
    text = text_for(
        folder, training=training, augment={"horizontal_flip": True, "mixup": 0.2, "rotation_degrees": 15}, decision={"calibrate": True}
    )
    assert "The head was first fitted on the features of the frozen backbone; then all layers were trained." in text
    assert "one-cycle learning rate" in text
    cut = text_for(folder, training={**training, "frozen_share": 0.5, "views": 7}, augment={"horizontal_flip": True})
    assert "then the layers above the first 50% of the multiply-adds, whose output for each image and of 7 augmented copies of each" in cut
    assert "for at most 7 epochs of 16 images" in text
    assert "horizontal mirroring and rotation by up to ±15.0°" in text
    assert "mixup" in text
    assert "label smoothing" in text
    assert "temperature scaling" in text
    assert "mirrored copies" in text
    assert "L-BFGS" not in text


def test_random_weights_are_not_said_to_have_been_frozen(folder: Path) -> None:
    text = text_for(folder, training={"regime": "finetune", "frozen_epochs": 1}, model={"weights": "none"})
    assert "The head was" not in text
    assert "All layers were trained from the start." in text


@pytest.mark.parametrize(
    ("policy", "words"),
    [("repeat", "repeated in turn"), ("mean", "averaged for the channels beyond RGB"), ("zero", "set to zero for the channels beyond RGB")],
)
def test_the_first_layer_of_other_channels_is_named(folder: Path, policy: str, words: str) -> None:
    summary = folder / "summary.json"
    before = summary.read_text()
    try:
        summary.write_text(json.dumps(json.loads(before) | {"input": [4, 64, 64]}))
        sentence = f"The pretrained filters of the first layer, made for RGB, were {words} to fit 4 channels."
        assert sentence in text_for(folder, model={"first_layer": policy})
        assert "filters of the first layer" not in text_for(folder, model={"first_layer": policy, "weights": "none"})
        summary.write_text(json.dumps(json.loads(before) | {"input": [3, 64, 64]}))
        assert "filters of the first layer" not in text_for(folder, model={"first_layer": policy})
    finally:
        summary.write_text(before)


def test_pooling_and_class_groups_are_named(folder: Path) -> None:
    plain = text_for(folder)
    assert "pooled" not in plain
    assert "groups, and a model" not in plain
    text = text_for(folder, model={"pooling": "both", "class_groups": [["a", "b"], ["c"]]})
    assert "The last feature map was pooled by its mean and its maximum." in text
    assert "The classes were divided into 2 groups, and a model of its own was trained for each." in text
    assert "divided into 4 groups" in text_for(folder, model={"class_groups": 4})


def test_numbers_of_several_labels_are_written_out(tmp_path: Path) -> None:
    numbers = {"n": 5, "macro_f1": {"value": 0.5}, "micro_f1": {"value": 0.25}, "macro_roc_auc": {"value": 0.75}}
    (tmp_path / "metrics.json").write_text(json.dumps({"task": "multilabel", "classes": ["a", "b"], "test": numbers}))
    text = text_for(tmp_path)
    assert (
        "macro-averaged F1 was 0.500, micro-averaged F1 was 0.250 and the area under the ROC curve, averaged over the classes, was 0.750"
        in text
    )


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "onecycle", "plateau"])
def test_every_optimizer_and_schedule_reads_well(folder: Path, optimizer: str, schedule: str) -> None:
    training = {"regime": "scratch", "optimizer": optimizer, "schedule": schedule, "steps": 1200, "learning_rate": 1e-4}
    text = text_for(folder, training=training, model={"weights": "none", "backbone": "alexnet_grey"})
    assert "initialised at random" in text
    assert "All layers were trained from the start." in text
    assert "0.0001" in text
    assert "1,200 steps of 32 images" in text
    assert ("{" in text) is False


def test_seed_and_stratification_are_only_said_when_known(folder: Path) -> None:
    environment = (folder / "environment.json").read_text()
    try:
        (folder / "environment.json").write_text(
            environment.replace("stratified, groups and duplicates kept together; 5 folds, 3 repeats", "preset")
        )
        text = text_for(folder, training=PROBE)
        assert "given in parts in advance" in text
        assert "stratified" not in text
        assert "seed" not in text
        assert "same part" not in text
        (folder / "environment.json").unlink()
        assert "stratified" not in text_for(folder, training=PROBE)
    finally:
        (folder / "environment.json").write_text(environment)


def test_evaluation_speaks_of_what_it_has(tmp_path: Path) -> None:
    paragraphs, _ = methods(read_run(make_evaluation(tmp_path / "evaluation")), "test")
    text = " ".join(paragraphs)
    assert "accuracy was" in text
    assert "The classifier was a mobilenetv2_100 network [1], trained before." in text
    assert "On a labelled set of its own (n = " in text
    for wrong in ("divided", "cross-validation", "kept frozen", "trained weights"):
        assert wrong not in text


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (True, "by a logistic line for each class"),
        ("platt", "by a logistic line for each class"),
        ("temperature", "by temperature scaling ["),
    ],
)
def test_the_calibration_of_several_labels_is_named(tmp_path: Path, asked: Any, words: str) -> None:
    (tmp_path / "metrics.json").write_text('{"task": "multilabel", "classes": ["a", "b"], "test": {"n": 5, "macro_f1": {"value": 0.5}}}')
    text = text_for(tmp_path, decision={"calibrate": asked})
    assert f"Scores were calibrated {words}" in text
    assert "for each class, shrunk towards the common one, on the validation part" in text


def test_every_family_has_its_reference() -> None:
    assert len(FAMILIES) >= 10
    assert set(FAMILIES) <= set(references())
    named = {"resnet18": "resnet", "vgg16": "vgg", "mobilenetv3_large_100": "mobilenetv3", "inception_resnet_v2": "inception_resnet"}
    named |= {"densenet121": "densenet", "convnext_tiny": "convnext", "vit_small_patch16_224": "vit", "small_200k": ""}
    assert {name: citation_family(name) for name in named} == named


def test_citations_are_numbered_by_first_use() -> None:
    marks = Citations()
    assert [marks.cite("adam"), marks.cite("nothing"), marks.cite("bootstrap", "adam")] == [" [1]", "", " [2, 1]"]
    assert len(marks.texts) == 2


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("entropy", "binary cross-entropy of each label with"),
        ("focal", "focal loss [1] of each label"),
        ("asymmetric", "asymmetric loss [1]"),
    ],
)
def test_the_loss_of_several_labels_is_named(loss: str, words: str) -> None:
    marks = Citations()
    text = LOSSES[loss].format(cite=marks.cite(loss)) + " with"
    assert words in text
    assert len(marks.texts) == (loss != "entropy")
