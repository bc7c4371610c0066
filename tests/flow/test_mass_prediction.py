"""A large table is predicted in parts: the same numbers, each row once, and what is there is not made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from .conftest import Cli


@pytest.fixture(scope="module")
def table(gels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated gels, and an image that is none."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "broken.png").write_bytes(b"no image")
    rows = [str(path) for path in sorted(gels.rglob("*")) if path.is_file()]
    pd.DataFrame({"image": [*rows[:10], str(folder / "broken.png"), *rows[10:]]}).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def test_parts_hold_what_one_table_holds_and_missing_ones_are_made(cli: Cli, gel_run: Path, table: Path, tmp_path: Path) -> None:
    assert cli("predict", gel_run, table, "--out", tmp_path / "whole.csv").status == 0
    whole = pd.read_csv(tmp_path / "whole.csv", keep_default_na=False, na_values={"p_gel": [""], "p_not_gel": [""]})
    parts = tmp_path / "parts"
    done = cli("predict", gel_run, table, "--engine", "local", "--part-rows", 9, "--out", parts)
    assert done.status == 0, done.err
    assert "40 images predicted" in done.out
    assert "(5 of 5 parts made now)" in done.out
    assert "1 of 41 images could not be read" in done.err
    frame = pd.read_parquet(parts / "part-000001.parquet")
    assert frame["row"].tolist() == list(range(9, 18))
    found = pd.concat([pd.read_parquet(file) for file in sorted(parts.glob("part-*.parquet"))], ignore_index=True)
    assert found["row"].tolist() == list(range(41))
    assert found["image"].tolist() == whole["image"].tolist()
    assert found["predicted"].tolist() == whole["predicted"].tolist()
    assert found["error"].tolist() == whole["error"].tolist()
    np.testing.assert_allclose(found[["p_gel", "p_not_gel"]], whole[["p_gel", "p_not_gel"]], atol=2e-3)
    assert json.loads((parts / "predictions.json").read_text()) == {"rows": 41, "unreadable": 1, "parts": 5}

    again = cli("predict", gel_run, table, "--engine", "local", "--part-rows", 9, "--out", parts)
    assert again.status == 1
    assert "go on with --resume" in again.err.replace("\n", " ")
    kept = {file.name: file.stat().st_mtime_ns for file in parts.glob("part-*.parquet")}
    (parts / "part-000002.parquet").unlink()
    resumed = cli("predict", gel_run, table, "--part-rows", 9, "--out", parts, "--resume")
    assert resumed.status == 0, resumed.err
    assert "(1 of 5 parts made now)" in resumed.out
    assert pd.read_parquet(parts / "part-000002.parquet").equals(found.iloc[18:27].reset_index(drop=True))
    new = {file.name: file.stat().st_mtime_ns for file in parts.glob("part-*.parquet")}
    assert {name for name in new if new[name] != kept[name]} == {"part-000002.parquet"}

    other = cli("predict", gel_run, table, "--part-rows", 8, "--out", parts, "--resume")
    assert other.status == 1
    assert "another plan (differs in part_rows)" in other.err.replace("\n", " ")
    (parts / "part-000003.parquet").write_bytes((parts / "part-000001.parquet").read_bytes())
    swapped = cli("predict", gel_run, table, "--part-rows", 9, "--out", parts, "--resume")
    assert swapped.status == 1
    assert "does not hold the rows 27 to 35" in swapped.err.replace("\n", " ")
    (parts / "part-000003.parquet").write_bytes(b"PAR1")
    assert "cannot be read" in cli("predict", gel_run, table, "--part-rows", 9, "--out", parts, "--resume").err


def test_what_does_not_go_with_parts_is_refused(cli: Cli, gel_run: Path, table: Path, tmp_path: Path) -> None:
    file = cli("predict", gel_run, table, "--engine", "local", "--out", tmp_path / "a.csv")
    assert file.status == 2
    assert "go to a folder" in file.err
    form = cli("predict", gel_run, table, "--engine", "local", "--format", "submission", "--out", tmp_path / "parts")
    assert form.status == 2
    assert not (tmp_path / "parts").exists()
