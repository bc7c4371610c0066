"""The processes that train one model together: who this one is, what part of the work it does, and what they tell each other.

Started by torchrun (or `fabric run`), the first process lives through the whole story of a run and alone writes; the others are told
what to fit and to score, and hold the same weights after every step. A process that was started alone is the first of one, and none of
this costs it anything.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from coverslip.errors import ConfigError, CoverslipError, LostProcessError
from coverslip.structures import FloatArray
from coverslip.training.batch_statistics import JointBatchNorm
from coverslip.training.line import LOST, Line

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Request:
    """What the first process asks of the others: a verb, and what it is to be done with."""

    verb: str
    details: dict[str, Any]


@dataclass
class Ranks:
    """This process among those that train one model.

    Attributes:
        rank: its number, from 0.
        size: how many there are, on all machines.
        local_rank, local_size: the same on this machine.
        line: how it speaks with the others; None where there are none.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    line: Line | None = field(default=None, repr=False)

    @property
    def first(self) -> bool:
        """Whether this process tells the others what to do, and writes."""
        return self.rank == 0

    # Sharing out

    def part(self, n: int) -> slice:
        """Which of n items in a row are this process's: as many as any other's, or one less or more."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def weight(self, own: int, whole: int) -> float:
        """By what a mean over `own` of `whole` items is to be multiplied, so that the mean over the processes is that of all items."""
        return self.size * own / whole

    def seed(self) -> tuple[int, ...]:
        """What a derived seed takes up so that processes draw differently; nothing for the first, which draws as if it were alone."""
        return () if self.first else (self.rank,)

    def dealt(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """The result of each item, in order, of which this process makes every `size`-th."""
        if self.line is None:
            return [work(item) for item in items]
        found: list[R] = []
        for start in range(0, len(items), self.size):
            mine = [work(item) for item in items[start + self.rank : start + self.rank + 1]]
            found += [result for results in self.line.gather(mine) for result in results]
        return found

    # Putting together

    def gathered(self, rows: FloatArray) -> FloatArray:
        """The rows of all processes, one after the other: what `part` has taken apart."""
        return rows if self.line is None else np.concatenate(self.line.gather(rows))

    def summed(self, numbers: FloatArray) -> FloatArray:
        """The sum over the processes of float64 numbers of one shape."""
        return numbers if self.line is None else self.line.total(numbers)

    def slowest(self, seconds: float) -> float:
        """The most seconds that one of the processes took."""
        return seconds if self.line is None else max(self.line.gather(seconds))

    def same(self, make: Callable[[], T]) -> T:
        """What the first process makes, known to all; the others wait, however long it takes."""
        return make() if self.line is None else self.line.broadcast(make() if self.first else None)

    # Telling the others

    def tell(self, verb: str, **details: Any) -> None:
        """Ask all others to do something; of no effect in any process but the first."""
        if self.line is not None and self.first:
            self.line.send(pickle.dumps(Request(verb, details)))

    def told(self) -> Request:
        """Wait for what the first process asks, however long it is busy."""
        if self.line is None:
            raise RuntimeError("a process that is alone is told nothing")
        request: Request = pickle.loads(self.line.receive())  # noqa: S301 - from a process of this training
        return request

    def agree(self, what: str, held: Callable[[], str]) -> None:
        """Make sure that all processes hold the same; `held` says what this one holds, and is asked only where there are others.

        Raises:
            ConfigError: they do not.
        """
        if self.line is None:
            return
        found = self.line.gather(held())
        others = [rank for rank in range(self.size) if found[rank] != found[0]]
        if others:
            raise ConfigError(f"process {others[0]} of {self.size} has other {what} than the first; all machines need the same")

    def in_turn(self, work: Callable[[], T]) -> T:
        """Do something after the first process of this machine has done it, so that the machine's cache serves the others."""
        neighbour = self.rank - self.local_rank  # the first process of all has done it before it asks the others
        if self.line is None:
            return work()
        if self.local_rank and neighbour:
            self.line.await_mark(neighbour)
        result = work()
        if not self.local_rank:
            self.line.mark()
        return result

    # Learning together

    def fabric(self, accelerator: str, precision: str) -> Fabric:
        """The engine of this process: by itself, or in step with the others through DDP, which averages the gradients.

        Raises:
            ConfigError: torchrun has started several processes, and they have not joined.
        """
        if self.line is None:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise ConfigError("several processes that torchrun has started train one model with `coverslip train`, and do nothing else")
            return Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
        strategy = DDPStrategy(gradient_as_bucket_view=True)
        fabric = Fabric(
            accelerator=accelerator, devices=self.local_size, strategy=strategy, plugins=[Machines()],
            precision=precision,  # type: ignore[arg-type]
        )  # fmt: skip
        fabric.launch()
        return fabric

    def joint_statistics(self) -> AbstractContextManager[object]:
        """Inside, batch norms in training take mean and deviation over the images of all processes."""
        return nullcontext() if self.line is None else JointBatchNorm(self.line.statistics)


class Machines(TorchElasticEnvironment):
    """The machines of torchrun, of which one may have more processes than another."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Accept what torchrun has started; Fabric's own wants as many processes on every machine."""


ALONE = Ranks()
_current = ALONE


def current() -> Ranks:
    """This process among those that train together; alone, unless inside `together`."""
    return _current


@contextmanager
def together() -> Iterator[Ranks]:
    """Join the processes that torchrun has started with this one; the only one where it was started alone.

    The first process's leaving sends the others home.

    Raises:
        ConfigError: the processes cannot work together here.
        UnreachableError: the others do not answer.
        LostProcessError: one of them ended, or gave no sign for too long, while they worked.
    """
    global _current  # noqa: PLW0603 - there is one such group a process, as there is one default group in torch
    joined = join()
    if joined.line is None:
        yield joined
        return
    _current = joined
    try:
        yield joined
    except LOST as error:
        if isinstance(error, CoverslipError) or not joined.line.is_loss(error):
            raise
        raise LostProcessError(
            f"another process of this training was lost, or did not answer within {joined.line.seconds:g} seconds "
            f"({str(error).splitlines()[0]}); go on with --resume, with as many processes as you like"
        ) from error
    finally:
        _current = ALONE
        joined.tell("end")
        joined.line.close()


def join() -> Ranks:
    """Join the processes that torchrun has started; alone where it has not, or has started one only.

    Raises:
        ConfigError: the environment of torchrun is incomplete, or there are more processes than GPUs.
        UnreachableError: the others do not answer.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    os.environ.pop("LT_CLI_USED", None)  # of `fabric run`: device and precision are the config's business
    if size < 2:
        return ALONE
    try:
        rank, local_rank, local_size = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    except KeyError as missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {missing.args[0]} is not set; start several processes with torchrun: "
            "torchrun --nproc-per-node 2 -m coverslip train ..."
        ) from None
    gpus = torch.cuda.device_count()
    if gpus:
        if local_size > gpus:
            raise ConfigError(f"{local_size} processes on a machine with {gpus} GPUs; start at most one for each")
        torch.cuda.set_device(local_rank)
    return Ranks(rank, size, local_rank, local_size, Line(rank, size))
