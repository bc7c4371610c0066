"""What stands around the network: test-time copies before it, probabilities and their calibration behind it."""

from __future__ import annotations

import math

import numpy as np

from coverslip.config import AugmentConfig
from coverslip.data.transforms import tta_views
from coverslip.evaluation.decision import Decision
from coverslip.evaluation.metrics import SMALLEST
from coverslip.graphs.builder import GraphBuilder, Value, floats, integers
from coverslip.structures import Task

_BEFORE_THE_FIRST = int(np.iinfo(np.int64).min)


def with_copies(graph: GraphBuilder, batch: Value, views: str, augment: AugmentConfig) -> tuple[Value, int]:
    """The batch and its test-time copies, (copies n, c, h, w), one copy of all images after the other; and how many there are."""
    made = []
    for axes, turned in tta_views(views, augment):
        copy = batch
        if axes:
            every = (integers(*[number] * len(axes)) for number in (-1, _BEFORE_THE_FIRST))
            copy = graph("Slice", copy, *every, integers(*axes), integers(*[-1] * len(axes)))
        made.append(graph("Transpose", copy, perm=[0, 1, 3, 2]) if turned else copy)
    return (graph("Concat", *made, axis=0), len(made)) if len(made) > 1 else (batch, 1)


def of_the_first_copy(graph: GraphBuilder, values: Value, copies: int, width: int) -> Value:
    """Of values (copies n, width) those of the images as they are, (n, width)."""
    if copies == 1:
        return values
    return graph("Squeeze", graph("Slice", graph("Reshape", values, integers(copies, -1, width)), integers(0), integers(1)), integers(0))


def calibrated(graph: GraphBuilder, logits: Value, copies: int, classes: int, decision: Decision) -> Value:
    """Calibrated scores, float32 (n, classes), of logits (copies n, classes)."""
    if decision.task is Task.MULTILABEL:
        if not decision.lines:
            return _mean(graph, graph("Sigmoid", logits), copies, classes)
        slopes, offsets = np.array(decision.lines, dtype=np.float32).T
        return graph("Sigmoid", graph("Add", graph("Mul", _log_odds(graph, logits, copies, classes), slopes), offsets))
    scores = _mean(graph, graph("Softmax", logits, axis=1), copies, classes)
    if decision.temperature == 1:
        return scores
    return graph("Softmax", graph("Div", _log(graph, scores), floats(decision.temperature)), axis=1)


def _mean(graph: GraphBuilder, scores: Value, copies: int, classes: int) -> Value:
    if copies == 1:
        return scores
    return graph("ReduceMean", graph("Reshape", scores, integers(copies, -1, classes)), integers(0), keepdims=0)


def _log_odds(graph: GraphBuilder, logits: Value, copies: int, classes: int) -> Value:
    """Of the mean of the copies: from the probabilities of both answers, so that float32 keeps them where one is close to 1.

    exp(-softplus(-x)) is the sigmoid with all its digits, which engines approximate where it is close to 0.
    """
    if copies == 1:
        most = -math.log(SMALLEST)
        return graph("Clip", logits, floats(-most), floats(most))
    against, scores = (graph("Exp", graph("Neg", graph("Softplus", one))) for one in (logits, graph("Neg", logits)))
    return graph("Sub", *(_log(graph, _mean(graph, one, copies, classes)) for one in (scores, against)))


def _log(graph: GraphBuilder, scores: Value) -> Value:
    return graph("Log", graph("Max", scores, floats(SMALLEST)))
