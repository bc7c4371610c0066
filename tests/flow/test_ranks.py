"""Several processes, started by torchrun on one machine or on two, train one model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from coverslip.experiment import run
from coverslip.preparing import prepare
from coverslip.report import write_report
from coverslip.simulate import simulate
from coverslip.start import begin
from servers import free_port

from .conftest import TINY, Cli

PATIENCE = 240.0
"""Seconds after which something counts as not happening, on a machine that is busy with other things."""
SETTINGS = (
    *TINY, "-s", 'training.precision="32"', "-s", "training.epochs=3", "-s", "training.batch_size=10", "-s", "augment.mixup=0.3",
    "-s", "augment.rotation_degrees=5", "-s", "training.class_weights=balanced", "-s", "training.ema=0.9", "-s", "training.device=cpu",
)  # fmt: skip
LOSSES = ["train_loss", "validation_loss"]
SCRIPT = Path(__file__).with_name("eager_checkpoints.py")


def torchrun(
    where: Sequence[str], *arguments: object, script: Path | None = None, seconds: float = 120.0, cache: Path | None = None
) -> subprocess.Popen[str]:
    """Start `coverslip` in several processes; a step may take so many seconds."""
    what = [str(script)] if script else ["-m", "coverslip"]
    environment = os.environ | {"COVERSLIP_RANK_TIMEOUT": str(seconds), "OMP_NUM_THREADS": "1"}
    if cache is not None:
        environment["COVERSLIP_CACHE"] = str(cache)
    line = [sys.executable, "-m", "torch.distributed.run", *where, *what, *map(str, arguments)]
    return subprocess.Popen(line, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def two_machines(place: Path, *arguments: object) -> tuple[str, str]:
    """What two processes on one machine and one on another said; for torchrun they are two, and each has a cache of its own."""
    meeting = ("--nnodes", "2", "--rdzv-id", "test", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}")
    machines = [torchrun([*meeting, "--nproc-per-node", count], *arguments, cache=place / f"cache of {count}") for count in ("2", "1")]
    told = [finished(machine) for machine in machines]
    assert [status for status, _, _ in told] == [0, 0], told
    assert all(any((place / f"cache of {count}").rglob("pixels.npy")) for count in ("2", "1"))
    return "".join(out for _, out, _ in told), "".join(err for _, _, err in told)


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def curve(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "history.csv").drop(columns=["seconds", "images_per_second"])


@pytest.fixture(scope="module")
def runs(gels: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str, str]]:
    """One run of this process and one of three others on two machines, with what these said."""
    place = tmp_path_factory.mktemp("runs")
    keys = [text for text in SETTINGS if text != "-s"]
    start = begin(str(gels), recipe="quick", settings=keys, out=place / "one", resume=False)
    run(start.config, start.folder, recipe=start.recipe)
    write_report(start.folder)
    out, err = two_machines(place, "train", gels, "--recipe", "quick", *SETTINGS, "--out", place / "three")
    return {"one": (place / "one", "", ""), "three": (place / "three", out, err)}


def test_three_processes_learn_what_one_learns(runs: dict[str, tuple[Path, str, str]]) -> None:
    one, three = (curve(runs[name][0]) for name in ("one", "three"))
    assert one["step"].tolist() == three["step"].tolist() == list(range(10))
    np.testing.assert_allclose(three[LOSSES], one[LOSSES], rtol=2e-3, atol=2e-4)
    assert three["learning_rate"].tolist() == one["learning_rate"].tolist()
    first = ["train_macro_f1", "validation_accuracy", "validation_macro_f1"]
    np.testing.assert_allclose(three[first].iloc[:4], one[first].iloc[:4])
    scores = [pd.read_csv(runs[name][0] / "predictions.csv") for name in ("one", "three")]
    assert list(scores[0]["image"]) == list(scores[1]["image"])
    assert len(scores[0]) == 12
    columns = [name for name in scores[0] if name.startswith("p_")]
    np.testing.assert_allclose(scores[1][columns], scores[0][columns], atol=2e-3)


def test_only_the_first_process_writes(runs: dict[str, tuple[Path, str, str]]) -> None:
    (one, _, _), (three, out, err) = runs["one"], runs["three"]
    files = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "pictures" not in path.parts) for folder in (one, three)]
    assert files[0] == files[1]
    assert len(files[0]) > 20
    assert (three / "run.log").read_text().count("train: begins") == 1
    assert out.count("report: ") == 1
    assert err.count("multiply-adds an image") == 1


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_another_number_goes_on(runs: dict[str, tuple[Path, str, str]], gels: Path, cli: Cli) -> None:
    killed = runs["one"][0].with_name("killed")
    checkpoint = killed / "checkpoints" / "final.safetensors"
    process = torchrun(
        ["--standalone", "--nproc-per-node", "3"], "train", gels, "--recipe", "quick", *SETTINGS, "--out", killed, script=SCRIPT, seconds=30
    )
    deadline = time.monotonic() + PATIENCE
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    (last,) = [child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "2"]
    last.kill()
    status, _, err = finished(process)
    assert status != 0
    assert "rank" in err
    assert checkpoint.is_file()
    assert not (killed / "metrics.json").exists()
    done = cli("train", gels, "--out", killed, "--resume")
    assert done.status == 0, done.err
    whole, resumed = curve(runs["one"][0]), curve(killed)
    np.testing.assert_allclose(resumed[LOSSES], whole[LOSSES], rtol=2e-3, atol=2e-4)
    assert json.loads((killed / "metrics.json").read_text())["test"]["n"] == 8


def test_what_the_others_are_told_has_the_key_of_the_first_also_where_a_border_is_cut_off(tmp_path: Path) -> None:
    simulate("charts", tmp_path / "charts", images=12, seed=0)
    start = begin(str(tmp_path / "charts"), recipe="quick", settings=(), out=tmp_path / "run", resume=False)
    first = prepare(start.config)
    assert first.config.pixels.trim not in ("auto", "none")
    assert prepare(first.config).pixels.key == first.pixels.key
