"""`coverslip velocity` on a few simulated gels: real processes, real files, a page."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from coverslip.study.strategies import STRATEGIES

from .conftest import Cli

SMALL = ("--models", "small_30k", "--batch-sizes", "4", "--seconds", "0.1", "-s", "pixels.height=32")


def test_velocity_measures_every_combination(cli: Cli, gels: Path, tmp_path: Path) -> None:
    done = cli("velocity", gels, *SMALL, "--out", tmp_path / "study")
    assert done.status == 0, done.err
    rows = pd.read_csv(tmp_path / "study" / "results.csv")
    assert list(rows["strategy"]) == list(STRATEGIES)
    assert len(rows) == 5
    assert (rows["status"] == "ok").all()
    assert rows["waiting_share"].between(0, 1, inclusive="neither").all()
    assert (rows["images_per_second"] > 0).all()
    same = pd.read_parquet(tmp_path / "study" / "results.parquet")
    pd.testing.assert_frame_equal(same.drop(columns="error"), rows.drop(columns="error"), check_dtype=False)
    verdict = json.loads((tmp_path / "study" / "verdict.json").read_text())
    assert verdict["choices"][0]["strategy"] in STRATEGIES
    assert verdict["headline"] in done.out
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    assert verdict["headline"] in page
    assert page.count("<svg") == 4


def test_the_study_file_repeats_the_study(cli: Cli, gels: Path, tmp_path: Path) -> None:
    done = cli("velocity", gels, *SMALL, "--strategies", "disk", "--out", tmp_path / "study")
    assert done.status == 0, done.err
    study = tomllib.loads((tmp_path / "study" / "study.toml").read_text())
    assert (study["kind"], study["models"], study["strategies"], study["batch_sizes"]) == ("velocity", ["small_30k"], ["disk"], [4])
    assert (study["config"]["pixels"]["height"], study["config"]["pixels"]["width"]) == (32, 32)
    assert study["command"].startswith("coverslip velocity")
    again = cli("velocity", gels, *SMALL, "--out", tmp_path / "study")
    assert again.status == 1
    assert "holds a study already" in again.err
    (tmp_path / "study" / "report.html").unlink()
    assert cli("report", tmp_path / "study").status == 0
    assert (tmp_path / "study" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--models", "smal_30k"), "Did you mean 'small_30k'"),
        (("--models", ""), "no model"),
        (("--batch-sizes", "8,0"), "a batch size of 0"),
        (("--batch-sizes", "eight"), "expected whole numbers with commas"),
        (("--strategies", "memry"), "Did you mean 'memory'"),
        (("-s", "pixels.heigth=32"), "Did you mean 'height'"),
    ],
)
def test_a_wrong_command_is_refused(cli: Cli, gels: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = cli("velocity", gels, *arguments, "--out", tmp_path / "study")
    assert done.status == 2
    assert said in done.err
    assert not (tmp_path / "study").exists()


def test_where_nothing_can_be_measured_the_reason_is_said(cli: Cli, gels: Path, tmp_path: Path) -> None:
    asked = ("--models", "vit_tiny_patch16_224", "--batch-sizes", "2", "--strategies", "disk", "-s", "pixels.height=40")
    done = cli("velocity", gels, *asked, "--out", tmp_path / "study")
    assert done.status == 1
    assert "Nothing could be measured: vit_tiny_patch16_224" in done.out
    assert "patches of 16x16" in done.out
    assert (tmp_path / "study" / "report.html").is_file()
    missing = cli("velocity", tmp_path / "nowhere", *SMALL, "--out", tmp_path / "other")
    assert missing.status == 2
    assert "nowhere" in missing.err
    assert not (tmp_path / "other").exists()
