"""Who works on images: threads of this process, and other processes where there is much to do.

A thread computes alone. Torch would split each small step of every one of them among all cores, where the threads wait for each other:
resizing a 256x256 image took three times as long.

Python runs one thread at a time, except inside of the libraries that decode and resize: however many there are, threads keep one or two
cores busy with reading images. Processes keep all cores busy, but take a second or two to start.

Both keep the memory of one image for the next. Left to itself, the C library of Linux gives it back to the system after each, and a third
of the time of reading goes into getting it again, page by page.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from coverslip.runtime import cpu_count, free_memory

IN_FLIGHT = 4
"""Items that are under way at a time, for each worker."""
TRIED_SECONDS = 0.3
"""How long threads work before the time that the rest will take is estimated."""
COMPUTING = 0.8
"""What a process computes for an image, as a share of what threads do, which wait for each other; of PNG files it is two thirds."""
START_SECONDS = 1.5
"""What it takes to start a process that reads images, as measured beside threads at work."""
PROCESS_BYTES = 250_000_000
"""Memory of such a process, about; no more are started than there is free memory for."""
KEPT_BYTES = 33_000_000
"""Memory that is kept for the next image, at most, in one piece: the largest that the GNU C library can be made to keep."""
IDLE_SECONDS = 20
"""Processes that have had nothing to do for so long end."""
THREADS_OF_USE = 4
"""Threads of a crew, at most: Python runs one at a time, and those that wait for it keep the one that hands out work waiting, too."""
MEANWHILE = 2
"""Of them, how many work on while processes start."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What a library that computes reads its number of threads from."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Result_co = TypeVar("_Result_co", covariant=True)
_LOG = logging.getLogger("coverslip")


def image_threads(count: int, name: str = "coverslip-images") -> ThreadPoolExecutor:
    """A pool of threads for work on images.

    Args:
        count: how many threads.
        name: what they are called, for whoever looks at the process.
    """
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=_compute_alone)


def _compute_alone() -> None:
    """One OpenMP thread for what this thread asks for. The number is each thread's own, and torch sets it when it is first asked there."""
    if "torch" in sys.modules:  # an audit needs none
        sys.modules["torch"].get_num_threads()
    threadpool_limits(1, user_api="openmp")
    _keep_memory()


def _keep_memory() -> None:
    """Freed memory stays with this process: the GNU C library does so with pieces up to the size of the largest that it saw freed."""
    np.empty(KEPT_BYTES, dtype=np.uint8)


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int | None = None, ahead: int | None = None
) -> Iterator[_Result]:
    """Results of a function on each item, in their order, from a pool of threads with a bounded number in flight.

    Args:
        function: of an item alone.
        items: in the order of the results.
        workers: threads; as many as there are cores when not given.
        ahead: items in flight, at most.
    """
    workers = workers or cpu_count()
    pool = image_threads(workers)
    try:
        yield from _with_some_ahead(lambda item: pool.submit(function, item), items, ahead or IN_FLIGHT * workers)
    finally:
        pool.shutdown(cancel_futures=True)


class _Coming(Protocol[_Result_co]):
    """A result that will be there."""

    def result(self) -> _Result_co:
        """Wait for it."""
        ...

    def cancel(self) -> object:
        """It is not wanted any more."""
        ...


def _with_some_ahead(submit: Callable[[_Item], _Coming[_Result]], items: Iterable[_Item], ahead: int) -> Iterator[_Result]:
    waiting: deque[_Coming[_Result]] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for coming in waiting:
            coming.cancel()


class Crew(Generic[_Item, _Result]):
    """Threads that work on items, and processes that take over once it is seen that there is so much to do that it is worth starting them.

    A few threads go on while processes start, and what waited for a thread goes to them when they have. A process that is ended from
    outside costs its items' time. `in_order`, or a context around `submit`, ends the threads.

    Args:
        function: of an item alone; it and its results are picklable, and what it leaves behind is in files.
        count: items, all picklable, that will come, or what they weigh together.
        workers: processes, at most, and threads, at most 4; as many as there are cores when not given.
    """

    def __init__(self, function: Callable[[_Item], _Result], count: int, workers: int | None = None) -> None:
        self.workers = workers or cpu_count()
        self._function = function
        self._count, self._done, self._trying = count, 0, True
        self._few = min(self.workers, THREADS_OF_USE)
        self._threads = image_threads(self._few)
        self._processes: _Processes | None = None
        self._one_by_one, self._meanwhile = threading.Lock(), threading.Semaphore(MEANWHILE)
        self._began, self._began_to_compute = time.perf_counter(), time.process_time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def submit(self, item: _Item, weight: int = 1) -> Work[_Item, _Result]:
        """Have an item done; a heavy one is as long as several."""
        with self._one_by_one:
            seconds = time.perf_counter() - self._began
            if self._trying and self._done >= self._few and seconds >= TRIED_SECONDS:
                busy = (time.process_time() - self._began_to_compute) / seconds
                self._processes = _Processes.worth(self._function, seconds * (self._count / self._done - 1), busy, self.workers)
                self._trying = False
            if self._processes and self._processes.ready:
                with suppress(BrokenExecutor):
                    return Work(item, self._processes.executor.submit(self._function, item), self._again)
        future = self._threads.submit(self._by_thread, item)
        future.add_done_callback(lambda _: self._note(weight))
        return Work(item, future, self._again)

    def _by_thread(self, item: _Item) -> _Result:
        processes = self._processes
        if processes is None:
            return self._function(item)
        with self._meanwhile:
            if not processes.ready:
                return self._function(item)
        return processes.executor.submit(self._function, item).result()

    def in_order(self, items: Iterable[_Item], ahead: int | None = None) -> Iterator[_Result]:
        """The results of items, in their order, with a bounded number in flight; then the threads end.

        Time in which nobody asks for a result does not count: where the network is slower than what reads for it, threads will do.
        """
        with self:
            for result in _with_some_ahead(self.submit, items, ahead or IN_FLIGHT * self.workers):
                asked = time.perf_counter()
                yield result
                self._began += time.perf_counter() - asked

    def _note(self, weight: int) -> None:
        with self._one_by_one:
            self._done += weight

    def _again(self, item: _Item) -> _Result:
        with self._one_by_one:
            if self._processes:
                _LOG.warning("a process that read images was ended; threads read on")
                self._processes = None
        return self._threads.submit(self._function, item).result()


@dataclass(frozen=True)
class Work(Generic[_Item, _Result]):
    """An item that is being worked on."""

    item: _Item
    future: Future[_Result]
    again: Callable[[_Item], _Result]

    def cancel(self) -> None:
        """It is not wanted any more."""
        self.future.cancel()

    def result(self) -> _Result:
        """What came out, once it is there."""
        try:
            return self.future.result()
        except BrokenExecutor:
            return self.again(self.item)


_ASKING = ThreadPoolExecutor(1, thread_name_prefix="coverslip-processes")
"""loky keeps processes for the thread that asked for them, and ends them with it: this one asks for all."""


class _Processes:
    """Processes that are starting, or have started.

    Args:
        function: what they will be asked for: with it they import what it needs.
        count: how many.
    """

    def __init__(self, function: Callable[[Any], Any], count: int) -> None:
        import loky

        warnings.filterwarnings("ignore", message="A worker stopped while some jobs", category=UserWarning)  # idle ones: others start
        self.executor: Executor = _ASKING.submit(
            loky.get_reusable_executor, max_workers=count, timeout=IDLE_SECONDS, initializer=_end_with, initargs=(os.getpid(),),
            env=dict.fromkeys(THREADS, "1"),
        ).result()  # fmt: skip
        self._starting = [self.executor.submit(_start, function) for _ in range(count)]

    @property
    def ready(self) -> bool:
        """Whether all have started."""
        self._starting = [future for future in self._starting if not future.done()]
        return not self._starting

    @staticmethod
    def worth(function: Callable[[Any], Any], left: float, busy: float, most: int) -> _Processes | None:
        """As many as there are cores and memory for; None where threads will be done as soon, or where no process can be started.

        Args:
            function: what they will be asked for.
            left: seconds that threads would take.
            busy: cores that they keep busy.
            most: processes, at most.
        """
        count = min(most, cpu_count(), free_memory() // PROCESS_BYTES)
        if not count or multiprocessing.current_process().daemon or left * (1 - COMPUTING * busy / count) < START_SECONDS:
            return None
        with suppress(OSError):  # no semaphores, or too many files or processes: a system may refuse any of them
            return _Processes(function, count)
        return None


def _end_with(parent: int) -> None:
    """Let this process end when another one does, also when that had no time to say so."""

    def watch() -> None:
        with suppress(psutil.Error):
            other = psutil.Process(parent)
            while other.is_running() and other.status() != psutil.STATUS_ZOMBIE:
                time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start(function: Callable[[Any], Any]) -> None:
    """What a process is told first: by now it has imported what the function needs."""
    _keep_memory()
