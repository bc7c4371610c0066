"""Each task in a process of its own: results, errors, a process that dies, and one that does not end."""

from __future__ import annotations

import os
import time

from coverslip.errors import InputError
from coverslip.study.fresh import FreshProcesses


def work(task: str) -> str:
    if task == "refuse":
        raise InputError("this is not what was asked for")
    if task == "die":
        os._exit(3)
    if task == "sleep":
        time.sleep(600)
    return f"{task} in {os.getpid()}"


def test_a_task_may_fail_die_or_hang_and_the_others_are_done() -> None:
    tasks = ["one", "refuse", "die", "two"]
    done = list(FreshProcesses(120).each(work, tasks))
    done += FreshProcesses(0.5).each(work, ["sleep"])
    assert [one.task for one in done] == [*tasks, "sleep"]
    first, last = done[0].result or "", done[3].result or ""
    assert first.startswith("one in ")
    assert last.startswith("two in ")
    processes = {first.split()[-1], last.split()[-1]}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes
    assert [one.error for one in done] == [
        "",
        "this is not what was asked for",
        "its process ended without an answer, with status 3",
        "",
        "took longer than 0.5 seconds and was stopped",
    ]
