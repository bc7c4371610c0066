"""How the processes of a training speak: collective operations of torch, and a store of keys to wait at for as long as somebody works.

Collective operations fail when a process has ended, or when it does not come within `seconds`. Where waiting may take longer - for data
that is read, a head that is solved, a report - a process first waits at a key of the store, and gives up only when one of the others has
shown no sign of life for so long.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from coverslip.errors import UnreachableError
from coverslip.structures import FloatArray

T = TypeVar("T")

SECONDS = 600.0
"""How long a process waits for the others; the environment variable `COVERSLIP_RANK_TIMEOUT` says otherwise."""
BEATS = 20
"""Signs of life that a process gives in this time."""
POLL_SECONDS = (0.002, 0.2)
LINGER_SECONDS = 5.0
LOST = (RuntimeError, TimeoutError)
"""What torch raises when a process is lost."""
SIGNS = ("gloo", "nccl", "connection", "timed out", "timeout", "store", "socket", "peer")
"""Words of which one is in such an error."""


class Line:
    """The connection of one process to all others.

    Attributes:
        seconds: how long it waits for them.
        statistics: the group in which batch norms are joined, apart from that of the gradients.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.seconds = float(os.environ.get("COVERSLIP_RANK_TIMEOUT", SECONDS))
        limit = timedelta(seconds=self.seconds)
        try:
            self._store, _, _ = next(iter(rendezvous("env://", timeout=limit)))
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            own = PrefixStore("torch", self._store)
            distributed.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=limit)
            self.statistics: Any = distributed.new_group(backend=backend, timeout=limit)
            self._words: Any = distributed.new_group(backend="gloo", timeout=limit)
        except (RuntimeError, TimeoutError, ValueError) as error:
            raise UnreachableError(
                f"the {size} processes of this training do not find each other within {self.seconds:g} seconds "
                f"({str(error).splitlines()[0]}); check the address and port that torchrun was given"
            ) from error
        self._met = self._heard = 0
        self._ended = threading.Event()
        self._pulse = threading.Thread(target=self._beat, daemon=True)
        self._pulse.start()

    def close(self) -> None:
        """Leave. The first process, which may be keeping the store, waits for some seconds that the others have heard so."""
        with suppress(RuntimeError):
            self._store.set(f"left-{self.rank}", b"")
            others = [f"left-{rank}" for rank in range(self.size)]
            deadline = time.monotonic() + (LINGER_SECONDS if self.rank == 0 else 0.0)
            while time.monotonic() < deadline and not self._store.check(others):
                time.sleep(POLL_SECONDS[1] / 4)
        self._ended.set()
        self._pulse.join()
        with suppress(RuntimeError):
            distributed.destroy_process_group()

    @staticmethod
    def is_loss(error: BaseException) -> bool:
        """Whether an error says that another process is lost."""
        said = str(error).lower()
        return isinstance(error, (TimeoutError, distributed.DistError)) or any(sign in said for sign in SIGNS)

    # Operations in which all take part

    def gather(self, value: T) -> list[T]:
        """The value of each process, in their order."""
        self._meet(range(self.size))
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value, group=self._words)
        return found

    def broadcast(self, value: Any) -> Any:
        """The value of the first process."""
        self._meet(range(self.size))
        holder = [value]
        distributed.broadcast_object_list(holder, src=0, group=self._words)
        return holder[0]

    def total(self, numbers: FloatArray) -> FloatArray:
        """The sum over all processes, of each step: no waiting at a key."""
        summed = torch.from_numpy(numbers.copy())
        distributed.all_reduce(summed, group=self._words)
        return summed.numpy()

    # Words of the first process

    def send(self, message: bytes) -> None:
        """Say something to all others; does not wait for them."""
        with suppress(distributed.DistError):  # who has left does not need to hear it
            self._store.set(f"word-{self._heard}", message)
        self._heard += 1

    def receive(self) -> bytes:
        """Wait for the next word of the first process."""
        key = f"word-{self._heard}"
        self._wait([key], [0])
        self._heard += 1
        return bytes(self._store.get(key))

    # Marks, which a process leaves once

    def mark(self) -> None:
        """Say that this process has come to an agreed point."""
        self._store.set(f"mark-{self.rank}", b"")

    def await_mark(self, rank: int) -> None:
        """Wait until another process has come there."""
        self._wait([f"mark-{rank}"], [rank])

    # Waiting for as long as the others live

    def _meet(self, ranks: Sequence[int]) -> None:
        """Wait until all processes have come here."""
        self._store.set(f"met-{self._met}-{self.rank}", b"")
        self._wait([f"met-{self._met}-{rank}" for rank in ranks], ranks)
        self._met += 1

    def _wait(self, keys: Sequence[str], ranks: Sequence[int]) -> None:
        """Wait until all keys, each set by one of the processes, are there."""
        pause, (shortest, longest) = 0.0, POLL_SECONDS
        signs: dict[int, tuple[int, float]] = {}
        while not self._store.check(list(keys)):
            time.sleep(pause)
            pause = min(max(1.5 * pause, shortest), longest)
            if pause < longest:
                continue
            now = time.monotonic()
            for rank in ranks:
                beat = int(self._store.add(f"beat-{rank}", 0))
                seen, since = signs.get(rank, (-1, now))
                signs[rank] = (beat, now) if beat != seen else (seen, since)
                if now - signs[rank][1] > self.seconds:
                    raise TimeoutError(f"process {rank} of {self.size} gave no sign of life for {self.seconds:g} seconds")

    def _beat(self) -> None:
        """Give signs of life until the end."""
        while not self._ended.wait(self.seconds / BEATS):
            try:
                self._store.add(f"beat-{self.rank}", 1)
            except RuntimeError:  # the store is gone, and with it the training: the main thread meets it
                return
