"""Feeding several workers: tasks one by one as workers become free; the task of a worker that was lost is begun again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from coverslip.study.engines import Done

TRIES = 3
"""Times that a task is begun at most: it goes on where a lost worker left it, and may be what kills its workers."""

T = TypeVar("T")
R = TypeVar("R")
H = TypeVar("H")
_LOG = logging.getLogger("coverslip")


@dataclass(frozen=True)
class Lost:
    """A worker that ended in the middle of a task, in words that go on from "a worker was lost"."""

    reason: str


class Crew(Protocol[H]):
    """Workers elsewhere. A handle stands for a task that was begun."""

    @property
    def workers(self) -> int:
        """How many tasks are done at a time."""
        ...

    def begin(self, work: Callable[[Any], Any], task: Any) -> H:
        """Give a task to a free worker."""
        ...

    def wait(self, handles: Sequence[H]) -> H:
        """Wait until one of the tasks is over; which."""
        ...

    def outcome(self, handle: H) -> Done[Any, Any] | Lost:
        """What came of a task that is over; its worker is free again, or replaced."""
        ...

    def drop(self, handle: H) -> None:
        """Stop a task that is under way, with its worker."""
        ...


def feed(crew: Crew[H], work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Done[T, R]]:
    """Do each task with a crew: `Engine.each` for workers in other processes."""
    coming, more = iter(tasks), True
    under_way: dict[H, tuple[T, int]] = {}
    try:
        while True:
            while more and len(under_way) < crew.workers:
                try:
                    task = next(coming)
                except StopIteration:
                    more = False
                else:
                    under_way[crew.begin(work, task)] = (task, 1)
            if not under_way:
                return
            handle = crew.wait(list(under_way))
            task, tries = under_way.pop(handle)
            outcome = crew.outcome(handle)
            if isinstance(outcome, Done):
                yield Done(task, outcome.result, outcome.error)
            elif tries < TRIES:
                _LOG.warning("a worker was lost (%s); its task is begun again", outcome.reason)
                under_way[crew.begin(work, task)] = (task, tries + 1)
            else:
                yield Done(task, None, f"its worker was lost {tries} times in a row, at last: {outcome.reason}")
    finally:
        for handle in under_way:
            crew.drop(handle)
