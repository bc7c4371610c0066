"""The folder of a study: one process at a time, files whole, what was asked read back."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from coverslip.errors import RunFolderError
from coverslip.study.folder import StudyFolder


def test_what_was_asked_and_the_results_are_read_back(tmp_path: Path) -> None:
    with StudyFolder.claim(tmp_path / "study", "compare", resume=False) as folder:
        folder.write_study({"command": "coverslip compare", "nothing": None, "axes": {"model": [{"backbone": "a", "weights": None}]}})
        frame = pd.DataFrame({"model_id": ["a", "b"], "accuracy": [0.5, None]})
        folder.results(frame)
        assert folder.run_folder("a") == tmp_path / "study" / "runs" / "a"
    with StudyFolder.claim(tmp_path / "study", "compare", resume=True) as folder:
        assert folder.stored() == {"kind": "compare", "command": "coverslip compare", "axes": {"model": [{"backbone": "a"}]}}
    for table in (pd.read_csv(tmp_path / "study" / "results.csv"), pd.read_parquet(tmp_path / "study" / "results.parquet")):
        pd.testing.assert_frame_equal(table, frame)


def test_a_folder_is_taken_once(tmp_path: Path) -> None:
    with (
        StudyFolder.claim(tmp_path, "compare", resume=False) as folder,
        pytest.raises(RunFolderError, match="another study is at work"),
        StudyFolder.claim(tmp_path, "compare", resume=False),
    ):
        pass
    with StudyFolder.claim(tmp_path, "compare", resume=False) as folder:
        folder.write_study({})
    with pytest.raises(RunFolderError, match=r"holds a study already.*--resume"), StudyFolder.claim(tmp_path, "compare", resume=False):
        pass
    with pytest.raises(RunFolderError, match="of the kind 'compare', not 'search'"), StudyFolder.claim(tmp_path, "search", resume=True):
        pass


def test_a_run_folder_is_no_place_for_a_study(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(RunFolderError, match="already"), StudyFolder.claim(tmp_path, "compare", resume=False):
        pass
