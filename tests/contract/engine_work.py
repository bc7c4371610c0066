"""What the engines of the contract are given to do: functions that other processes can import."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip.errors import InputError

if TYPE_CHECKING:
    from coverslip.mass_prediction import Part
    from coverslip.study.jobs import Job, JobResult


@dataclass(frozen=True)
class Marked:
    """A task that leaves its process number in a folder, one file a try."""

    name: str
    folder: Path
    waits: bool = False
    after: str = ""

    def mark(self) -> int:
        """Which try this is, from 1."""
        tries = len(self.pids()) + 1
        part = self.folder / f"{self.name}-{tries}.part"
        part.write_text(str(os.getpid()))
        part.rename(self.folder / f"{self.name}-{tries}.pid")
        return tries

    def pids(self) -> list[int]:
        """The process of each try so far."""
        return [int(file.read_text()) for file in sorted(self.folder.glob(f"{self.name}-*.pid"))]


def halve(number: int) -> int:
    """Half of an even number."""
    if number % 2:
        raise InputError(f"{number} is odd")
    return 6 // number


def whoami(_: int) -> tuple[int, str, str]:
    """Process, threads, folder."""
    time.sleep(0.2)
    return os.getpid(), os.environ.get("OMP_NUM_THREADS", ""), str(Path.cwd())


def own_variable(name: str) -> str:
    """A variable of the process that works at this."""
    time.sleep(0.2)
    return os.environ[name]


def survive(task: Marked) -> str:
    """The first try of a task that waits goes on until its process is killed; one that comes after another begins when that has begun."""
    while task.after and not (task.folder / f"{task.after}-1.pid").exists():
        time.sleep(0.01)
    if task.mark() == 1 and task.waits:
        time.sleep(60)
    return task.name.upper()


def die(task: Marked) -> None:
    """Kill the process that works at this."""
    task.mark()
    os._exit(3)


@dataclass(frozen=True)
class MarkedJob:
    """A run, and where its process leaves its number."""

    job: Job
    mark: Marked


def perform_marked(task: MarkedJob) -> JobResult:
    """Make a run; torch is imported by those only who do."""
    from coverslip.study.jobs import perform

    task.mark.mark()
    return perform(task.job)


def predict_marked(part: Part) -> None:
    """Make a part of a large prediction; the first try of the second part waits to be killed."""
    from coverslip.mass_prediction import predict_part

    mark = Marked(part.file.stem, part.file.parents[1])
    if mark.mark() == 1 and part.file.stem == "part-000001":
        time.sleep(60)
    predict_part(part)
