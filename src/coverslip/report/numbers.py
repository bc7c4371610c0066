"""Numbers as a reader wants them: percent, intervals, durations, sizes. Pure text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SPACE = "\u00a0"
DASH = "\u2013"
UNDEFINED = "undefined"

LOWER_IS_BETTER = frozenset({"log_loss", "calibration_error", "brier", "hamming_loss"})

LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "F1, macro",
    "weighted_f1": "F1, weighted",
    "micro_f1": "F1, micro",
    "macro_precision": "Precision, macro",
    "weighted_precision": "Precision, weighted",
    "macro_recall": "Recall, macro",
    "weighted_recall": "Recall, weighted",
    "micro_precision": "Precision, micro",
    "micro_recall": "Recall, micro",
    "exact_match": "All labels right",
    "hamming_loss": "Hamming loss",
    "macro_average_precision": "Average precision, macro",
    "micro_average_precision": "Average precision, micro",
    "micro_roc_auc": "ROC AUC, micro",
    "roc_auc": "ROC AUC",
    "macro_roc_auc": "ROC AUC, macro",
    "average_precision": "Average precision",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "Positive predictive value",
    "npv": "Negative predictive value",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "mcc": "Matthews correlation",
    "log_loss": "Log loss",
    "calibration_error": "Expected calibration error",
    "brier": "Brier score",
}


@dataclass(frozen=True)
class Shown:
    """A value with its interval, ready for the page.

    Attributes:
        value: the estimate; None when undefined.
        low: lower end of the interval, None without one.
        high: upper end of the interval, None without one.
        method: how the interval was made, in words; may be empty.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return self.value is not None and self.low is not None and self.high is not None

    @property
    def text(self) -> str:
        """The value with three decimals, e.g. `0.955`."""
        return decimal(self.value)

    @property
    def percent(self) -> str:
        """The value in percent, e.g. `95.5 %`."""
        return percent(self.value)

    @property
    def interval(self) -> str:
        """The interval in decimals, e.g. `0.772–0.999`, or `−0.123 to 0.456`; empty without one."""
        if self.low is None or self.high is None:
            return ""
        return f"{_rounded(self.low)}{' to ' if self.low < 0 else DASH}{_rounded(self.high)}"

    @property
    def interval_percent(self) -> str:
        """The interval in percent, e.g. `77.2–99.9 %`; empty without one."""
        return f"{_digits(self.low)}{DASH}{_digits(self.high)}{SPACE}%" if self.low is not None and self.high is not None else ""

    @property
    def inside(self) -> bool:
        """Whether value and interval lie in [0, 1], so that they can be drawn on that scale."""
        ends = [end for end in (self.value, self.low, self.high) if end is not None]
        return bool(ends) and all(0 <= end <= 1 for end in ends)


def shown(number: object) -> Shown | None:
    """Read a number of `metrics.json`: a mapping with `value`, or a bare number; None when it is neither.

    >>> shown({"value": 0.955, "low": 0.772, "high": 0.999, "method": "exact"}).interval_percent.replace(SPACE, " ")
    '77.2–99.9 %'
    >>> shown(None) is None, shown({"value": None}).text
    (True, 'undefined')
    """
    if isinstance(number, Mapping) and "value" in number:
        return Shown(finite(number["value"]), finite(number.get("low")), finite(number.get("high")), str(number.get("method") or ""))
    return Shown(finite(number)) if finite(number) is not None else None


def finite(value: Any) -> float | None:
    """A finite float, or None for everything else (text, None, NaN, truth values)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def decimal(value: float | None, places: int = 3) -> str:
    """Three decimals; more where rounding would claim a perfect score; `undefined` for None.

    >>> decimal(0.9545), decimal(0.99996), decimal(1.0), decimal(None)
    ('0.955', '0.99996', '1.000', 'undefined')
    """
    if value is None or not math.isfinite(value):
        return UNDEFINED
    if 0 < value < 1 and f"{value:.{places}f}" == f"{1:.{places}f}" and places < 6:
        return decimal(value, places + 1)
    return _rounded(value, places)


def _rounded(value: float, places: int = 3) -> str:
    return f"{value:.{places}f}".replace("-", "\u2212")


def percent(value: float | None) -> str:
    """A share in percent with one decimal: `95.5 %`; `undefined` for None."""
    return UNDEFINED if value is None else f"{_digits(value)}{SPACE}%"


def _digits(share: float | None, places: int = 1) -> str:
    if share is None:
        return UNDEFINED
    text = f"{100 * share:.{places}f}"
    if 0 < share < 1 and float(text) in (0.0, 100.0) and places < 4:
        return _digits(share, places + 1)
    return text.removesuffix(".0")


def count(value: float) -> str:
    """A whole number with separators: `1,200`."""
    return f"{round(value):,}"


def plural(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `2 classes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{count(number)} {noun}{ending}"


def large(value: float) -> str:
    """A large number in words of thousands: `2.23 million`.

    >>> large(2_230_000).replace(SPACE, " "), large(640)
    ('2.23 million', '640')
    """
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g}{SPACE}{word}"
    return count(value)


def size_text(size: float) -> str:
    """Bytes as text: `12.4 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g}{SPACE}{unit}"
    return f"{round(size)}{SPACE}bytes"


def duration(seconds: float) -> str:
    """A time span: `4.2 ms`, `0.42 s`, `12.3 s`, `3 min 05 s`, `1 h 02 min`.

    >>> duration(12.34).replace(SPACE, " "), duration(185).replace(SPACE, " "), duration(3720).replace(SPACE, " ")
    ('12.3 s', '3 min 05 s', '1 h 02 min')
    """
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.2g}{SPACE}ms"
    if seconds < 59.95:
        return f"{seconds:.2f}{SPACE}s" if seconds < 1 else f"{seconds:.1f}{SPACE}s"
    if round(seconds) < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}{SPACE}min{SPACE}{rest:02d}{SPACE}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{SPACE}h{SPACE}{minutes:02d}{SPACE}min"


def label(name: str) -> str:
    """The name of a metric as a reader knows it.

    >>> label("macro_f1"), label("youden_index")
    ('F1, macro', 'Youden index')
    """
    return LABELS.get(name) or name.replace("_", " ").strip().capitalize()


def shorten(text: str, limit: int, among: Sequence[str] = ()) -> str:
    """Text cut in the middle with an ellipsis when it is longer than `limit` characters.

    Where others of `among` would then read the same, the words that they all begin with are left out in its place.

    >>> shorten("a very long class name indeed", 15)
    'a very … ndeed'
    >>> shorten("species 12 of mushrooms", 15, ["species 12 of mushrooms", "species 34 of mushrooms"])
    '… 12 of mushro…'
    """
    short = _cut(text, limit)
    alike = [name for name in among if name != text and _cut(name, limit) == short]
    if not alike:
        return short
    same = next((place for place, letters in enumerate(zip(text, *alike, strict=False)) if len(set(letters)) > 1), len(text))
    rest = text[max(text.rfind(mark, 0, same) for mark in " _-/.") + 1 :] if same < len(text) else text
    return f"… {rest}" if len(rest) + 2 <= limit else f"… {rest[: limit - 3].rstrip()}…"


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head].rstrip()} … {text[len(text) - (limit - 3 - head) :].lstrip()}" if limit > 8 else text[: limit - 1] + "…"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def share(value: Any) -> str:
    """A share of 1 in percent, without needless digits; anything else as it is.

    >>> share(0.25), share("most")
    ('25 %', 'most')
    """
    return f"{100 * float(value):g} %" if isinstance(value, (int, float)) else str(value)
