"""Printing: messages and progress on standard error, results on standard output."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from coverslip.errors import (
    BadImagesError,
    BundleError,
    ConfigError,
    CoverslipError,
    InputError,
    LeakError,
    ShardError,
    UnreachableError,
    WeightsError,
)
from coverslip.runtime import Progress as Callback

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

WRONG_INPUT = (ConfigError, InputError, BadImagesError, LeakError, ShardError, BundleError, WeightsError, UnreachableError)
REDRAW_SECONDS = 0.1


def complain(error: CoverslipError) -> int:
    """Print an error; give the exit status: 2 for a wrong command or input, 1 for work that failed."""
    err.print("[bold red]error:[/bold red] ", end="")
    err.print(str(error), markup=False)
    return 2 if isinstance(error, WRONG_INPUT) else 1


@contextmanager
def progress_bar() -> Iterator[Callback]:
    """Bars on standard error, one a stage, with the numbers that the work reports and the time left."""
    columns = (
        TextColumn("{task.description:<12}"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=not err.is_terminal, disable=not err.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}
        drawn: dict[str, float] = {}
        reached: dict[str, int] = {}

        def report(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
            now = time.perf_counter()
            if done < total and now - drawn.get(stage, 0.0) < REDRAW_SECONDS:
                return
            drawn[stage] = now
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, numbers="")
            elif done <= reached[stage]:
                bars.reset(tasks[stage])
            reached[stage] = done
            shown = "  ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in numbers.items())
            bars.update(tasks[stage], completed=done, total=total, numbers=shown)

        yield report
