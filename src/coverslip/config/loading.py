"""From TOML files and `-s key=value` overrides to a config, layer over layer, and back to TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from coverslip.config.sections import RunConfig
from coverslip.errors import ConfigError, MissingInputError, did_you_mean


def load_config(*layers: Mapping[str, Any]) -> RunConfig:
    """Build a config from nested mappings, later ones over earlier ones.

    Raises:
        ConfigError: an unknown key or a wrong value, all of them at once, with the near name.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge_layers(merged, layer)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_sentences([dict(problem) for problem in error.errors()], merged)) from None


def merge_layers(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merged key by key; what is not a mapping is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge_layers(merged[key], value) if both else value
    return merged


class TextFile(Protocol):
    """A file with text in it: a path, or a URL."""

    def is_file(self) -> bool:
        """Whether it is there."""
        ...

    def read_text(self, encoding: str) -> str:
        """Its text."""
        ...


def read_toml(path: TextFile) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        MissingInputError: no such file.
        ConfigError: the file is not TOML.
    """
    if not path.is_file():
        raise MissingInputError(f"no config file at {path}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turn `section.key=value` texts into a nested mapping. A value is read as TOML; what does not parse is a string.

    >>> parse_overrides(["training.epochs=5", "model.backbone=resnet18"])
    {'training': {'epochs': 5}, 'model': {'backbone': 'resnet18'}}

    Raises:
        ConfigError: a text without `=`.
    """
    layer: dict[str, Any] = {}
    for text in overrides:
        key, nested = parse_override(text)
        for name in reversed(key.split(".")):
            nested = {name: nested}
        layer = merge_layers(layer, nested)
    return layer


def parse_override(text: str) -> tuple[str, Any]:
    """The key and the value of one `section.key=value` text.

    Raises:
        ConfigError: a text without `=`.
    """
    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise ConfigError(f"-s {text!r}: expected KEY=VALUE, for example -s training.epochs=5")
    return key.strip(), _parse_value(value.strip())


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def dump_toml(config: RunConfig) -> str:
    """The complete config as TOML; keys that are None are left out, for TOML has no null."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def with_values(config: RunConfig, **sections: Mapping[str, Any]) -> RunConfig:
    """The config with some keys replaced: `with_values(config, training={"steps": 100})`."""
    return load_config(config.model_dump(), sections)


def schema() -> dict[str, Any]:
    """The JSON schema of the config, for editors."""
    return RunConfig.model_json_schema()


def _sentences(problems: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> list[str]:
    """One sentence per key: pydantic reports each alternative of a union on its own."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        where = _written_keys(problem["loc"], given)
        name = ".".join(where)
        if problem["type"] == "extra_forbidden":
            known = _known_keys(where[:-1])
            offer = _elsewhere(where[-1]) or did_you_mean(where[-1], known)
            found[f"{name} is not a key of the config."] = [f"{offer} Known here: {', '.join(known)}"]
            continue
        message = str(problem["msg"]).removeprefix("Value error, ")
        found.setdefault(f"{name} = {problem['input']!r}: " if where[1:] else f"{name}: ", []).append(message)
    return [head + "; or: ".join(dict.fromkeys(messages)) for head, messages in found.items()]


def _written_keys(location: Sequence[int | str], given: Any) -> list[str]:
    """The keys and indices of a location that the user wrote, without pydantic's names for the alternatives of a union."""
    where = []
    for part in location:
        if (isinstance(given, Mapping) and part in given) or (isinstance(given, list) and isinstance(part, int)):
            where.append(str(part))
            given = given[part]  # type: ignore[index]
    return where


def _elsewhere(name: str) -> str:
    """A sentence that offers the same key of another section, or the empty string."""
    named = [f"{section}.{name}" for section in RunConfig.model_fields if name in _known_keys([section])]
    return f" Did you mean {' or '.join(named)}?" if named else ""


def _known_keys(where: Sequence[str]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for name in where:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        candidates = [annotation, *get_args(annotation)]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), RunConfig)
    return list(model.model_fields)
