"""The real command line on tiny simulated data."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coverslip.cli import main
from coverslip.simulate import simulate
from object_server import Store
from servers import Server, coverslip_server


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


Cli = Callable[..., Outcome]

TINY = (
    "-s", "model.backbone=small_30k", "-s", "model.weights=none", "-s", "training.regime=scratch", "-s", "pixels.height=32",
    "-s", "pixels.width=32", "-s", "training.epochs=2", "-s", "training.batch_size=8", "-s", "intervals.resamples=100",
)  # fmt: skip


SMALL = (
    "--recipe", "hpa-28", "-s", "data.classes=classes.txt", "-s", "split.group=Field", "-s", "model.backbone=small_30k",
    "-s", "model.weights=none", "-s", "pixels.height=64", "-s", "pixels.width=64", "-s", "training.epochs=2",
    "-s", "training.batch_size=8", "-s", "intervals.resamples=100",
)  # fmt: skip


def nothing_left(run: Path) -> bool:
    """No run, or one with nothing but a log that says why it stopped."""
    return not run.exists() or {path.name for path in run.iterdir()} <= {"run.log"}


def images_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["coverslip", *map(str, arguments)])
        status, environment = 0, dict(os.environ)
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        finally:  # what a command tells its process stays in it
            os.environ.clear()
            os.environ.update(environment)
        said = capfd.readouterr()
        return Outcome(status, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def gels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("gels", tmp_path_factory.mktemp("data") / "gels", images=40, seed=1)


@pytest.fixture(scope="session")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("charts", tmp_path_factory.mktemp("data") / "charts", images=60, seed=1)


@pytest.fixture(scope="session")
def gel_run(gels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tests only read."""
    from coverslip.experiment import run
    from coverslip.report import write_report
    from coverslip.start import begin

    folder = tmp_path_factory.mktemp("runs") / "gels"
    start = begin(
        str(gels),
        recipe="quick",
        settings=[*[text for text in TINY if text != "-s"], "augment.rotation_degrees=5"],
        out=folder,
        resume=False,
    )
    run(start.config, start.folder, recipe="quick")
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 simulated fields of cells, 64 x 64, four 16-bit PNG files each; the folder."""
    return simulate("cells", tmp_path_factory.mktemp("data") / "cells", images=24, seed=2, side=64)


@pytest.fixture(scope="session")
def cell_run(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tests only read."""
    from coverslip.experiment import run
    from coverslip.report import write_report
    from coverslip.start import begin

    folder = tmp_path_factory.mktemp("runs") / "cells"
    asked = [text for text in SMALL[2:] if text != "-s"]
    start = begin(str(cells / "train.csv"), recipe="hpa-28", settings=asked, out=folder, resume=False)
    run(start.config, start.folder, recipe="hpa-28")
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def server(gel_run: Path, cell_run: Path) -> Iterator[Server]:
    """A server of two models, without a token, that is asked by several modules."""
    with coverslip_server(f"gel={gel_run}", f"cells={cell_run}") as running:
        yield running


def kill_at(path: str, times: int, arguments: list[str], store: Store, cache: Path) -> None:
    """Run a command until it asks for an object so many times, which the server then does not give, and kill it."""
    environment = {**os.environ, "COVERSLIP_CACHE": str(cache)}
    store.requests.clear()
    store.counts.clear()
    store.plan = lambda method, asked, before: "hang" if asked.endswith(path) and before == times - 1 else ""
    process = subprocess.Popen(
        [sys.executable, "-m", "coverslip", *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(1200):
        if sum(asked.endswith(path) for _, asked in store.requests) >= times or process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.poll() is None
    time.sleep(0.5)
    process.kill()
    process.wait()
    store.plan = lambda method, asked, before: ""
