"""Iterative stratification: rows with several labels are shared out so that every part gets its share of every class.

After Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data" (ECML PKDD, LNCS 6913): the class
with the fewest remaining examples is served first. Where this departs from the paper:

- What is placed is a *unit* (a group, duplicates, or one row), which is never torn. Units of several rows come before all
  classes, large ones first, since nothing small is left to even out a large unit that comes late.
- A unit goes where the counts of all its classes and of rows come closest to what is wanted, measured by each part's
  share; the paper looks at one class and at absolute gaps, which fills large parts first.
- Units that hold the same labels equally often are of one *kind*. Each part gets the whole units of its share of a kind at
  once, so that combinations of labels are stratified too; only remainders, fewer than the parts, are placed one by one.
- A class with enough units reaches every part that needs it, where a unit can be moved without taking another class away.
- At last, units are moved from part to part for as long as that brings the counts closer to what is wanted.

Plain numpy and scipy, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from coverslip.structures import BoolArray, FloatArray, IntArray

CANDIDATES = 20_000
"""Better places are sought for so many kinds, drawn at random: a bound on time where nearly all units differ."""
MOVES = 20_000
"""Largest number of moves in one pass over the candidates."""
ROWS_YIELD = 0.01
"""Weight of the number of rows, against classes, in the last pass over single rows: no class is off for the sake of sizes."""


def stratify(
    targets: IntArray, shares: FloatArray, random: np.random.Generator, units: IntArray, essential: Sequence[int] = ()
) -> IntArray:
    """Distribute rows with any number of labels over parts of the given shares: int64 (n,) of part numbers.

    Where every row is a unit, a part gets at least floor(share x m) of the m rows that carry one set of several labels, and
    fewer than floor(share x m) + parts, unless a row is needed for a class to reach a part. Rows with one label are the
    ballast that evens out the counts of their class.

    A class needs a part when it has as many units as there are parts and its share is at least one of them, or when the
    part is essential: a class with two units needs the first two essential parts, and so on. The first essential part, or
    every part where none is essential, is not left empty while there are as many units as parts.

    Args:
        targets: int64 (n, classes) of 0 and 1; a row without any label counts as a row only.
        shares: float64 (parts,), positive, sum 1.
        random: where the draws come from.
        units: int64 (n,), what stays together.
        essential: numbers of the parts that every class should reach, the first of them first.

    Raises:
        ValueError: targets that are not (n, classes) of 0 and 1, shares that are not positive with sum 1, or units of
            another length.

    >>> labels = np.tile([[1, 1], [1, 0]], (10, 1))
    >>> part = stratify(labels, np.array([0.8, 0.2]), np.random.default_rng(0), np.arange(20))
    >>> labels[part == 1].sum(axis=0).tolist(), int(np.sum(part == 1))
    ([4, 2], 4)
    """
    _check(targets, shares, units)
    if not len(targets):
        return np.empty(0, np.int64)
    unit = np.unique(units, return_inverse=True)[1].ravel()
    kind, counts = _find_kinds(targets, unit, random)
    board = _Board(counts, np.bincount(kind), shares, essential)
    _place_rest(board, random)
    _reach_parts(board, filled=essential[:1] or range(len(shares)))
    kinds = np.arange(len(board.copies))
    if len(kinds) > CANDIDATES:
        kinds = np.sort(random.choice(kinds, CANDIDATES, replace=False))
    _even_out(board, kinds)
    if board.single:
        board.weigh(ROWS_YIELD)
        _even_out(board, kinds)
    return _deal(kind, board.placed, random)[unit]


def _check(targets: IntArray, shares: FloatArray, units: IntArray) -> None:
    if targets.ndim != 2 or targets.min(initial=0) < 0 or targets.max(initial=0) > 1:
        raise ValueError(f"targets of shape {targets.shape}: expected (n, classes) of 0 and 1")
    if (shares <= 0).any() or not np.isclose(shares.sum(), 1):
        raise ValueError(f"shares {shares.tolist()}: expected positive numbers with sum 1")
    if units.shape != targets.shape[:1]:
        raise ValueError(f"units of shape {units.shape}: expected one for each of the {len(targets)} rows")


class _Board:
    """How many units of each kind lie in each part, what the parts hold, and what they should hold.

    The distance from what should be is the sum of squared differences in counts, over parts and columns, each divided by
    the column's total. The columns are the classes and, last, the rows, so that sizes are kept like shares of a class.
    """

    def __init__(self, counts: csr_array, copies: IntArray, shares: FloatArray, essential: Sequence[int]) -> None:
        self.counts, self.copies, self.shares = counts, copies, shares
        self.rows = counts[:, [-1]].toarray().ravel()
        self.single = bool(self.rows.max() == 1)
        self.totals = counts.T @ copies
        self.units = (counts > 0).T @ copies
        self.wanted = shares[:, None] * self.totals
        self.need = (self.units >= len(shares)) & (shares[:, None] * self.units >= 1 - 1e-9)
        for rank, part in enumerate(essential):
            self.need[part] |= self.units > rank
        self.whole = np.floor(shares * copies[:, None] + 1e-9).astype(np.int64)
        self.placed = self.whole.copy()
        self.have = (counts.T @ self.placed).T
        self.weigh(1.0)

    def weigh(self, rows: float) -> None:
        """Set the weights of the distance: 1 for a class, `rows` for the number of rows."""
        self.weight = 1.0 / np.maximum(self.totals, 1.0)
        self.weight[-1] *= rows
        self.curvature = self.counts.multiply(self.counts) @ self.weight

    def columns(self, kind: int) -> tuple[IntArray, FloatArray]:
        """Columns of a unit of this kind, and its counts in them."""
        inside = slice(self.counts.indptr[kind], self.counts.indptr[kind + 1])
        return np.asarray(self.counts.indices[inside], np.int64), self.counts.data[inside]

    def growth(self, columns: IntArray, amounts: FloatArray) -> FloatArray:
        """(parts,): how much the distance grows when a unit is put into each part, divided by the part's share."""
        excess = self.have[:, columns] - self.wanted[:, columns]
        return np.asarray((amounts + 2 * excess) @ (amounts * self.weight[columns]) / self.shares)

    def pull(self) -> FloatArray:
        """(columns, parts): derivative of the distance by each count."""
        return np.asarray((2 * (self.have - self.wanted) * self.weight).T)

    def slope(self, kinds: IntArray) -> FloatArray:
        """(kinds, parts): growth of the distance when a unit is put there is slope + curvature; taken away, curvature - slope."""
        return np.asarray(self.counts[kinds] @ self.pull())

    def fixed(self, kinds: IntArray) -> IntArray:
        """(kinds, parts): units that stay: the whole shares of sets of several labels, where every row is a unit."""
        several = self.counts.sum(axis=1)[kinds] - self.rows[kinds] > 1
        return np.asarray(self.whole[kinds] * (several & self.single)[:, None])

    def put(self, kind: int, part: int, times: int = 1) -> None:
        """Put units of a kind into a part, or take them out when `times` is negative."""
        columns, amounts = self.columns(kind)
        self.placed[kind, part] += times
        self.have[part, columns] += times * amounts

    def spared(self, kind: int, part: int, needed: BoolArray) -> int:
        """How many units of a kind the part can lose and still keep the columns that it needs, by `needed` (parts, columns)."""
        columns, amounts = self.columns(kind)
        left = ((self.have[part, columns] - 1) // amounts)[needed[part, columns]]
        return max(0, int(min(self.placed[kind, part], left.min(initial=np.inf))))


def _find_kinds(targets: IntArray, unit: IntArray, random: np.random.Generator) -> tuple[IntArray, csr_array]:
    """Kind of each unit, int64 (units,), and what a unit of each kind holds, float64 (kinds, classes + 1), rows last.

    Units are told apart by sums of random 64-bit numbers, one a class: two different ones pass for alike about once in
    2^64 pairs, and would then only be counted wrongly.
    """
    numbers = random.integers(2**64, size=targets.shape[1] + 1, dtype=np.uint64)
    keys = targets.astype(np.uint64) @ numbers[:-1] + numbers[-1]
    order = np.argsort(unit, kind="stable")
    starts = np.flatnonzero(np.diff(unit[order], prepend=-1))
    _, first, kind = np.unique(np.add.reduceat(keys[order], starts), return_index=True, return_inverse=True)
    example = np.zeros(len(starts), np.bool_)
    example[first] = True
    rows = np.flatnonzero(example[unit])
    kind_of_row = kind.ravel()[unit[rows]]
    held, column = np.nonzero(targets[rows])
    kinds_and_columns = np.concatenate([kind_of_row[held], kind_of_row]), np.concatenate([column, np.full(len(rows), targets.shape[1])])
    counts = csr_array((np.ones(len(kinds_and_columns[0])), kinds_and_columns), shape=(len(first), targets.shape[1] + 1))
    return kind.ravel().astype(np.int64), counts


def _place_rest(board: _Board, random: np.random.Generator) -> None:
    """Place the remainders one by one: units of several rows, large ones first; then rows, of the class with the fewest left first."""
    rest = board.copies - board.placed.sum(axis=1)
    # Large units first, but not strictly: otherwise every seed and every repeat would give the same split.
    order = np.argsort(-board.rows * random.uniform(0.5, 1.0, len(rest)))
    _place(board, order[board.rows[order] > 1], rest)
    holders = (board.counts[order] > 0).tocsc()
    while rest.any():
        left = holders.T @ rest[order]
        rarest = int(np.argmin(np.where(left > 0, left, np.inf)))
        _place(board, order[holders.indices[holders.indptr[rarest] : holders.indptr[rarest + 1]]], rest)


def _place(board: _Board, kinds: IntArray, rest: IntArray) -> None:
    """Put what is left of each of these kinds where the distance from what is wanted grows least, in this order."""
    for kind in kinds[rest[kinds] > 0]:
        columns, amounts = board.columns(kind)
        for _ in range(rest[kind]):
            board.put(kind, int(np.argmin(board.growth(columns, amounts))))
        rest[kind] = 0


def _reach_parts(board: _Board, filled: Sequence[int]) -> None:
    """Bring classes, the rare ones first, and then rows to the parts that need them and have none; `filled` get rows in any case."""
    classes, rows = board.need.copy(), np.zeros_like(board.need)
    classes[:, -1] = False
    rows[filled, -1] = board.need[filled, -1]
    for wanted, kept in ((classes, classes), (board.need, board.need), (rows, rows)):
        lacking = np.argwhere(wanted & (board.have == 0))
        for part, column in lacking[np.argsort(board.units[lacking[:, 1]], kind="stable")]:
            if board.have[part, column] == 0:
                _fetch(board, int(part), int(column), kept)


def _fetch(board: _Board, part: int, column: int, needed: BoolArray) -> None:
    """Move a unit with the class to the part, the one that disturbs least; none where another part would lose what it needs."""
    kinds = np.flatnonzero(board.counts[:, [column]].toarray().ravel())
    slope = board.slope(kinds)
    growth = np.where(board.placed[kinds] > 0, slope[:, [part]] - slope + 2 * board.curvature[kinds, None], np.inf)
    for choice in np.argsort(growth, axis=None, kind="stable")[: np.isfinite(growth).sum()]:
        which, source = divmod(int(choice), len(board.wanted))
        if source != part and board.spared(int(kinds[which]), source, needed):
            board.put(int(kinds[which]), source, -1)
            board.put(int(kinds[which]), part)
            return


def _even_out(board: _Board, kinds: IntArray) -> None:
    """Move units of these kinds, the most useful move first, for as long as the distance from what is wanted shrinks."""
    counts, curvature, fixed = board.counts[kinds], board.curvature[kinds], board.fixed(kinds)
    movable = board.placed[kinds] > fixed
    slope = board.slope(kinds)
    every = np.arange(len(kinds))
    for _ in range(MOVES):
        source = np.argmax(np.where(movable, slope, -np.inf), axis=1)
        target = np.argmin(slope, axis=1)
        steep = np.where(movable[every, source], slope[every, source] - slope[every, target], 0.0)
        best = int(np.argmax(steep - 2 * curvature))
        if steep[best] - 2 * curvature[best] <= 1e-12:
            return
        kind, giver, taker = int(kinds[best]), int(source[best]), int(target[best])
        spared = min(int(board.placed[kind, giver] - fixed[best, giver]), board.spared(kind, giver, board.need))
        times = min(max(1, round(steep[best] / (4 * curvature[best]))), spared)
        movable[best, giver] = times < spared
        if times:
            board.put(kind, giver, -times)
            board.put(kind, taker, times)
            slope[:, [giver, taker]] = counts @ board.pull()[:, [giver, taker]]
            movable[best, taker] = board.placed[kind, taker] > fixed[best, taker]


def _deal(kind: IntArray, placed: IntArray, random: np.random.Generator) -> IntArray:
    """Draw which units of a kind go to which part: int64 (units,)."""
    kinds, parts = placed.shape
    order = random.permutation(len(kind))
    order = order[np.argsort(kind[order], kind="stable")]
    part = np.empty(len(kind), np.int64)
    part[order] = np.repeat(np.tile(np.arange(parts), kinds), placed.ravel())
    return part
