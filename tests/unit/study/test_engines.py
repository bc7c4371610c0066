"""What holds for the engine of this process; the contract of all engines is in tests/contract."""

from __future__ import annotations

import pytest

from coverslip.errors import InputError
from coverslip.study.engines import LocalEngine, attempt


def halve(number: int) -> int:
    if number % 2:
        raise InputError(f"{number} is odd")
    return 6 // number


def test_each_task_comes_back_with_its_result_or_its_error() -> None:
    done = list(LocalEngine().each(halve, [2, 3, 0, 6]))
    assert [one.task for one in done] == [2, 3, 0, 6]
    assert [one.result for one in done] == [3, None, None, 1]
    assert [one.error for one in done] == ["", "3 is odd", "ZeroDivisionError: integer division or modulo by zero", ""]


def test_tasks_are_taken_only_when_it_is_their_turn() -> None:
    taken = []

    def tasks():
        for number in (2, 4, 6):
            taken.append(number)
            yield number

    running = LocalEngine().each(halve, tasks())
    assert next(running).result == 3
    running.close()
    assert taken == [2]


def test_an_interrupt_is_no_failed_task() -> None:
    def interrupt(task: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(interrupt, 1)
