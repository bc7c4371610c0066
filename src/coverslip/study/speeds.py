"""From the times of steps to speed, waiting and latency. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from coverslip.training.batches import TimedStep

WARM_UP = 2
"""Steps that are not counted: memory is claimed, and the fastest way to compute a layer is chosen."""
LEAST, MOST = 3, 100
"""Steps that are counted."""
PATIENCE = 8
"""How many times the time that was asked for is waited for `LEAST` steps; then one is enough."""


def take_steps(steps: Iterator[TimedStep], seconds: float) -> list[TimedStep]:
    """Steps for about so many seconds, after a warm-up that is left out; where steps are slow, at least a few."""
    first = next(steps)
    spent = first.seconds
    for _ in range(WARM_UP - 1 if first.seconds < seconds else 0):
        spent += next(steps).seconds
    taken: list[TimedStep] = []
    counted = 0.0
    while len(taken) < MOST:
        taken.append(next(steps))
        counted += taken[-1].seconds
        if (counted >= seconds and len(taken) >= LEAST) or spent + counted >= PATIENCE * seconds:
            break
    return taken


def speed(steps: Sequence[TimedStep], batch_size: int) -> dict[str, float]:
    """What some steps say: images a second by the median step, its quartiles, and the share of all their time that was waiting.

    >>> speed([TimedStep(0.2, 0.05), TimedStep(0.2, 0.05), TimedStep(0.4, 0.06)], 10)["images_per_second"]
    50.0
    """
    seconds = np.array([step.seconds for step in steps])
    low, middle, high = np.percentile(seconds, [25, 50, 75])
    return {
        "images_per_second": float(batch_size / middle),
        "waiting_share": float(sum(step.waiting for step in steps) / seconds.sum()),
        "step_milliseconds": 1000 * float(middle),
        "step_low": 1000 * float(low),
        "step_high": 1000 * float(high),
        "steps": len(steps),
    }


def latency(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile, in milliseconds."""
    middle, high = np.percentile(np.array(seconds), [50, 95])
    return 1000 * float(middle), 1000 * float(high)
