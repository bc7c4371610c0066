"""Who is trained on, who chooses, who judges: every row in exactly one part, no group on two sides.

Rows that must stay together (one group, or duplicates of each other) form a *unit*. Units of several rows are placed
greedily, large ones first, where they keep the sizes and the shares of the classes best (in the spirit of Sechidis et
al. 2011, "On the stratification of multi-label data"); rows that stand alone then fill what is missing, class by class,
by largest remainders with the rounding error carried on. Tables with several labels a row are split by
`data.stratify`. Plain numpy and scipy, no torch.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from coverslip.config import SplitConfig
from coverslip.data.stratify import stratify
from coverslip.errors import InputError
from coverslip.structures import PARTS, FloatArray, IntArray, Split, StrArray, Table, Task

TOLERATED = 0.05
"""A part that misses its share of the rows by more than this is worth a note."""


def split_table(table: Table, config: SplitConfig, *, ties: IntArray | None = None) -> Split:
    """Give every row of a table its part, and its fold when folds are asked for.

    A preset (`table.preset`) is kept; when it names no validation rows, `config.validation` of its train rows become
    the validation part. Folds cover all rows that are not test. Classes too small for what is asked are noted.
    Where rows have several labels, `stratified` and `iterative` are the same; where they have one, `iterative` treats it
    as one of several.

    Args:
        table: n samples of any task, or without labels.
        config: shares, method, folds, repeats, seed.
        ties: int64 (n,), ids of duplicate groups; rows with one id stay together, a negative id stands alone.

    Raises:
        InputError: no rows, a preset without train rows or with unknown parts, folds that cannot be filled.
    """
    _check(table)
    seed = secrets.randbelow(2**32) if config.seed == "random" else config.seed
    for_parts, *for_folds = np.random.SeedSequence(seed).spawn(1 + config.repeats)
    units = join_units(len(table), table.groups, ties)
    labels, method = _labels(table, config)
    if np.unique(units).size < len(table):
        method += ", groups and duplicates kept together"
    random = np.random.default_rng(for_parts)
    if table.preset is None:
        part = _draw_parts(labels, units, {"test": config.test, "validation": config.validation}, random)
        notes = _share_notes(table, part, units, config)
    else:
        part, notes = _keep_preset(table.preset, labels, units, config.validation, random)
        method = "preset" if np.array_equal(part, table.preset) else f"preset; validation drawn from train: {method}"
    notes += _class_notes(table, part, folded=config.folds > 0)
    folds = None
    if config.folds:
        folds, more = _draw_folds(table, part, labels=labels, units=units, asked=config.folds, seeds=for_folds)
        notes += more
        method += f"; {folds.max() + 1} folds" + (f", {config.repeats} repeats" if config.repeats > 1 else "")
    return Split(part=part, seed=seed, method=method, folds=folds, notes=tuple(notes))


def _labels(table: Table, config: SplitConfig) -> tuple[IntArray, str]:
    """What is stratified, int64 (n,) of classes or (n, classes) of 0 and 1, and how, in words."""
    if table.targets is None or config.method == "random":
        return np.zeros(len(table), np.int64), "random"
    if table.targets.ndim == 2:
        return table.targets, "stratified iteratively, as images have several labels"
    if config.method == "iterative":
        return (table.targets[:, None] == np.arange(len(table.classes))).astype(np.int64), "stratified iteratively"
    return table.targets, "stratified"


def split_frame(table: Table, split: Split) -> pd.DataFrame:
    """The content of `split.csv`: image, label, group, part, and `fold` (`fold_1`, `fold_2`, ... when repeated).

    Columns that the table or the split does not have are left out; rows stand in table order.
    """
    columns: dict[str, npt.NDArray[np.generic] | list[str]] = {"image": list(table.images)}
    if table.targets is not None:
        single = table.targets.ndim == 1
        columns["label"] = np.array(table.classes)[table.targets] if single else [table.label_text(i) for i in range(len(table))]
    if table.groups is not None:
        columns["group"] = table.groups
    columns["part"] = split.part
    for repeat, fold in enumerate(() if split.folds is None else split.folds, start=1):
        columns["fold" if split.folds is not None and len(split.folds) == 1 else f"fold_{repeat}"] = fold
    return pd.DataFrame(columns)


def join_units(n: int, groups: StrArray | None, ties: IntArray | None) -> IntArray:
    """int64 (n,), ids 0, 1, ... of what stays together: rows that a chain of shared groups and shared ties connects.

    >>> join_units(4, np.array(["a", "b", "c", "c"]), np.array([7, 7, -1, -1])).tolist()
    [0, 0, 1, 1]
    """
    columns: list[IntArray] = []
    if groups is not None:
        columns.append(pd.factorize(groups)[0].astype(np.int64))
    if ties is not None:
        alone = np.arange(n) + max(int(ties.max(initial=0)), 0) + 1
        columns.append(pd.factorize(np.where(ties < 0, alone, ties))[0].astype(np.int64))
    if not columns:
        return np.arange(n, dtype=np.int64)
    if len(columns) == 1:
        return columns[0]
    left, right = columns[0], columns[1] + columns[0].max(initial=0) + 1
    size = int(right.max(initial=0)) + 1
    graph = coo_array((np.ones(n, np.int8), (left, right)), shape=(size, size))
    return pd.factorize(connected_components(graph, directed=False)[1][left])[0].astype(np.int64)


def allocate(labels: IntArray, units: IntArray, shares: FloatArray, random: np.random.Generator, essential: Sequence[int] = ()) -> IntArray:
    """Distribute rows over parts of the given shares: int64 (n,) of part numbers.

    Without units of several rows, each part gets the floor or the ceiling of its share of each class. A unit is never
    torn. Every class with enough units reaches the `essential` parts, the first of them first.

    Args:
        labels: int64 (n,), class of each row.
        units: int64 (n,), what stays together.
        shares: float64 (parts,), positive, sum 1.
        random: where the draws come from.
        essential: numbers of the parts that every class should reach.
    """
    classes = int(labels.max(initial=0)) + 1
    wanted = shares[:, None] * np.bincount(labels, minlength=classes)
    together = np.bincount(units)[units] > 1
    part = np.full(len(labels), -1, np.int64)
    spare = np.bincount(labels[~together], minlength=classes)
    part[together] = _place_units(labels[together], units[together], wanted, spare=spare, random=random, essential=essential)
    have = np.stack([np.bincount(labels[part == j], minlength=classes) for j in range(len(shares))])
    part[~together] = _place_rows(labels[~together], wanted, have, random, essential)
    return part


def _distribute(
    labels: IntArray, units: IntArray, shares: FloatArray, random: np.random.Generator, essential: Sequence[int] = ()
) -> IntArray:
    """Distribute rows by one label, (n,), or by several, (n, classes): int64 (n,) of part numbers."""
    if labels.ndim == 1:
        return allocate(labels, units, shares, random, essential)
    return stratify(labels, shares, random, units, essential)


def _check(table: Table) -> None:
    if not len(table):
        raise InputError("the table has no rows to split; expected at least one image")
    if table.preset is None:
        return
    unknown = sorted(set(np.unique(table.preset).tolist()) - set(PARTS))
    if unknown:
        raise InputError(f"the preset split names {', '.join(map(repr, unknown))}; expected only {', '.join(PARTS)}")
    if not np.any(table.preset == "train"):
        raise InputError("the preset split has no train rows: there is nothing to learn from; mark some rows as train")


def _draw_parts(labels: IntArray, units: IntArray, asked: dict[str, float], random: np.random.Generator) -> StrArray:
    shares = {"train": 1.0 - sum(asked.values())} | {name: share for name, share in asked.items() if share > 0}
    essential = [j for j, name in enumerate(shares) if name != "validation"]
    wanted = np.array(list(shares.values()))
    numbers = _fill_empty(_distribute(labels, units, wanted, random, essential), labels, units, wanted)
    return np.array(list(shares), dtype="<U10")[numbers]


def _fill_empty(numbers: IntArray, labels: IntArray, units: IntArray, shares: FloatArray) -> IntArray:
    """Parts that few large groups left empty get one, from the part with most of them: one without which it keeps most classes."""
    if not np.any(np.bincount(units) > 1):
        return numbers
    carried = labels if labels.ndim == 2 else (labels[:, None] == np.arange(labels.max(initial=0) + 1)).astype(np.int64)
    for empty in [part for part in range(len(shares)) if not np.any(numbers == part)]:
        groups = [np.unique(units[numbers == part]) for part in range(len(shares))]
        giver = max(range(len(shares)), key=lambda part: len(groups[part]))
        if len(groups[giver]) < 2:
            continue
        members = [np.flatnonzero(units == unit) for unit in groups[giver]]
        rest = carried[numbers == giver].sum(axis=0)
        lost = [int(np.sum((rest > 0) & (rest == carried[rows].sum(axis=0)))) for rows in members]
        gap = [abs(len(rows) - shares[empty] * len(units)) for rows in members]
        numbers[members[min(range(len(members)), key=lambda place: (lost[place], gap[place]))]] = empty
    return numbers


def _keep_preset(
    preset: StrArray, labels: IntArray, units: IntArray, validation: float, random: np.random.Generator
) -> tuple[StrArray, list[str]]:
    part = preset.astype("<U10")
    notes = [] if np.any(part == "test") else ["the preset split has no test rows: there will be no test numbers"]
    if validation > 0 and not np.any(part == "validation"):
        train = np.flatnonzero(part == "train")
        part[train] = _draw_parts(labels[train], units[train], {"validation": validation}, random)
        taken = int(np.sum(part == "validation"))
        notes.append(f"the preset split has no validation rows: {taken} of its {len(train)} train rows were taken for validation")
    return part, notes


def _draw_folds(
    table: Table, part: StrArray, *, labels: IntArray, units: IntArray, asked: int, seeds: Sequence[np.random.SeedSequence]
) -> tuple[IntArray, list[str]]:
    rows = np.flatnonzero(part != "test")
    reachable = np.unique(units[rows]).size
    if reachable < 2:
        raise InputError(f"{asked} folds need at least 2 rows or groups that are not test; found {reachable}")
    count = min(asked, reachable)
    notes = [f"{asked} folds were asked for, but only {count} rows or groups are not test: {count} folds"] if count < asked else []
    folds = np.full((len(seeds), len(table)), -1, np.int64)
    for repeat, seed in enumerate(seeds):
        folds[repeat, rows] = _distribute(labels[rows], units[rows], np.full(count, 1 / count), np.random.default_rng(seed))
    if table.targets is not None:
        members = _class_counts(table, rows)
        small = [name for name, size in zip(table.classes, members, strict=True) if 0 < size < count]
        notes += _named(small, f"fewer rows than the {count} folds: some folds score none of")
        missing = np.any([_class_counts(table, rows[fold[rows] == number]) == 0 for fold in folds for number in range(count)], axis=0)
        apart = np.array(table.classes, dtype=object)[missing & (members >= count)]
        notes += _named(apart, "rows that stay together in too few groups for every fold: some folds score none of")
    return folds, notes


class _Ledger:
    """Rows given to each part so far, against what each part should get."""

    def __init__(self, wanted: FloatArray) -> None:
        self.wanted, self.wanted_sizes = wanted, wanted.sum(axis=1)
        self.totals, self.rows = wanted.sum(axis=0), wanted.sum()
        self.have, self.sizes = np.zeros_like(wanted), np.zeros(len(wanted))

    def cost(self, columns: IntArray, amounts: FloatArray) -> FloatArray:
        """(parts,): how much the chi-square distance from the wanted counts grows when a unit goes to each part."""
        size = amounts.sum()
        excess = self.have[:, columns] - self.wanted[:, columns]
        growth = (amounts + 2 * excess) @ (amounts / self.totals[columns])
        growth += size * (size + 2 * (self.sizes - self.wanted_sizes)) / self.rows
        return np.asarray(growth / self.wanted_sizes)

    def give(self, part: int, columns: IntArray, amounts: FloatArray) -> None:
        self.have[part, columns] += amounts
        self.sizes[part] += amounts.sum()


def _place_units(
    labels: IntArray, units: IntArray, wanted: FloatArray, *, spare: IntArray, random: np.random.Generator, essential: Sequence[int]
) -> IntArray:
    """Part of each row of units with several rows. `spare` (classes,) counts the rows that stand alone and come later."""
    if not len(labels):
        return np.empty(0, np.int64)
    classes = wanted.shape[1]
    names, unit = np.unique(units, return_inverse=True)
    pairs, amounts = np.unique(unit * classes + labels, return_counts=True)
    columns, starts = pairs % classes, np.searchsorted(pairs // classes, np.arange(len(names) + 1))
    remaining = np.bincount(columns, minlength=classes) + spare
    ledger = _Ledger(wanted)
    # Large units first, but not strictly: otherwise every seed and every repeat would give the same split.
    order = np.argsort(-np.bincount(unit) * random.uniform(0.5, 1.0, len(names)))
    choice = np.empty(len(names), np.int64)
    for i in order:
        mine, sizes = columns[starts[i] : starts[i + 1]], amounts[starts[i] : starts[i + 1]].astype(np.float64)
        last = mine[remaining[mine] == 1]
        lacking = [j for j in essential if last.size and (ledger.have[j, last] == 0).any()]
        allowed = [j for j in lacking if j == essential[0] or sizes.sum() <= wanted[j].sum()]
        choice[i] = allowed[0] if allowed else int(np.argmin(ledger.cost(mine, sizes)))
        ledger.give(int(choice[i]), mine, sizes)
        remaining[mine] -= 1
    return choice[unit]


def _place_rows(labels: IntArray, wanted: FloatArray, have: IntArray, random: np.random.Generator, essential: Sequence[int]) -> IntArray:
    """Part of each row that stands alone, filling the gap between `have` and `wanted`, both (parts, classes)."""
    parts, classes = wanted.shape
    counts = np.bincount(labels, minlength=classes)
    ideal = np.maximum(wanted - have, 0.0)
    ideal *= counts / np.maximum(ideal.sum(axis=0), 1e-12)
    carry = (wanted - have).sum(axis=1) - ideal.sum(axis=1)
    seats = np.zeros((parts, classes), np.int64)
    for k in np.flatnonzero(counts):
        seats[:, k] = _seats(int(counts[k]), ideal[:, k], carry + 1e-6 * random.random(parts), have[:, k], essential)
        carry += ideal[:, k] - seats[:, k]
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    part = np.empty(len(labels), np.int64)
    part[order] = np.repeat(np.tile(np.arange(parts), classes), seats.T.ravel())
    return part


def _seats(count: int, ideal: FloatArray, carry: FloatArray, have: IntArray, essential: Sequence[int]) -> IntArray:
    """Largest remainders for one class: int64 (parts,) that sums to `count`, the carried error counted in."""
    seats = np.floor(ideal + 1e-9).astype(np.int64)
    remainder = ideal - seats
    priority = np.where(remainder > 1e-9, remainder + carry, -np.inf)
    seats[np.argsort(-priority)[: count - int(seats.sum())]] += 1
    for rank, j in enumerate(essential):
        kept = np.isin(np.arange(len(seats)), essential[:rank]) & (have == 0)
        spare = seats - kept
        if seats[j] + have[j] == 0 and spare.max() > 0:
            seats[int(np.argmax(np.where(spare > 0, seats - ideal, -np.inf)))] -= 1
            seats[j] += 1
    return seats


def _share_notes(table: Table, part: StrArray, units: IntArray, config: SplitConfig) -> list[str]:
    notes = []
    for name, asked in (("validation", config.validation), ("test", config.test)):
        reached = float(np.mean(part == name))
        if abs(reached - asked) > TOLERATED or (asked > 0 and reached == 0):
            reason = _why_not(table, units, abs(reached - asked))
            notes.append(f"the {name} part holds {reached:.1%} of the rows, {asked:.1%} were asked for; {reason}")
    return notes


def _why_not(table: Table, units: IntArray, missed: float) -> str:
    """What keeps a part from its share, in words."""
    sizes = np.bincount(units)
    first = int(np.argmax(sizes[units]))
    if sizes.max() == 1:
        return "the classes are too small for these shares"
    if sizes.max() / len(table) < missed / 2:
        return "what belongs together is not torn, and as many classes as can be are to reach each part"
    name = f"group {str(table.groups[first])!r}" if table.groups is not None else f"the duplicates of {table.images[first]}"
    return f"what belongs together is not torn, and {name} alone holds {sizes.max() / len(table):.1%}"


def _class_notes(table: Table, part: StrArray, *, folded: bool) -> list[str]:
    """What the parts lack; with folds the validation part is learned from too, and thresholds are chosen out of fold."""
    if table.targets is None:
        return []
    counts = {name: _class_counts(table, np.flatnonzero(part == name)) for name in PARTS}
    learned = counts["train"] + (counts["validation"] if folded else 0)
    total = np.sum(list(counts.values()), axis=0)
    names = np.array(table.classes, dtype=object)
    notes = _named(names[total == 1], "one image only, so it cannot be both learned and judged:")
    notes += _named(names[(total > 1) & (learned == 0)], "no train image, so it cannot be learned:")
    if np.any(part == "test"):
        notes += _named(names[(total > 1) & (counts["test"] == 0)], "no test image, so its numbers will be undefined:")
    if table.task is Task.MULTILABEL and np.any(part == "validation") and not folded:
        judged = (total > 1) & (learned > 0)
        notes += _named(names[judged & (counts["validation"] == 0)], "no validation image, so its threshold cannot be chosen there:")
    return notes


def _class_counts(table: Table, rows: IntArray) -> IntArray:
    """int64 (classes,): how many of the rows carry each class."""
    targets = table.labels[rows]
    return targets.sum(axis=0) if targets.ndim == 2 else np.bincount(targets, minlength=len(table.classes))


def _named(names: Sequence[str] | npt.NDArray[np.object_], message: str, shown: int = 10) -> list[str]:
    if not len(names):
        return []
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return [f"{message} {', '.join(map(str, names[:shown]))}{rest}"]
