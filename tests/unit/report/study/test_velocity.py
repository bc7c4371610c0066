"""The page of a velocity study, from files in the true format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coverslip.errors import RunFolderError
from coverslip.report.study import write_study_report
from coverslip.report.study.velocity import page, why
from unit.report.test_page import Page as Parsed

WEIGHTS = {"large_net": 62_355_112, "small_net": 189_458}


def make_rows(*, failed: int = 0, restless: bool = False) -> pd.DataFrame:
    """Two models, four strategies, three batch sizes; the last rows may be failures."""
    rows: list[dict[str, Any]] = []
    for model, weights in WEIGHTS.items():
        for strategy, waiting in (("disk", 0.2), ("memory", 0.1), ("none", 6.0), ("features", 0.001)):
            for size in (8, 32, 128):
                computing = (0.002 if strategy == "features" else weights / 4e6 if weights > 1e6 else 3.0) * size
                step = computing + waiting * size
                rows.append(
                    {
                        "model": model, "weights": weights, "multiply_adds": 7 * weights, "strategy": strategy, "batch_size": size,
                        "images_per_second": 1000 * size / step, "waiting_share": waiting * size / step, "step_milliseconds": step,
                        "step_low": step * 0.9, "step_high": step * (1.6 if restless else 1.05), "steps": 20,
                        "peak_memory_megabytes": 600 + 12 * size + weights / 5e4, "idle_memory_megabytes": 540, "peak_gpu_megabytes": None,
                        "latency_milliseconds": 12.0, "latency_p95_milliseconds": 15.0, "batch_latency_milliseconds": 3.0 * size,
                        "batch_latency_p95_milliseconds": 3.5 * size, "status": "ok", "error": "",
                    }
                )  # fmt: skip
    numbers = [name for name in rows[0] if name not in ("model", "strategy", "batch_size", "status", "error")]
    for row in rows[len(rows) - failed :]:
        row.update(dict.fromkeys(numbers) | {"status": "too large", "error": "needs about 12.0 GB"})
    return pd.DataFrame(rows)


def make_study(folder: Path, rows: pd.DataFrame) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text('kind = "velocity"\ncommand = "coverslip velocity gel"\n')
    rows.to_csv(folder / "results.csv", index=False)
    data = {"images": 920, "training": 650, "measured": 100, "image_bytes": 50_176, "free_bytes": 12_500_000_000}
    environment = {
        "device": "cpu",
        "precision": "bf16",
        "data": data,
        "input": [1, 224, 224],
        "machine": {"cores": 2},
        "versions": {"torch": "2"},
    }
    choices = [
        {
            "model": model, "batch_size": 32, "strategy": "disk", "images_per_second": 64.0, "waiting_share": 0.01,
            "peak_memory_megabytes": 2100.0, "reason": "",
        }
        for model in WEIGHTS
    ]  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "verdict.json").write_text(json.dumps({"headline": "Take batches of 32 from the pixel cache on disk.", "choices": choices}))
    return folder


def test_the_page_is_whole_and_well_formed(tmp_path: Path) -> None:
    text = write_study_report(make_study(tmp_path / "gel", make_rows())).read_text(encoding="utf-8")
    parsed = Parsed(text)
    assert not parsed.problems
    assert not parsed.open
    assert {"speed", "where-the-time-goes", "memory", "latency", "all-measurements", "reproduce"} <= set(parsed.ids)
    assert text.count("<svg") == 4
    assert text.count("<tr>") == 1 + 2 + 1 + 24  # two heads, a row a model, a row a measurement
    for words in (
        "Take batches of 32",
        "batches of 32, pixels on disk",
        "62.4\u00a0million",
        "A batch of 128 holds some of the 100 images twice",
    ):
        assert words in text, words
    assert 'class="warning' not in text


def test_what_could_not_be_measured_is_told_and_drawn_around(tmp_path: Path) -> None:
    text = write_study_report(make_study(tmp_path / "gel", make_rows(failed=4, restless=True))).read_text(encoding="utf-8")
    assert "4 measurements of 24 could not be made" in text
    assert "too large: needs about 12.0 GB" in text
    assert "not measured" in text
    assert "something else was running" in text
    nothing = write_study_report(make_study(tmp_path / "none", make_rows(failed=24))).read_text(encoding="utf-8")
    assert nothing.count("<svg") == 0
    assert not Parsed(nothing).problems


@pytest.mark.parametrize("column", ["latency_milliseconds", "peak_memory_megabytes"])
def test_one_model_one_strategy_one_batch_size(tmp_path: Path, column: str) -> None:
    rows = make_rows().head(1)
    text = write_study_report(make_study(tmp_path / "gel", rows)).read_text(encoding="utf-8")
    assert column in rows
    assert text.count("<svg") == 4
    assert not Parsed(text).problems


def test_a_study_that_was_stopped_says_so(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "gel", make_rows().head(5))
    (folder / "verdict.json").unlink()
    assert page(folder).headline == "This study was stopped before it was finished."
    (folder / "results.csv").unlink()
    with pytest.raises(RunFolderError, match="holds no measurement yet"):
        page(folder)


def test_what_caching_changes_in_words() -> None:
    rows = make_rows()
    (large, small) = why(rows[rows["batch_size"] == 32])
    assert large == (
        "large_net",
        "32",
        "computing; less than 1 % waiting, pixels in memory",
        "1.4 times slower",
        "5,230 times as many images",
    )
    assert small == ("small_net", "32", "computing; 3 % waiting, pixels in memory", "2.9 times slower", "1,033 times as many images")
    slow_disk = rows[(rows["strategy"] == "none") & (rows["batch_size"] == 32) & (rows["model"] == "small_net")]
    assert why(slow_disk) == [("small_net", "32", "data; 67 % waiting, decoded each time", "hardly slower", "")]
    assert why(rows[rows["strategy"] == "features"]) == []


def test_noise_in_computing_is_no_merit_of_a_strategy() -> None:
    rows = make_rows()
    rows = rows[(rows["batch_size"] == 32) & (rows["model"] == "large_net")].reset_index(drop=True)
    waits = rows["step_milliseconds"] * rows["waiting_share"]
    lucky = rows["strategy"] == "disk"
    rows.loc[lucky, "step_milliseconds"] = (rows["step_milliseconds"] - waits) / 3 + waits
    rows["waiting_share"] = waits / rows["step_milliseconds"]
    rows["images_per_second"] = 1000 * 32 / rows["step_milliseconds"]
    assert why(rows)[0][3] == "1.4 times slower"
