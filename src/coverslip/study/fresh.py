"""An engine that does each task in a fresh process: its memory is its own, and it can be stopped, or die, alone."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import TypeVar

from coverslip.study.engines import Done, attempt

T = TypeVar("T")
R = TypeVar("R")
KILLED = -9


class FreshProcesses:
    """Does one task after the other, each in a process of its own, for at most so many seconds.

    On Linux the processes are forked from one that has imported all that the work needs and done nothing else, elsewhere each
    imports for itself, which takes seconds.
    """

    workers = machines = 1

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def each(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Done[T, R]]:
        """Do each task, in order; one that takes too long, or whose process dies, is a failed one."""
        context = _context(work.__module__)
        for task in tasks:
            yield self._do(context, work, task)

    def close(self) -> None:
        """Nothing to do: every process has ended with its task."""

    def _do(self, context: ForkServerContext | SpawnContext, work: Callable[[T], R], task: T) -> Done[T, R]:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(work, task, sender), daemon=True)
        process.start()
        sender.close()
        try:
            if not receiver.poll(self.seconds):
                return Done(task, None, f"took longer than {self.seconds:g} seconds and was stopped")
            result, error = receiver.recv()
            return Done(task, result, error)
        except EOFError:
            process.join()
            return Done(task, None, _death(process.exitcode))
        finally:
            receiver.close()
            process.kill()
            process.join()
            process.close()


def _context(module: str) -> ForkServerContext | SpawnContext:
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def _answer(work: Callable[[T], R], task: T, sender: Connection) -> None:
    logging.getLogger("coverslip").addHandler(logging.NullHandler())  # the error travels with the result
    done = attempt(work, task)
    sender.send((done.result, done.error))
    sender.close()


def _death(status: int | None) -> str:
    if status == KILLED:
        return "its process was killed, as the system does when memory runs out"
    return f"its process ended without an answer, with status {status}"
