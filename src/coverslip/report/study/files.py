"""What a study wrote, read back: every file optional, none trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip.errors import RunFolderError
from coverslip.report.files import SIGNS, RunFiles, read_json, read_mapping, read_run, read_table, read_text, read_toml

STUDY = "study.toml"


@dataclass(frozen=True)
class StudyFiles:
    """The content of a study folder.

    Attributes:
        folder: the study folder.
        study: `study.toml` as nested mappings; `study_text` as it stands.
        results: `results.csv`; None when it is missing or empty.
    """

    folder: Path
    study: dict[str, Any]
    study_text: str
    results: pd.DataFrame | None

    def json(self, name: str) -> Any:
        """The content of a JSON file of the folder; None when it is missing."""
        return read_json(self.folder / name)

    def mapping(self, name: str) -> dict[str, Any]:
        """The content of a JSON file that holds a mapping; empty when it is missing."""
        return read_mapping(self.folder / name)

    def table(self, name: str) -> pd.DataFrame | None:
        """A CSV file of the folder; None when it is missing or empty."""
        return read_table(self.folder / name)

    def run(self, name: object) -> RunFiles | None:
        """The files of a run of the study; None where nothing was written."""
        folder = self.folder / "runs" / str(name)
        return read_run(folder) if any((folder / sign).is_file() for sign in SIGNS) else None


def read_study(folder: Path) -> StudyFiles:
    """Read a study folder.

    Raises:
        RunFolderError: the folder is not a study, or one of its files is broken.
    """
    if not (folder / STUDY).is_file():
        found = "there is no such folder" if not folder.is_dir() else f"it holds no {STUDY}"
        raise RunFolderError(f"{folder} is not a study folder: {found}. Give the folder that compare, search or velocity wrote")
    return StudyFiles(folder, read_toml(folder / STUDY), read_text(folder / STUDY), read_table(folder / "results.csv"))


def untrained(run: RunFiles | None) -> bool:
    """Whether the model of a run is that from before the first step of all layers, for no later one did better on the validation part."""
    history = None if run is None else run.history
    if history is None or not {"phase", "step", "kept"} <= set(history):
        return False
    final = history[history["fold"].isna()] if "fold" in history else history
    kept = final[(final["phase"] == "all") & (final["kept"].astype(str) == "True")]
    return bool(len(kept)) and bool((kept["step"] == 0).all())
