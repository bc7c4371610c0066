"""A grid: some keys of the config, each with the values that are tried, and every combination of them. Pure, no files.

An axis is a key (`training.optimizer`) or a whole section (`model`) whose values are tables. Everything else is the base.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from coverslip.config import RunConfig, load_config, merge_layers, parse_override
from coverslip.errors import ConfigError, did_you_mean
from coverslip.runtime import hash_text

PARTS = ("base", "axes", "exclude")
RECORDED = ("kind", "command", "grid", "bundles", "versions", "machine")
"""What study.toml says beside the grid: the file of a comparison is a grid too."""
MOST_RUNS = 10_000
NAME_LENGTH = 80
UNCLEAR = ("none", "auto", "pretrained")
"""Values that say nothing without the name of their key."""
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
"""Names that Windows keeps for itself."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """What is compared.

    Attributes:
        base: config sections that hold for all runs; may name a `recipe` that lies below them.
        axes: the values of each key, or of each section, in the order in which they are nested.
        exclude: combinations that are left out: key = value, or key = list of values.
    """

    base: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    exclude: tuple[Values, ...] = ()

    def to_toml(self) -> dict[str, Any]:
        """The grid as its file would hold it."""
        axes = {key: list(values) for key, values in self.axes.items()}
        return {"base": self.base, "axes": axes, "exclude": [dict(one) for one in self.exclude]}


@dataclass(frozen=True)
class PlannedRun:
    """One combination: its name in the study, its value on each axis, and the config."""

    model_id: str
    values: Values
    config: RunConfig


def parse_grid(content: Mapping[str, Any]) -> Grid:
    """A grid from the content of its TOML file.

    Raises:
        ConfigError: what is wrong with its form, all of it at once.
    """
    known = PARTS + (RECORDED if content.get("kind") == "compare" else ())
    problems = [
        f"a grid has no part {name!r}; expected {', '.join(PARTS)}.{did_you_mean(name, PARTS)}" for name in content if name not in known
    ]
    problems += [f"[{name}] of a grid is a table" for name in ("base", "axes") if not isinstance(content.get(name, {}), Mapping)]
    exclude = content.get("exclude", [])
    if not isinstance(exclude, list) or not all(isinstance(one, Mapping) for one in exclude):
        problems.append("exclude of a grid is a list of tables: [[exclude]]")
    if problems:
        raise ConfigError(problems)
    axes: dict[str, tuple[Any, ...]] = {}
    for key, values in _leaves(content.get("axes", {})):
        if key in axes:
            problems.append(f"the axis {key} is given twice")
        elif not isinstance(values, list):
            problems.append(f"axis {key} = {values!r}: expected a list of values; a single value belongs under [base]")
        else:
            axes[key] = tuple(values)
    problems += _axis_problems(axes)
    if problems:
        raise ConfigError(problems)
    return Grid(dict(content.get("base", {})), axes, tuple(dict(_leaves(one)) for one in exclude))


def override(grid: Grid, settings: Sequence[str]) -> Grid:
    """The grid under `-s KEY=VALUE` texts.

    A list makes or replaces an axis, unless the key itself takes such a list and is no axis yet; anything else sets the base,
    and the axis of that key shrinks to it. Tables for a whole section replace the axes of the keys that they hold.

    Raises:
        ConfigError: an override that another axis contradicts, or one without `=`.
    """
    given = sorted(map(parse_override, settings), key=lambda pair: pair[0].count("."))  # whole sections first
    single: list[str] = []
    for key, value in given:
        if _is_axis(grid, key, value):
            grid = _with_axis(grid, key, tuple(value))
            continue
        for name, one in [(key, value)] if key in grid.axes or not isinstance(value, Mapping) else _leaves({key: value}):
            single.append(name)
            grid = replace(grid, base=merge_layers(grid.base, _nested(name, one)))
            if name in grid.axes:
                grid = replace(grid, axes=grid.axes | {name: (one,)})
    problems = [
        f"-s {name}: the axis {axis} sets {name} too; give it another list, -s '{axis}=[...]'"
        for name in single
        for axis, values in grid.axes.items()
        if axis != name and name in _keys_set(axis, values)
    ]
    problems += _axis_problems(grid.axes)
    if problems:
        raise ConfigError(problems)
    return grid


def plan(grid: Grid) -> list[PlannedRun]:
    """Every combination that is not excluded, checked.

    Raises:
        ConfigError: unknown keys, wrong values, values that contradict each other: all problems at once, each with the runs that
            it is about.
    """
    if not grid.axes:
        raise ConfigError("the grid has no axes, so there is nothing to compare; add some under [axes], or -s 'KEY=[...]'")
    size = 1
    for tried in grid.axes.values():
        size *= len(tried)
    if size > MOST_RUNS:
        raise ConfigError(f"the grid has {size:,} combinations; at most {MOST_RUNS:,} are compared in one study")
    combinations = [dict(zip(grid.axes, values, strict=True)) for values in itertools.product(*grid.axes.values())]
    problems: dict[str, list[str]] = {problem: [] for problem in _exclusion_problems(grid)}
    runs = []
    for name, values in zip(model_ids(grid.axes, combinations), combinations, strict=True):
        try:
            config = load_config(grid.base, *(_nested(key, value) for key, value in values.items()))
            if any(_excluded(config, one) for one in grid.exclude):
                continue
            config.check()
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(name)
            continue
        runs.append(PlannedRun(name, values, config))
    if problems:
        raise ConfigError([problem + _which(names, size) for problem, names in problems.items()])
    if not runs:
        raise ConfigError(f"every one of the {size} combinations of the grid is excluded")
    return runs


def _which(names: Sequence[str], size: int) -> str:
    if len(names) in (0, size):
        return ""
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f" (in {len(names)} of {size} combinations: {shown}; leave them out under [[exclude]], or change an axis)"


def _is_axis(grid: Grid, key: str, value: Any) -> bool:
    """Whether an override is a list of values, or one value (that may be a list itself)."""
    if not isinstance(value, list) or key in grid.axes:
        return isinstance(value, list)
    return not _taken(key, value)


def _with_axis(grid: Grid, key: str, values: tuple[Any, ...]) -> Grid:
    """The grid with an axis in the place of the first that it replaces, or at the end."""
    held = _keys_set(key, values)
    axes: dict[str, tuple[Any, ...]] = {}
    for other, kept in grid.axes.items():
        if other == key or (other in held and "." not in key):
            axes.setdefault(key, values)
        else:
            axes[other] = kept
    return replace(grid, axes={**axes, key: values})


def _axis_problems(axes: Mapping[str, tuple[Any, ...]]) -> list[str]:
    problems = [f"the axis {key} is empty; give it values, or leave it out" for key, values in axes.items() if not values]
    for key, values in axes.items():
        shown = [repr(value) for value in values]
        problems += [f"the axis {key} holds {text} twice" for text, times in Counter(shown).items() if times > 1]
        if "." not in key and key in RunConfig.model_fields and not all(isinstance(value, Mapping) for value in values):
            problems.append(f'the axis {key} is a whole section: its values are tables, for example {key} = [{{key = "value"}}]')
    for (first, here), (second, there) in itertools.combinations(axes.items(), 2):
        both = sorted(key for key in _keys_set(first, here) for other in _keys_set(second, there) if _overlap(key, other))
        if both:
            problems.append(f"the axes {first} and {second} contradict each other: both set {', '.join(both)}; keep one of them")
    return problems


def _overlap(first: str, second: str) -> bool:
    return first == second or first.startswith(f"{second}.") or second.startswith(f"{first}.")


def _keys_set(axis: str, values: Sequence[Any]) -> set[str]:
    """The keys that an axis sets: its own, or those in the tables of a section."""
    if "." in axis or not any(isinstance(value, Mapping) for value in values):
        return {axis}
    return {f"{axis}.{name}" for value in values if isinstance(value, Mapping) for name in value}


def _exclusion_problems(grid: Grid) -> list[str]:
    known = {f"{section}.{name}" for section, made in RunConfig.model_fields.items() for name in made.annotation.model_fields}  # type: ignore[union-attr]
    problems = []
    for key, value in ((key, value) for one in grid.exclude for key, value in one.items()):
        if ".".join(key.split(".")[:2]) not in known:
            problems.append(f"[[exclude]] {key}: no such key of the config.{did_you_mean(key, known)}")
        elif not _taken(key, value):
            for each in value if isinstance(value, list) else [value]:
                problems += [f"[[exclude]] {problem}" for problem in _value_problems(key, each)]
    return problems


def _taken(key: str, value: Any) -> bool:
    return not _value_problems(key, value)


def _value_problems(key: str, value: Any) -> list[str]:
    """Why a key of the config does not take a value; empty when it does."""
    try:
        load_config(_nested(key, value))
    except ConfigError as error:
        return error.problems
    return []


def _excluded(config: RunConfig, one: Values) -> bool:
    return bool(one) and all(_matches(_value_of(config, key), value) for key, value in one.items())


def _matches(found: Any, wanted: Any) -> bool:
    return found == wanted or (isinstance(wanted, list) and found in wanted)


def _value_of(config: RunConfig, key: str) -> Any:
    value: Any = config.model_dump()
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _leaves(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of a nested mapping."""
    for name, value in content.items():
        key = f"{above}.{name}" if above else name
        if isinstance(value, Mapping):
            yield from _leaves(value, key)
        else:
            yield key, value


def _nested(key: str, value: Any) -> dict[str, Any]:
    nested: Any = dict(value) if isinstance(value, Mapping) else value
    for name in reversed(key.split(".")):
        nested = {name: nested}
    return dict(nested)


# Names ----------------------------------------------------------------------------------------------------------------


def model_ids(axes: Mapping[str, Sequence[Any]], combinations: Sequence[Values]) -> list[str]:
    """A short readable name for each combination, of what differs between them; all different, and names of folders anywhere.

    >>> axes = {"training.device": ["cpu"], "model.backbone": ["resnet18", "vgg16"], "training.seed": [0, 1]}
    >>> model_ids(axes, [{"training.device": "cpu", "model.backbone": "vgg16", "training.seed": 1}])
    ['vgg16-seed-1']
    """
    names = [_name(axes, values) for values in combinations]
    times = Counter(names)
    return [
        name if times[name] == 1 else f"{name[: NAME_LENGTH - 7]}-{hash_text(repr(values))[:6]}"
        for name, values in zip(names, combinations, strict=True)
    ]


def _name(axes: Mapping[str, Sequence[Any]], values: Values) -> str:
    words = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            words += [_word(name, one) for name, one in value.items() if any(_differs(other, name, one) for other in axes[key])]
        elif len(axes[key]) > 1:
            words.append(_word(key.rsplit(".", 1)[-1], value))
    name = "-".join(filter(None, words)) or "run"
    if len(name) > NAME_LENGTH:
        name = f"{name[: NAME_LENGTH - 7].rstrip('-.')}-{hash_text(repr(values))[:6]}"
    return f"run-{name}" if name.split(".")[0] in RESERVED else name


def _differs(table: Any, name: str, value: Any) -> bool:
    return not isinstance(table, Mapping) or table.get(name) != value


def _word(key: str, value: Any) -> str:
    name = _slug(key).replace("_", "-")
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    if isinstance(value, list):
        return f"{name}-{'x'.join(_slug(str(item)) for item in value)}"
    if isinstance(value, str):
        word = _slug(PurePosixPath(value.replace("\\", "/")).name if re.search(r"[/\\]", value) else value)
        return f"{name}-{word}" if word in UNCLEAR or not word[:1].isalpha() else word
    return f"{name}-{_slug(f'{value:g}' if isinstance(value, float) else str(value))}"


def _slug(text: str) -> str:
    """Lower-case letters, digits, `_`, `.` and `-` only, none of the last two at an end."""
    return re.sub(r"[^a-z0-9_.]+", "-", text.lower()).strip("-.")
