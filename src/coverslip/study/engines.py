"""Who does the work of a study: this process, or workers elsewhere; the same tasks, the same results.

An engine takes a function and tasks, and gives each task back with its result or its error as soon as it is done. A task that
fails is a result too: a study goes on. Function, tasks and results must be picklable, for they may travel to other processes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from coverslip.errors import ConfigError, CoverslipError, did_you_mean
from coverslip.runtime import WAITING, cpu_count
from coverslip.storage import URL, place

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

    @property
    def machines(self) -> int:
        """On how many machines."""
        ...

    def each(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Done[T, R]]:
        """Do each task; give it back when it is over, in any order.

        Tasks are taken one by one as workers become free, so that an iterable may stop when time is up. A worker that is lost
        in the middle costs the time of its task only, which is begun again. Closing the iterator stops what is under way in
        other processes, and takes no more.

        Args:
            work: a function that can be imported by its name.
            tasks: picklable values.
        """
        ...

    def close(self) -> None:
        """End the workers that this engine has started."""
        ...


def refuse_far_output(engine: Engine, out: str | None) -> None:
    """Refuse a URL for what workers on several machines make: they would each write to a folder of their own.

    Raises:
        ConfigError: that is what was asked for.
    """
    if engine.machines > 1 and out is not None and isinstance(place(out), URL):
        raise ConfigError(
            f"--out {out}: the workers are on {engine.machines} machines, and a study that goes to a URL is made in a folder of this one; "
            "name a folder that all of them see, and copy it to the store at the end"
        )


ENGINES = ("local", "ray")


def build_engine(name: str = "local", address: str | None = None) -> Engine:
    """The engine of a study; whoever asked for it closes it: `with contextlib.closing(build_engine(...)) as engine`.

    Args:
        name: `local` (this process, or one process a GPU where there are several) or `ray`.
        address: of an existing Ray cluster; a cluster of this machine is started when None.

    Raises:
        ConfigError: no such engine, or an address for one that has none.
        MissingExtraError: Ray is not installed.
        UnreachableError: nothing that can do the work answers at the address.
    """
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}; expected one of {', '.join(ENGINES)}.{did_you_mean(name, ENGINES)}")
    if name == "ray":
        from coverslip.study.ray_engine import RayEngine

        return RayEngine(address)
    if address is not None:
        raise ConfigError(f"the address {address} is one of a Ray cluster, and the engine is {name!r}; say --engine ray, or no --address")
    from coverslip.models.hardware import visible_gpus

    gpus = visible_gpus()
    if len(gpus) < 2:
        return LocalEngine()
    from coverslip.study.process_engine import ProcessEngine

    return ProcessEngine([{"CUDA_VISIBLE_DEVICES": gpu, **thread_variables(len(gpus))} for gpu in gpus])


def thread_variables(workers: int, cores: int | None = None) -> dict[str, str]:
    """Environment of a worker that shares a machine: its part of the cores, and how its threads wait.

    >>> thread_variables(2, cores=8)["OMP_NUM_THREADS"]
    '4'
    """
    threads = max(1, (cores or cpu_count()) // max(1, workers))
    return {"OMP_NUM_THREADS": str(threads), **{name: os.environ.get(name, value) for name, value in WAITING.items()}}


class LocalEngine:
    """Does one task after the other, in this process."""

    workers = machines = 1

    def close(self) -> None:
        """There is nothing to end."""

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
