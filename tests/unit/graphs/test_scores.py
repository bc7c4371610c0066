from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from coverslip.config import AugmentConfig
from coverslip.data.transforms import tta_copies
from coverslip.evaluation.decision import Decision
from coverslip.graphs.builder import GraphBuilder
from coverslip.graphs.scores import calibrated, with_copies
from coverslip.structures import Task

from .running import outputs_of

LINES = ((0.5, 1.0), (2.0, -0.3), (1.3, 0.0))
DECISIONS = [
    Decision(Task.MULTICLASS),
    Decision(Task.MULTICLASS, temperature=2.7),
    Decision(Task.MULTICLASS, temperature=0.4),
    Decision(Task.MULTILABEL),
    Decision(Task.MULTILABEL, lines=LINES),
]


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("decision", DECISIONS, ids=str)
def test_scores_are_those_in_double_precision(decision: Decision, copies: int) -> None:
    logits = np.random.default_rng(0).normal(0, 6, (copies, 50, 3)).astype(np.float32)
    logits[:, 0] = [20, -20, 90]
    exact = torch.from_numpy(logits).double()
    several = decision.task is Task.MULTILABEL
    expected = decision.calibrated((exact.sigmoid() if several else exact.softmax(dim=2)).mean(dim=0).numpy())
    graph = GraphBuilder()
    found = outputs_of(graph, calibrated(graph, "logits", copies, 3, decision), {"logits": logits.reshape(-1, 3)}, axes=2)
    np.testing.assert_allclose(found, expected, atol=3e-6)


@pytest.mark.parametrize("views", ["none", "flips", "turns"])
@pytest.mark.parametrize("flips", [{}, {"vertical_flip": True}, {"horizontal_flip": True, "vertical_flip": True}])
def test_copies_are_those_of_torch(views: str, flips: dict[str, Any]) -> None:
    augment = AugmentConfig(**flips)
    batch = np.random.default_rng(2).random((2, 3, 8, 8)).astype(np.float32)
    expected = [copy.numpy() for copy in tta_copies(torch.from_numpy(batch), views, augment)]
    graph = GraphBuilder()
    value, count = with_copies(graph, "batch", views, augment)
    found = batch if count == 1 else outputs_of(graph, value, {"batch": batch})
    assert count == len(expected) == {"none": 1, "flips": 4 if len(flips) == 2 else 2, "turns": 8}[views]
    assert np.array_equal(found, np.concatenate(expected))
