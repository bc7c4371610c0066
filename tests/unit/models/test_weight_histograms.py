"""Histograms of weights against numpy on the same numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from coverslip.config import ModelConfig
from coverslip.models.classifier import build_classifier
from coverslip.models.weight_histograms import BINS, GROUPS, NEAR_ZERO, REACH, nice, weight_histograms, weights_json


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 5))


def test_numbers_and_counts_are_those_of_numpy() -> None:
    model = network()
    convolution, linear = model[0].weight.detach().numpy().ravel(), model[3].weight.detach().numpy().ravel()  # type: ignore[union-attr]
    found = weight_histograms(model)
    assert [one.name for one in found] == ["all", "0", "3"]
    for one, values in zip(found, (np.concatenate([convolution, linear]), convolution, linear), strict=True):
        assert one.weights == len(values) == sum(one.counts)
        assert one.mean == pytest.approx(values.mean(), abs=1e-6)
        assert one.deviation == pytest.approx(values.std(), rel=1e-5)
        assert one.near_zero == pytest.approx((np.abs(values) < NEAR_ZERO).mean())
        assert len(one.edges) == BINS + 1
        assert one.edges[0] == -one.edges[-1]
        assert one.edges[-1] >= REACH * np.sqrt((values.astype(np.float64) ** 2).mean())
        expected, _ = np.histogram(np.clip(values, one.edges[0], one.edges[-1]), bins=np.array(one.edges))
        assert list(one.counts) == expected.tolist()


def test_what_lies_beyond_is_counted_in_the_outermost_bins() -> None:
    model = nn.Linear(1000, 2, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.01)
        model.weight[0, 0], model.weight[1, 1] = 900.0, -900.0
    (whole, _) = weight_histograms(model)
    assert whole.edges[-1] == 200.0  # four deviations are 114
    assert (whole.counts[0], whole.counts[-1]) == (1, 1)
    assert sum(whole.counts) == 2000


def test_frozen_weights_biases_and_norms_are_left_out() -> None:
    model = network()
    model[0].requires_grad_(False)
    stored = weights_json(model)
    assert [group["name"] for group in stored["groups"]] == ["all", "3"]
    assert stored["frozen"] == 3 * 9 * 8 + 8
    assert json.loads(json.dumps(stored))["groups"][0]["weights"] == 160
    model.requires_grad_(False)
    assert weight_histograms(model) == []


@pytest.mark.parametrize("backbone", ["small_200k", "resnet18", "vit_tiny_patch16_224"])
def test_groups_of_real_networks_are_few_and_together_all(backbone: str) -> None:
    size = (224, 224) if backbone.startswith("vit") else (32, 32)
    model = build_classifier(ModelConfig(backbone=backbone, weights="none"), channels=1, classes=3, size=size, seed=0)
    whole, *groups = weight_histograms(model)
    assert 3 <= len(groups) <= GROUPS
    assert groups[-1].name == "head"
    assert sum(group.weights for group in groups) == whole.weights
    assert whole.weights == sum(weight.numel() for weight in model.parameters() if weight.ndim > 1)
    assert len(json.dumps(weights_json(model))) < 40_000


def test_edges_are_round_numbers_that_networks_share() -> None:
    assert [nice(value) for value in (0.011, 0.02, 0.21, 0.5000001, 7.0, 1e-9)] == [0.02, 0.02, 0.5, 1.0, 10.0, 1e-9]
    assert nice(0.0) == nice(float("nan")) == nice(float("inf")) == 1.0
