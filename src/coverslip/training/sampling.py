"""The order of training samples: an endless stream of seeded permutations, addressed by step."""

from __future__ import annotations

import numpy as np

from coverslip.runtime import derived_seed
from coverslip.structures import IntArray


class SampleStream:
    """Batches of an endless stream in which every sample comes once before any comes again.

    Batch `step` depends on the seed and the step only: a resumed run sees what an unbroken one sees.
    """

    def __init__(self, rows: IntArray, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed
        self._orders: dict[int, IntArray] = {}

    def batch(self, step: int) -> IntArray:
        """The rows of one step, int64 (batch_size,)."""
        start = step * self.batch_size
        places = np.arange(start, start + self.batch_size)
        passes, offsets = np.divmod(places, len(self.rows))
        return np.array([self._order(int(number))[offset] for number, offset in zip(passes, offsets, strict=True)], dtype=np.int64)

    def _order(self, number: int) -> IntArray:
        if number not in self._orders:
            generator = np.random.default_rng(derived_seed("order", self.seed, number))
            self._orders = {key: order for key, order in self._orders.items() if key >= number - 1}
            self._orders[number] = generator.permutation(self.rows)
        return self._orders[number]
