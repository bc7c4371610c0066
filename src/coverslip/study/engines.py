"""Who does the work of a study: this process, or workers elsewhere; the same tasks, the same results.

An engine takes a function and tasks, and gives each task back with its result or its error as soon as it is done. A task that
fails is a result too: a study goes on. Function, tasks and results must be picklable, for they may travel to other processes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from coverslip.errors import CoverslipError

T = TypeVar("T")
R = TypeVar("R")
_LOG = logging.getLogger("coverslip")


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """A task that is over.

    Attributes:
        task: what was to be done.
        result: what came out; None when it failed.
        error: why it failed, in one text; empty when it did not.
    """

    task: T
    result: R | None
    error: str = ""


class Engine(Protocol):
    """Does tasks, one or several at a time."""

    @property
    def workers(self) -> int:
        """How many tasks are done at a time."""
        ...

    def each(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Done[T, R]]:
        """Do each task; give it back when it is over, in any order.

        Tasks are taken one by one as workers become free, so that an iterable may stop when time is up. Closing the iterator
        drops what has not begun.

        Args:
            work: a function that can be imported by its name.
            tasks: picklable values.
        """
        ...


class LocalEngine:
    """Does one task after the other, in this process."""

    workers = 1

    def each(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Done[T, R]]:
        """Do each task, in order."""
        for task in tasks:
            yield attempt(work, task)


def attempt(work: Callable[[T], R], task: T) -> Done[T, R]:
    """Do a task; a failure becomes its error, whatever it is: one run that cannot be done is no reason to lose the others."""
    try:
        return Done(task, work(task))
    except CoverslipError as error:
        return Done(task, None, str(error))
    except Exception as error:  # noqa: BLE001 - see above; the traceback goes to the log
        _LOG.exception("a task of a study failed")
        return Done(task, None, f"{type(error).__name__}: {error}")
