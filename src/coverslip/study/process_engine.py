"""Tasks in processes of this machine, each with an environment of its own: one GPU each, or a share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from coverslip.runtime import environment_variables
from coverslip.study.crew import Lost, feed
from coverslip.study.engines import Done, attempt

T = TypeVar("T")
R = TypeVar("R")


class ProcessEngine:
    """Does a task in each of its processes; they start when they are needed first, and end with `close`, or with this one.

    Args:
        environments: variables of each process, set before its Python starts: torch reads which GPUs and how many threads it may
            use when it is imported. Their number is that of the processes.
    """

    machines = 1

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self._places: list[_Worker | None] = [None] * len(environments)
        self._environments = environments
        self._busy: set[_Worker] = set()

    @property
    def workers(self) -> int:
        """Number of processes."""
        return len(self._environments)

    def each(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Done[T, R]]:
        """Do each task, several at a time, in the order in which they end."""
        return feed(self, work, tasks)

    def close(self) -> None:
        """End the processes."""
        for place, worker in enumerate(self._places):
            if worker is not None:
                worker.stop()
                self._places[place] = None
        self._busy.clear()

    # A crew, whose handles are the workers that are busy

    def begin(self, work: Callable[[Any], Any], task: Any) -> _Worker:
        """Send a task to a free process; a new one where none lives."""
        place = next(place for place, worker in enumerate(self._places) if worker not in self._busy)
        worker = self._places[place]
        if worker is None or not worker.process.is_alive():
            worker = self._places[place] = _Worker(self._environments[place])
        with suppress(BrokenPipeError):  # it ended this very moment: its outcome says so
            worker.connection.send((work, task))
        self._busy.add(worker)
        return worker

    def wait(self, handles: Sequence[_Worker]) -> _Worker:
        """Wait until a process has answered or ended."""
        ready = wait([handle.connection for handle in handles])
        return next(handle for handle in handles if handle.connection in ready)

    def outcome(self, handle: _Worker) -> Done[Any, Any] | Lost:
        """The answer of a process, or how it ended."""
        self._busy.discard(handle)
        try:
            result, error = handle.connection.recv()
        except (EOFError, ConnectionResetError):
            handle.stop()
            return Lost(f"its process ended with exit code {handle.process.exitcode}")
        return Done(None, result, error)

    def drop(self, handle: _Worker) -> None:
        """End a process in the middle of its task."""
        self._busy.discard(handle)
        handle.stop()


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with environment_variables(environment):
            self.process.start()
        theirs.close()

    def stop(self) -> None:
        """Kill the process: what it was at goes on from its checkpoint when it is begun again."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection[Any, Any]) -> None:
    """The life of a process: a task, its result, the next; until the other end is closed, or its parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            work, task = connection.recv()
        except EOFError:
            return
        done = attempt(work, task)
        connection.send((done.result, done.error))


def _end_with_parent() -> None:
    """A parent that was killed cannot end its children; a child in a long task would hold its run folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
