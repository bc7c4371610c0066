"""What holds for the engine of this process; the contract of all engines is in tests/contract."""

from __future__ import annotations

import pytest

from coverslip.errors import ConfigError, InputError
from coverslip.models.hardware import visible_gpus
from coverslip.study.engines import LocalEngine, attempt, build_engine
from coverslip.study.process_engine import ProcessEngine


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


def test_one_gpu_or_none_is_worked_on_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for count in (0, 1):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        assert isinstance(build_engine(), LocalEngine)


@pytest.mark.parametrize(
    ("named", "expected"), [(None, ["0", "1", "2"]), ("5, 3,GPU-1f", ["5", "3", "GPU-1f"]), ("1,2,9,7", ["1", "2", "9"])]
)
def test_several_gpus_get_a_process_each(named: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert visible_gpus() == expected
    engine = build_engine("local")
    assert isinstance(engine, ProcessEngine)
    assert engine.workers == 3


def test_an_engine_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"there is no engine 'rey'; expected one of local, ray. Did you mean 'ray'\?"):
        build_engine("rey")
    with pytest.raises(ConfigError, match="say --engine ray"):
        build_engine("local", "head:6379")
