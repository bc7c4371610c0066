"""The folder of a study: what was asked, one run folder a run, and the table of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from coverslip.config import read_toml
from coverslip.errors import RunFolderError
from coverslip.record import RUN_ENDS, claimed, csv_text
from coverslip.runtime import to_json, write_file, write_json, writing

STUDY = "study.toml"
STUDY_ENDS = (*RUN_ENDS, "best.json", "verdict.json")
"""Files of a study and its runs that say that what was written before them is whole."""
SIGNS = (STUDY, "results.csv", "config.toml", "metrics.json")
"""Files by which a study, or a run, is known to be in a folder."""


@dataclass(frozen=True)
class StudyFolder:
    """A study folder that this process alone writes to.

    Attributes:
        path: the folder.
        kind: `compare`, `search` or `velocity`.
        resume: whether a study that was stopped here goes on.
    """

    path: Path
    kind: str
    resume: bool

    @staticmethod
    @contextmanager
    def claim(path: Path, kind: str, *, resume: bool) -> Iterator[StudyFolder]:
        """Take a folder for one study; a log is kept in `study.log`.

        Raises:
            RunFolderError: another study works there, it holds one (or a run) and `resume` was not asked for, or that is of another
                kind.
            ResourceError: the folder cannot be written.
        """
        with claimed(path, "study", SIGNS, resume=resume):
            folder = StudyFolder(path, kind, resume)
            found = folder.stored().get("kind", kind)
            if found != kind:
                raise RunFolderError(f"{path} holds a study of the kind {found!r}, not {kind!r}; choose another --out")
            yield folder

    def stored(self) -> dict[str, Any]:
        """The content of study.toml; empty when nothing has begun here."""
        file = self.path / STUDY
        return read_toml(file) if file.is_file() else {}

    def write_study(self, facts: Mapping[str, Any]) -> None:
        """Write study.toml: the kind, and all that is needed to repeat the study; what is None is left out."""
        write_file(self.path / STUDY, tomli_w.dumps(_without_none({"kind": self.kind, **to_json(dict(facts))})))

    def results(self, frame: pd.DataFrame) -> None:
        """Write results.csv and results.parquet, each whole or not at all."""
        write_file(self.path / "results.csv", csv_text(frame))
        with writing(self.path / "results.parquet") as temporary:
            frame.to_parquet(temporary, index=False)

    def write(self, name: str, value: Any) -> None:
        """Write a value as a JSON file of the folder."""
        write_json(self.path / name, value)

    def run_folder(self, name: str) -> Path:
        """The folder of the run of that name."""
        return self.path / "runs" / name


def _without_none(value: Any) -> Any:
    """TOML has no null: keys that are None are left out, at any depth."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value if item is not None] if isinstance(value, list) else value
