"""One key of the config that varies within a search: a range of numbers, or a choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from coverslip.config import load_config
from coverslip.errors import ConfigError, did_you_mean

FIELDS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Dimension:
    """A key of the config, and the values that it may take.

    Attributes:
        key: dotted, `training.learning_rate`.
        kind: `float` and `integer` lie between `low` and `high`, both included; `choice` is one of `choices`.
        low: smallest value.
        high: largest value.
        log: whether orders of magnitude are equally likely, and not values.
        step: distance of neighbouring values; None where all (whole) numbers may come.
        choices: values of a choice, plain or tables and lists of them.
    """

    key: str
    kind: Literal["float", "integer", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def labels(self) -> list[bool | int | float | str]:
        """The choices as plain values, by which a storage knows them: tables and lists as JSON text."""
        return [value if isinstance(value, (bool, int, float, str)) else json.dumps(value) for value in self.choices]

    def value(self, stored: Any) -> Any:
        """The value of the config for what a storage holds."""
        return self.choices[self.labels.index(stored)] if self.kind == "choice" else stored

    def label(self, value: Any) -> Any:
        """What a storage holds for a value of the config."""
        return self.labels[list(self.choices).index(value)] if self.kind == "choice" else value

    def ends(self) -> list[Any]:
        """The values at which a contradiction shows: both ends of a range, every choice."""
        return list(self.choices) if self.kind == "choice" else [self.low, self.high]

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the dimension."""
        if self.kind == "choice":
            return value in self.choices
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (self.step is None or abs((value - self.low) / self.step % 1) < 1e-9)

    def to_toml(self) -> Any:
        """What `read_dimension` reads back."""
        if self.kind == "choice":
            return list(self.choices)
        return {"low": self.low, "high": self.high, "log": self.log} | ({} if self.step is None else {"step": self.step})

    def __str__(self) -> str:
        if self.kind == "choice":
            return f"{self.key}: {', '.join(map(str, self.labels))}"
        notes = "".join([", orders of magnitude" if self.log else "", f", in steps of {self.step:g}" if self.step is not None else ""])
        return f"{self.key}: {self.low:g} to {self.high:g}{notes}"


def nested(key: str, value: Any) -> dict[str, Any]:
    """A dotted key as nested mappings.

    >>> nested("training.epochs", 5)
    {'training': {'epochs': 5}}
    """
    for name in reversed(key.split(".")):
        value = {name: value}
    layer: dict[str, Any] = value
    return layer


def read_dimension(key: str, stated: Any, base: Mapping[str, Any]) -> Dimension:
    """A dimension from its table {low, high, log, step} or its list of choices, checked against the config.

    Args:
        key: dotted key of the config; its type decides between whole and other numbers.
        stated: the table or list.
        base: config layer of what does not vary.

    Raises:
        ConfigError: an unknown key, a wrong type, an empty range.
    """
    if isinstance(stated, list):
        return _read_choice(key, stated, base)
    if not isinstance(stated, Mapping):
        raise ConfigError(f"{key} = {stated!r}: expected {{low = ..., high = ...}}, or a list of values to choose from")
    unknown = [name for name in stated if name not in FIELDS]
    if unknown:
        raise ConfigError(f"{key}: {unknown[0]} is not known of a range.{did_you_mean(unknown[0], FIELDS)} Known: {', '.join(FIELDS)}")
    missing = [name for name in ("low", "high") if name not in stated]
    if missing:
        raise ConfigError(f"{key}: a range needs low and high; {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if not isinstance(stated.get("log", False), bool):
        raise ConfigError(f"{key}: log = {stated['log']!r}: expected true or false")
    low, high = (_number_at(key, stated[name], base) for name in ("low", "high"))
    whole = isinstance(low, int) and isinstance(high, int)
    dimension = Dimension(key, "integer" if whole else "float", low, high, stated.get("log", False), stated.get("step"))
    problems = _range_problems(dimension)
    if problems:
        raise ConfigError([f"{key}: {problem}" for problem in problems])
    return dimension


def _read_choice(key: str, stated: list[Any], base: Mapping[str, Any]) -> Dimension:
    if not stated:
        raise ConfigError(f"{key}: the list of choices is empty")
    for value in stated:
        load_config(base, nested(key, value))
    texts = [json.dumps(value, sort_keys=True) for value in stated]
    if len(set(texts)) < len(texts):
        raise ConfigError(f"{key}: a choice stands twice in {stated!r}")
    if len(stated) == 1:
        raise ConfigError(f"{key}: there is one choice only, {stated[0]!r}; fix it under [base], or by -s {key}={stated[0]}")
    return Dimension(key, "choice", choices=tuple(stated))


def _number_at(key: str, value: Any, base: Mapping[str, Any]) -> float:
    """A number of the config's own type.

    Raises:
        ConfigError: no such key, or the config does not take this number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{key}: {value!r} is no number; a range goes from a number to a number, and other values stand in a list")
    taken: Any = load_config(base, nested(key, value)).model_dump()
    for name in key.split("."):
        taken = taken[name]
    if isinstance(taken, bool) or not isinstance(taken, (int, float)):
        raise ConfigError(f"{key} holds no number; put its values into a list")
    return taken


def _range_problems(dimension: Dimension) -> list[str]:
    low, high, step = dimension.low, dimension.high, dimension.step
    problems = []
    if low == high:
        problems.append(f"low = high = {low:g} leaves one value; fix it under [base], or by -s {dimension.key}={low:g}")
    if low > high:
        problems.append(f"low = {low:g} is above high = {high:g}: the range is empty")
    if dimension.log and low <= 0:
        problems.append(f"orders of magnitude (log = true) begin above 0, not at low = {low:g}")
    if step is not None:
        whole = dimension.kind != "integer" or isinstance(step, int)
        if isinstance(step, bool) or not isinstance(step, (int, float)) or step <= 0 or not whole:
            problems.append(f"step = {step!r}: expected a {'whole ' if dimension.kind == 'integer' else ''}number above 0")
        elif step > high - low > 0:
            problems.append(f"step = {step:g} is wider than the range from {low:g} to {high:g}")
        elif rest := (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
            problems.append(f"steps of {step:g} from {low:g} do not lead to high = {high:g}; say {float(Decimal(str(high)) - rest):g}")
        if dimension.log:
            problems.append("orders of magnitude (log = true) and a step contradict each other; leave one out")
    return problems
