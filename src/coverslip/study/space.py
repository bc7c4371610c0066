"""Where a search looks: a base config, the keys that vary and their ranges. Read from TOML, checked before any work."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from coverslip.config import RunConfig, load_config, merge_layers, read_toml
from coverslip.errors import ConfigError, MissingInputError, did_you_mean
from coverslip.models.networks import check_architecture, check_arguments
from coverslip.storage import place
from coverslip.study.dimensions import Dimension, nested, read_dimension
from coverslip.training.recipes import load_recipe

_FOLDER = resources.files("coverslip.study") / "spaces"
PARTS = ("search", "base", "space")
FIXED_SECTIONS = {
    "data": "every trial must see the same images",
    "split": "every trial must be judged on the same images",
    "decision": "it is chosen after the training",
    "intervals": "it changes no model",
    "cache": "it changes no model",
}
"""Sections that cannot vary within a search, and why."""
LENGTHS = ("epochs", "steps", "minutes")
"""Keys of `training` that say how long; the one that is stated last takes the place of the others."""
FIXED_KEYS = {f"training.{name}": "the length of a training is the search's budget" for name in (*LENGTHS, "steps_per_epoch")}

Metric = Literal["log_loss", "macro_f1"]
METRICS: dict[str, Metric] = {"log_loss": "log_loss", "macro_f1": "macro_f1"}
"""What a trial is judged by, on the validation part (or out of fold): the lower log loss, or the higher macro F1."""


@dataclass(frozen=True)
class SearchSettings:
    """How a search is made, as far as the space says it.

    Attributes:
        metric: one of `METRICS`.
        trial_share: length of a trial's training as a share of the full training of the base, in (0, 1].
        looks: how often a trial is looked at, and may be ended.
        compare_random: whether a random search with as many trials is made beside it.
    """

    metric: Metric = "log_loss"
    trial_share: float = 0.2
    looks: int = 8
    compare_random: bool = False


@dataclass(frozen=True)
class Space:
    """A base config, and the keys of it that vary.

    Attributes:
        name: of the space.
        base: config layer of all that does not vary, and of the defaults of what does.
        dimensions: what varies.
        settings: how it is searched.
    """

    name: str
    base: dict[str, Any]
    dimensions: tuple[Dimension, ...]
    settings: SearchSettings

    def config(self, values: Mapping[str, Any], *layers: Mapping[str, Any]) -> RunConfig:
        """The config at a point of the space, given as a value a key; further layers above it."""
        return load_config(self.base, point(values), *layers)

    @property
    def defaults(self) -> RunConfig:
        """The config of the base: what the search has to beat."""
        return load_config(self.base)

    def base_values(self) -> dict[str, Any]:
        """The value of the base for each key that varies; None where it states none."""
        config = self.defaults.model_dump(mode="json")
        return {dimension.key: _value_at(config, dimension.key) for dimension in self.dimensions}

    def default_values(self) -> dict[str, Any] | None:
        """The base as a point of the space; None when one of its values lies outside."""
        values = self.base_values()
        return values if all(dimension.holds(values[dimension.key]) for dimension in self.dimensions) else None

    def to_toml(self) -> dict[str, Any]:
        """What `read_space` reads back."""
        dimensions = {dimension.key: dimension.to_toml() for dimension in self.dimensions}
        return {"search": asdict(self.settings), "base": self.base, "space": dimensions}

    def check(self) -> None:
        """Meet contradictions at every end of every dimension, before any work.

        Raises:
            ConfigError: all that was found, each once.
        """
        problems: list[str] = []
        for config in self._ends():
            for check in (RunConfig.check, check_model):
                try:
                    check(config)
                except ConfigError as error:
                    problems += error.problems
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))

    def _ends(self) -> Iterator[RunConfig]:
        yield self.defaults
        for dimension in self.dimensions:
            for value in dimension.ends():
                yield self.config({dimension.key: value})


def point(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config layer of a value a dotted key."""
    merged: dict[str, Any] = {}
    for key, value in values.items():
        merged = merge_layers(merged, nested(key, value))
    return merged


def check_model(config: RunConfig) -> None:
    """Whether the network of a config exists and takes its arguments, as far as can be told without building it."""
    check_architecture(config.model.backbone)
    check_arguments(config.model.backbone, config.model.arguments)


def space_names() -> list[str]:
    """The spaces that come with the package."""
    return sorted(item.name.removesuffix(".toml") for item in _FOLDER.iterdir() if item.name.endswith(".toml"))


def load_space(name: str) -> dict[str, Any]:
    """The content of a space, by name, by file or by the URL of one.

    Raises:
        MissingInputError: neither a space nor a file.
        ConfigError: the file is not TOML.
    """
    where = place(name)
    if where.suffix == ".toml" or (isinstance(where, Path) and where.is_file()):
        return read_toml(where)
    names = space_names()
    if name not in names:
        raise MissingInputError(
            f"no space {name!r}, and no file of that name.{did_you_mean(name, names)} "
            f"Spaces: {', '.join(names)}; or give the path of a TOML file"
        )
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def read_space(name: str, content: Mapping[str, Any], data: Mapping[str, Any], overrides: Mapping[str, Any]) -> Space:
    """A space from its file, the data's own layer, and `-s` overrides.

    An override of a key that varies replaces its range when it is a table or a list, and fixes it otherwise. A table with `low`
    and `high`, and a list for a key that takes none, make a key vary. Every other override belongs to the base.

    Args:
        name: of the space.
        content: `[search]`, `[base]` (config sections, and `recipe`) and `[space]`.
        data: config layer of the data.
        overrides: nested mapping of `-s KEY=VALUE`.

    Raises:
        ConfigError: everything that is wrong, all at once, with the near names.
    """
    strange = set(content) - set(PARTS) - (set(content) if content.get("kind") == "search" else set())
    if strange or not isinstance(content.get("space"), Mapping):
        found = f"{', '.join(sorted(strange))} " if strange else ""
        raise ConfigError(f"the space {name} holds {found or 'no [space] '}where [search], [base] and [space] are expected")
    ranges = dict(_leaves(content["space"]))
    fixed: dict[str, Any] = {}
    for key, value in _leaves({section: keys for section, keys in overrides.items() if section != "search"}):
        if _varies(key, value, ranges):
            ranges[key] = value
        else:
            ranges.pop(key, None)
            fixed = merge_layers(fixed, nested(key, value))
    base = dict(content.get("base", {}))
    recipe = base.pop("recipe", None)
    layer: dict[str, Any] = {}
    for above in (load_recipe(recipe) if recipe else {}, base, data, fixed):
        layer = _one_length(layer, above)
    settings = read_settings({**content.get("search", {}), **overrides.get("search", {})})
    load_config(layer)
    space = Space(name, layer, _read_dimensions(ranges, layer), settings)
    space.check()
    return space


def read_settings(stated: Mapping[str, Any]) -> SearchSettings:
    """The settings that a `[search]` section states.

    Raises:
        ConfigError: an unknown key or a wrong value, all at once.
    """
    settings, problems = SearchSettings(), []
    expected: dict[str, tuple[Callable[[Any], bool], str]] = {
        "metric": (lambda value: value in METRICS, f"one of {', '.join(METRICS)}"),
        "trial_share": (lambda value: _is_number(value) and 0 < value <= 1, "a number above 0, up to 1"),
        "looks": (lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1, "a whole number from 1"),
        "compare_random": (lambda value: isinstance(value, bool), "true or false"),
    }
    for key, value in stated.items():
        if key not in expected:
            problems.append(f"search.{key} is not a key of a search.{did_you_mean(key, expected)} Known: {', '.join(expected)}")
        elif not expected[key][0](value):
            problems.append(f"search.{key} = {value!r}: expected {expected[key][1]}")
    if problems:
        raise ConfigError(problems)
    return replace(settings, **stated)


def _read_dimensions(ranges: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[Dimension, ...]:
    problems: list[str] = [] if ranges else ["the space is empty: nothing varies. Say under [space] which keys do, and where"]
    dimensions = []
    for key, value in ranges.items():
        section = key.split(".")[0]
        reason = FIXED_SECTIONS.get(section) or FIXED_KEYS.get(key)
        if reason:
            problems.append(f"{key} cannot vary within a search: {reason}; state it under [base], or by -s")
            continue
        try:
            dimensions.append(read_dimension(key, value, base))
        except ConfigError as error:
            problems += error.problems
    for key in ranges:
        problems += [
            f"{key} and {other} are both varied, and the first holds the second" for other in ranges if other.startswith(f"{key}.")
        ]
    if problems:
        raise ConfigError(problems)
    return tuple(dimensions)


def _varies(key: str, value: Any, ranges: Mapping[str, Any]) -> bool:
    """Whether an override says where to look, and not what to take."""
    if not value or not isinstance(value, (Mapping, list)):
        return isinstance(value, list) and key in ranges
    if isinstance(value, Mapping) or key in ranges:
        return True
    try:
        load_config(nested(key, value))
    except ConfigError:
        return True
    return False


def _leaves(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested mappings; a table with `low` or `high` is a value."""
    for name, value in mapping.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and not {"low", "high"} & set(value):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _one_length(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Layers merged; where the upper one says how long to train, what the lower one said of it is forgotten."""
    stated = isinstance(above.get("training"), Mapping) and set(LENGTHS) & set(above["training"])
    if stated and isinstance(below.get("training"), Mapping):
        kept = {key: value for key, value in below["training"].items() if key not in LENGTHS}
        below = {**below, "training": kept}
    return merge_layers(below, above)


def _value_at(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same_space(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two spaces, as `to_toml` gives them, are the same."""
    return not differences(first, second)


def differences(first: Any, second: Any, prefix: str = "") -> list[str]:
    """The dotted keys at which two nested mappings differ.

    >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4})
    ['a.c', 'd']
    """
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return [] if first == second else [prefix.removesuffix(".")]
    keys = list(dict.fromkeys([*first, *second]))
    return [found for key in keys for found in differences(first.get(key), second.get(key), f"{prefix}{key}.")]
