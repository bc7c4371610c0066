"""What a run will take: counted from images, views and steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coverslip.config import RunConfig, load_config
from coverslip.models.summary import Summary
from coverslip.simulate import simulate
from coverslip.structures import Table, Task
from coverslip.study.estimate import _Trial, estimate_runs, run_seconds
from coverslip.study.grid import parse_grid, plan

SUMMARY = Summary((1, 32, 32), (), 1000, 100, 10**6, 4000, 100, 10_000, 8)
TRIAL = _Trial(forward=0.01, feature=0.002, unlearned=0.0, head_step=0.1, summary=SUMMARY)


def table_of(n: int, preset: Any = None) -> Table:
    return Table(Path(), tuple(map(str, range(n))), ("a", "b"), np.arange(n) % 2, Task.BINARY, preset=preset)


def config_of(**sections: Any) -> RunConfig:
    return load_config({"split": {"test": 0.25, "validation": 0.0}, "training": {"batch_size": 15, "epochs": 4}}, sections)


def test_a_probe_looks_once_at_each_view_and_learns_by_steps() -> None:
    config = config_of(training={"regime": "probe", "views": 4, "optimizer": "adam"}, augment={"noise": 0.1})
    own, features = run_seconds(config, table_of(80), TRIAL)
    assert own == pytest.approx(4 * 4 * 0.1 + 20 * 0.01)  # 60 images in steps of 15, 4 epochs; 20 are scored
    assert features == pytest.approx((60 * 4 + 20) * 0.002)  # a view an epoch, and the test part as it is
    folds = config_of(training={"regime": "probe", "views": 2, "optimizer": "adam"}, augment={"noise": 0.1}, split={"folds": 5})
    own, features = run_seconds(folds, table_of(80), TRIAL)
    assert own == pytest.approx(6 * 4 * 3 * 0.1 + 80 * 0.01)
    assert features == pytest.approx((80 * 3 + 80) * 0.002)


def test_all_layers_cost_three_passes_a_step() -> None:
    own, features = run_seconds(config_of(training={"regime": "scratch"}), table_of(80), TRIAL)
    assert own == pytest.approx((4 * 4 * 15 * 3 + 20) * 0.01)
    assert features == 0
    assert run_seconds(config_of(training={"regime": "finetune", "minutes": 2}), table_of(80), TRIAL) == (120, 0)
    given = table_of(10, np.array(["train"] * 6 + ["test"] * 4))
    assert run_seconds(config_of(training={"regime": "scratch", "steps": 10}), given, TRIAL)[0] == pytest.approx((10 * 6 * 3 + 4) * 0.01)


def test_first_layers_that_stay_as_they_are_cost_one_pass_a_copy() -> None:
    asked = config_of(training={"regime": "finetune", "frozen_share": 0.25, "views": 3}, augment={"noise": 0.1})
    own, features = run_seconds(asked, table_of(80), TRIAL)
    assert own == pytest.approx((4 * 4 * 15 * 3 * 0.75 + 20) * 0.01 + 0.25 * 4 * 60 * 0.002)
    assert features == 0


def test_first_layers_without_weights_are_passed_once_a_copy_too() -> None:
    asked = config_of(training={"regime": "scratch", "views": 3}, augment={"noise": 0.1})
    own, _ = run_seconds(asked, table_of(80), replace(TRIAL, unlearned=0.008))
    assert own == pytest.approx((4 * 4 * 15 * 3) * 0.002 + 20 * 0.01 + 4 * 60 * 0.008)


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_runs_are_estimated_in_their_order_and_features_counted_once(tmp_path: Path, runtime: str) -> None:
    images = simulate("gels", tmp_path / "gels", images=12, seed=1)
    base = {
        "data": {"path": str(images)}, "pixels": {"height": 32}, "training": {"regime": "probe", "optimizer": "adam", "runtime": runtime},
        "model": {"backbone": "small_30k"},
    }  # fmt: skip
    axes = {"model.weights": ["none", "nowhere.safetensors"], "model.head": ["single", "multi"]}
    found = estimate_runs(plan(parse_grid({"base": base, "axes": axes})))
    assert [one.name for one in found] == [
        "weights-none-single",
        "weights-none-multi",
        "nowhere.safetensors-single",
        "nowhere.safetensors-multi",
    ]
    assert found[0].features_seconds > 0
    assert found[1].features_seconds == 0
    assert all(one.seconds is not None and one.memory > 600_000_000 for one in found[:2])
    assert all(one.seconds is None and "no such file" in one.note for one in found[2:])
