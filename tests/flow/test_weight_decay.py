"""Weights with and without weight decay: a grid of the package, and their histograms on one page."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Cli

QUICK = ("-s", "training.steps=30", "-s", "pixels.height=32", "-s", "pixels.width=32", "-s", "intervals.resamples=100")


def test_the_page_of_the_grid_draws_the_weights_of_its_runs_together(cli: Cli, gels: Path, tmp_path: Path) -> None:
    done = cli("compare", gels, "--grid", "weight-decay", *QUICK, "--out", tmp_path / "study")
    assert done.status == 0, done.err
    deviations = []
    for name in ("weight-decay-0", "weight-decay-0.05", "weight-decay-1"):
        stored = json.loads((tmp_path / "study" / "runs" / name / "weights.json").read_text())
        assert stored["groups"][0]["name"] == "all"
        deviations.append(stored["groups"][0]["deviation"])
    assert deviations[0] > deviations[1] > deviations[2]
    assert deviations[2] < 0.98 * deviations[0]
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    assert '<section id="weights">' in page
    assert all(f">weight decay {decay}<" in page for decay in ("0", "0.05", "1"))
