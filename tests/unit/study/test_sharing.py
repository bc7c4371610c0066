"""The order of runs: those that share stand together, and nothing is lost."""

from __future__ import annotations

import itertools
import random

from coverslip.study.grid import parse_grid, plan
from coverslip.study.sharing import features_key, in_sharing_order

AXES = {
    "model.head": ["single", "multi"], "split.seed": [0, 1], "model.backbone": ["small_30k", "small_200k"],
    "training.optimizer": ["adam", "sgd"],
}  # fmt: skip


def test_runs_that_share_data_and_features_stand_together() -> None:
    runs = plan(parse_grid({"base": {"pixels": {"height": 32}}, "axes": AXES}))
    random.Random(0).shuffle(runs)
    ordered = in_sharing_order(runs)
    assert sorted(run.model_id for run in ordered) == sorted(run.model_id for run in runs)
    splits = [run.config.split.seed for run in ordered]
    assert len(list(itertools.groupby(splits))) == 2
    both = [(run.config.split.seed, features_key(run.config)) for run in ordered]
    assert len(list(itertools.groupby(both))) == 4
    assert ordered[0] is runs[0]


def test_heads_and_optimizers_change_no_features_and_all_else_of_a_network_does() -> None:
    def keys(**axes: list[object]) -> int:
        written = {name.replace("_", ".", 1): values for name, values in axes.items()}
        return len({features_key(run.config) for run in plan(parse_grid({"axes": written}))})

    assert keys(model_head=["single", "multi"], training_optimizer=["adam", "sgd"]) == 1
    for axes in ({"model_weights": ["none", "pretrained"]}, {"training_seed": [0, 1]}, {"augment_noise": [0.0, 0.1]}):
        assert keys(**axes) == 2, axes
