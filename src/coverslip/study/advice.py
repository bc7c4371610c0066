"""Which batch size, which strategy: a recommendation from measured rows, in plain words. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from coverslip.study.strategies import STRATEGIES

CLOSE = 0.95
"""What is at least this share of the fastest counts as equally fast."""
ROOM = 0.8
"""Share of the free memory that a recommendation may fill."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Circumstances:
    """What a recommendation depends on beside the speeds.

    Attributes:
        images: in the whole data set.
        training: of them, those that are trained on.
        measured: of them, those that speed was measured on.
        image_bytes: of one image's stored pixels.
        free_bytes: memory that was free before anything was measured.
    """

    images: int
    training: int
    measured: int
    image_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Choice:
    """What is recommended for one model; `reason` says why nothing is, and is empty otherwise."""

    model: str
    batch_size: int | None = None
    strategy: str = ""
    images_per_second: float | None = None
    waiting_share: float | None = None
    peak_memory_megabytes: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Advice:
    """The recommendation in one sentence, and by model."""

    headline: str
    choices: tuple[Choice, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def advise(rows: Sequence[Row], around: Circumstances) -> Advice:
    """Recommend a batch size and a strategy for each model.

    Strategies differ in what a step waits for and share what it computes: a speed is taken as that of the strategy's own waiting and
    the median computing of all strategies at that batch size, so that noise in computing does not choose between them. The batch
    size is the smallest that is about as fast as the fastest; the strategy is the first of `STRATEGIES` that is about as fast as
    the best at that batch size. A batch larger than the training part, and pixels that would fill the memory, are left out. Frozen
    features are another kind of training, and recommended only where nothing else was measured.

    Args:
        rows: measurements, with the columns of results.csv.
        around: the data and the machine.
    """
    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    choices = tuple(_choose(model, [row for row in rows if row["model"] == model], around) for model in models)
    sizes = [int(row["batch_size"]) for row in rows if row["status"] == "ok"]
    aside = any(size > around.training for size in sizes) and all((choice.batch_size or 0) <= around.training for choice in choices)
    return Advice(_sentence(choices, around.training if aside else None), choices)


def _choose(model: str, rows: Sequence[Row], around: Circumstances) -> Choice:
    done = [row for row in rows if row["status"] == "ok"]
    if not done:
        return Choice(model, reason=str(rows[0]["error"]))
    whole = [row for row in done if not STRATEGIES[str(row["strategy"])].frozen] or done
    fitting = [row for row in whole if _fits(row, around)]
    if not fitting:
        return Choice(model, reason=f"all that was measured fills more than {ROOM:.0%} of the memory")
    usable = [row for row in fitting if row["batch_size"] <= around.training] or fitting
    speeds = smoothed(usable)
    size = min(row["batch_size"] for row, speed in zip(usable, speeds, strict=True) if speed >= CLOSE * max(speeds))
    same = {str(row["strategy"]): (speed, row) for row, speed in zip(usable, speeds, strict=True) if row["batch_size"] == size}
    best = max(speed for speed, _ in same.values())
    chosen = next(same[name][1] for name in STRATEGIES if name in same and same[name][0] >= CLOSE * best)
    speed, waiting, memory = (float(chosen[name]) for name in ("images_per_second", "waiting_share", "peak_memory_megabytes"))
    return Choice(model, int(size), str(chosen["strategy"]), speed, waiting, memory)


def smoothed(rows: Sequence[Row]) -> list[float]:
    """Images a second of each row, from its own waiting and the median computing of all rows of its batch size.

    >>> rows = [{"batch_size": 8, "step_milliseconds": step, "waiting_share": 0.5} for step in (100, 200, 300)]
    >>> [round(speed) for speed in smoothed(rows)]
    [53, 40, 32]
    """
    waiting = [row["step_milliseconds"] * row["waiting_share"] for row in rows]
    computing: dict[int, list[float]] = {}
    for row, waited in zip(rows, waiting, strict=True):
        computing.setdefault(row["batch_size"], []).append(row["step_milliseconds"] - waited)
    return [1000 * row["batch_size"] / (waited + median(computing[row["batch_size"]])) for row, waited in zip(rows, waiting, strict=True)]


def _fits(row: Row, around: Circumstances) -> bool:
    """Whether it would fit into memory with the whole data set: pixels in memory grow with it, all else does not."""
    held = STRATEGIES[str(row["strategy"])].holds == "memory"
    beyond = max(0, around.images - around.measured) * around.image_bytes if held else 0
    return bool(1e6 * row["peak_memory_megabytes"] + beyond <= ROOM * around.free_bytes)


def _sentence(choices: Sequence[Choice], largest: int | None) -> str:
    """The recommendation; `largest` is the number of training images where larger batches were measured and left aside."""
    made = [choice for choice in choices if not choice.reason]
    if not made:
        return "Nothing could be measured: " + "; ".join(f"{choice.model}: {choice.reason}" for choice in choices) + "."
    same = len({choice.strategy for choice in made}) == 1
    words = f" {STRATEGIES[made[0].strategy].words}" if same else ""
    if same and len({choice.batch_size for choice in made}) == 1:
        models = f"all {len(made)} models" if len(made) == len(choices) > 1 else _listed([choice.model for choice in made])
        taken = f"Take batches of {made[0].batch_size}{words} for {models}"
    else:
        each = [f"{choice.batch_size}{'' if same else ' ' + STRATEGIES[choice.strategy].words} for {choice.model}" for choice in made]
        taken = f"Take batches of {_listed(each)}{',' if same else ''}{words}"
    speeds = _listed([_speed(choice.images_per_second) for choice in made])
    waiting = max(choice.waiting_share or 0.0 for choice in made)
    memory = max(choice.peak_memory_megabytes or 0.0 for choice in made) / 1000
    most = "at most " if len(made) > 1 else ""
    aside = "" if largest is None else f" (batches of more than the {largest:,} training images left aside)"
    return (
        f"{taken}: {speeds} images a second, within {round(100 * (1 - CLOSE))} % of the fastest{aside}; waiting for data takes {most}"
        f"{round(100 * waiting)} % of the time, and the memory needed is {most}{memory:.1f} GB."
    )


def _speed(value: float | None) -> str:
    return f"{value or 0.0:,.0f}" if (value or 0.0) >= 10 else f"{value or 0.0:.1f}"


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
