"""What a run wrote, read back: every file optional, none trusted."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip.errors import MissingInputError, RunFolderError

SIGNS = ("metrics.json", "predictions.csv", "audit.json", "history.csv", "environment.json")
"""A folder with one of these is a run."""

TEXT_COLUMNS = (
    "image", "label", "predicted", "uncertain", "group", "part", "suggestion", "phase",
    "model_id", "hardware_type", "pretrained_model", "classifier_head", "opt_alg", "verdict", "judged_on", "status", "error", "conf_mat",
)  # fmt: skip


@dataclass(frozen=True)
class RunFiles:
    """The content of a run folder; a missing file is an empty mapping, an empty list, or None.

    Attributes:
        folder: the run folder.
        config: `config.toml` as nested mappings; `config_text` as it stands.
        environment: `environment.json`.
        split_facts: `method`, `seed` and `notes` of the split, from the environment or the bundle's provenance.
        audit: `audit.json`.
        metrics: `metrics.json`.
        timing: `timing.json`.
        summary: `summary.json`.
        weights: `weights.json`.
        pictures: `pictures/index.json`.
        split: `split.csv`.
        history: `history.csv`.
        predictions: `predictions.csv`.
        label_errors: `label_errors.csv`.
        learning_curve: `learning_curve.csv`.
    """

    folder: Path
    config: dict[str, Any]
    config_text: str
    environment: dict[str, Any]
    split_facts: dict[str, Any]
    audit: dict[str, Any]
    metrics: dict[str, Any]
    timing: dict[str, Any]
    summary: dict[str, Any]
    weights: dict[str, Any]
    pictures: list[dict[str, Any]]
    split: pd.DataFrame | None
    history: pd.DataFrame | None
    predictions: pd.DataFrame | None
    label_errors: pd.DataFrame | None
    learning_curve: pd.DataFrame | None

    def pictures_of(self, kind: str) -> list[dict[str, Any]]:
        """The entries of the picture index of one kind, in their order."""
        return [entry for entry in self.pictures if entry.get("kind") == kind]


def read_run(folder: Path) -> RunFiles:
    """Read a run folder.

    Raises:
        MissingInputError: the folder is not a run.
        RunFolderError: one of its files is broken.
    """
    if not any((folder / sign).is_file() for sign in SIGNS):
        found = "there is no such folder" if not folder.is_dir() else f"it holds none of {', '.join(SIGNS)}"
        raise MissingInputError(
            f"{folder} is not a run folder: {found}. Give the folder that `coverslip train` or `coverslip evaluate` wrote"
        )
    environment = read_mapping(folder / "environment.json")
    index = read_json(folder / "pictures" / "index.json")
    return RunFiles(
        folder=folder,
        config=read_toml(folder / "config.toml"),
        config_text=read_text(folder / "config.toml"),
        environment=environment,
        split_facts=within(environment, "split") or within(read_mapping(folder / "bundle" / "model.json"), "provenance", "split"),
        audit=read_mapping(folder / "audit.json"),
        metrics=read_mapping(folder / "metrics.json"),
        timing=read_mapping(folder / "timing.json"),
        summary=read_mapping(folder / "summary.json"),
        weights=read_mapping(folder / "weights.json"),
        pictures=[entry for entry in index if isinstance(entry, dict)] if isinstance(index, list) else [],
        split=read_table(folder / "split.csv"),
        history=read_table(folder / "history.csv"),
        predictions=read_table(folder / "predictions.csv"),
        label_errors=read_table(folder / "label_errors.csv"),
        learning_curve=read_table(folder / "learning_curve.csv"),
    )


def within(mapping: object, *keys: str) -> dict[str, Any]:
    """The mapping under some keys; empty when one of them is missing or is no mapping.

    >>> within({"a": {"b": {"c": 1}}}, "a", "b"), within({"a": 1}, "a", "b")
    ({'c': 1}, {})
    """
    for key in keys:
        mapping = mapping.get(key) if isinstance(mapping, Mapping) else None
    return dict(mapping) if isinstance(mapping, Mapping) else {}


def items(mapping: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key; empty when there is none."""
    value = mapping.get(key)
    return list(value) if isinstance(value, (list, tuple)) else []


def read_text(path: Path) -> str:
    """A text file; empty when it is missing.

    Raises:
        RunFolderError: the file is damaged.
    """
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _broken(path, "is not UTF-8 text", error) from None


def read_json(path: Path) -> Any:
    """A JSON file; None when it is missing.

    Raises:
        RunFolderError: the file is damaged.
    """
    text = read_text(path)
    try:
        return json.loads(text) if text else None
    except json.JSONDecodeError as error:
        raise _broken(path, "is not JSON", error) from None


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping; empty when it is missing or holds something else."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file; empty when it is missing.

    Raises:
        RunFolderError: the file is damaged.
    """
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _broken(path, "is not TOML", error) from None


def read_table(path: Path) -> pd.DataFrame | None:
    """A CSV file, None when it is missing or empty; text columns stay text (a class may be called `NA` or `1`), empty cells are missing.

    Raises:
        RunFolderError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        names = list(pd.read_csv(path, nrows=0).columns)
        kinds = {name: str for name in names if name in TEXT_COLUMNS}
        table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=[""])
    except pd.errors.EmptyDataError:
        return None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise _broken(path, "is not a CSV table", error) from None
    return table if len(table) else None


def _broken(path: Path, what: str, error: Exception) -> RunFolderError:
    return RunFolderError(f"{path} {what} ({error}); it was damaged after it was written: restore the file, or repeat the run")
