"""The order of training samples: an endless seeded stream, addressed by step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coverslip.runtime import derived_seed
from coverslip.structures import FloatArray, IntArray

Arrange = Callable[[np.random.Generator, IntArray], IntArray]


class SampleStream:
    """Batches of an endless stream in which every sample comes once before any comes again.

    With shares, samples are drawn with replacement instead, each as often as its share says. Batch `step` depends on the seed
    and the step only: a resumed run sees what an unbroken one sees. `arrange` may bring the order of a pass into one in which the
    source of the samples can be read.
    """

    def __init__(
        self, rows: IntArray, batch_size: int, seed: int, shares: FloatArray | None = None, arrange: Arrange | None = None
    ) -> None:
        self.rows = rows
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed
        self.shares = shares
        self.arrange = arrange
        self._orders: dict[int, IntArray] = {}

    def batch(self, step: int) -> IntArray:
        """The rows of one step, int64 (batch_size,)."""
        passes, offsets = np.divmod(self._places(step), len(self.rows))
        return np.array([self._order(int(number))[offset] for number, offset in zip(passes, offsets, strict=True)], dtype=np.int64)

    def passes(self, step: int) -> IntArray:
        """In which pass through the samples each row of a step is drawn, from 0: int64 (batch_size,)."""
        return self._places(step) // len(self.rows)

    def _places(self, step: int) -> IntArray:
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size, dtype=np.int64)

    def _order(self, number: int) -> IntArray:
        if number not in self._orders:
            generator = np.random.default_rng(derived_seed("order", self.seed, number))
            self._orders = {key: order for key, order in self._orders.items() if key >= number - 1}
            drawn = generator.permutation(self.rows) if self.shares is None else generator.choice(self.rows, len(self.rows), p=self.shares)
            self._orders[number] = drawn if self.arrange is None else self.arrange(generator, drawn)
        return self._orders[number]


def draw_shares(sampler: str, targets: IntArray) -> FloatArray | None:
    """How often each row is drawn; None where all are alike.

    `balanced` draws a row by its rarest class, in inverse proportion to that class's rows; rows without a label count as a class
    of their own.

    Args:
        sampler: `uniform` or `balanced`.
        targets: int64 (n,) of class indices, or (n, classes) of 0 and 1.

    >>> draw_shares("balanced", np.array([0, 0, 0, 1])).round(3).tolist()
    [0.167, 0.167, 0.167, 0.5]
    """
    if sampler == "uniform":
        return None
    if targets.ndim == 1:
        weights = 1.0 / np.bincount(targets)[targets]
    else:
        bare = targets.sum(axis=1, keepdims=True) == 0
        member = np.concatenate([targets, bare], axis=1)
        weights = (member / np.maximum(member.sum(axis=0), 1)).max(axis=1)
    return np.asarray(weights / weights.sum())
