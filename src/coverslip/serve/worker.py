"""One worker for all clients: a pool of threads decodes, one thread scores in batches whatever is ready.

While a batch is scored the next images are decoded and gather behind it, so that batches grow with the load and a single image
waits for nobody. A batch holds images of one model; the model whose image waits longest comes first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.data.pools import image_threads
from coverslip.data.reading import FileContent
from coverslip.errors import MissingExtraError
from coverslip.network import SCORE_BATCH
from coverslip.serve.engine import Engine
from coverslip.structures import FloatArray

Sample = tuple[FileContent, ...]
Result = TypeVar("Result")
Look = Callable[[PixelArray], str]
"""Makes something of stored pixels that goes with the answer, such as a thumbnail."""


class FullError(Exception):
    """The queue cannot take as many samples."""


class LateError(Exception):
    """The time for a job was over before it was done."""


@dataclass
class Outcome:
    """What became of one sample.

    Attributes:
        scores: float64 (classes,), calibrated; None where there is a problem.
        distance: from the training images, where the model knows them.
        problem: why it could not be read.
        look: what `Look` made of its pixels.
    """

    scores: FloatArray | None = None
    distance: float | None = None
    problem: str = ""
    look: str | None = None


@dataclass
class Job:
    """The samples of one request.

    Attributes:
        engine: what scores them.
        outcomes: one a sample, in order; complete when `done` has a result.
        deadline: by `time.monotonic`; what is not begun by then is not begun.
        done: gives the outcomes, or the error that ended the job.
    """

    engine: Engine
    outcomes: list[Outcome]
    deadline: float
    look: Look | None = None
    done: Future[list[Outcome]] = field(default_factory=Future)
    left: int = 0

    @property
    def dropped(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.done.done() or time.monotonic() > self.deadline


@dataclass
class _Ready:
    """A decoded sample that waits to be scored."""

    job: Job
    place: int
    pixels: PixelArray


class Worker:
    """Decodes and scores.

    Args:
        capacity: most samples that wait or are worked on.
        threads: how many decode at one time.
        observe: told the size of each batch and the seconds that it took.
    """

    def __init__(self, capacity: int, threads: int, observe: Callable[[int, float], None] = lambda size, seconds: None) -> None:
        self.capacity = capacity
        self._observe = observe
        self._decoders = image_threads(threads, "decode")
        self._scorer = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._ready: deque[_Ready] = deque()
        self._lock = threading.Lock()
        self._held = 0

    @property
    def held(self) -> int:
        """Samples that wait or are worked on."""
        return self._held

    def call(self, work: Callable[[], Result]) -> Future[Result]:
        """Call something in the thread that scores, in its turn: a model is opened where it will run.

        Raises:
            FullError: there is no room for it.
        """
        self._take_in(1)
        future = self._scorer.submit(work)
        future.add_done_callback(lambda _: self._release(1))
        return future

    def submit(self, engine: Engine, samples: Sequence[Sample], seconds: float, look: Look | None = None) -> Future[list[Outcome]]:
        """Take samples in; the future gives their outcomes in order. Cancelling it drops what is not begun.

        Raises:
            FullError: there is no room for all of them, and none was taken.
        """
        self._take_in(len(samples))
        job = Job(engine, [Outcome() for _ in samples], time.monotonic() + seconds, look, left=len(samples))
        for place, files in enumerate(samples):
            self._decoders.submit(self._decode, job, place, files).add_done_callback(partial(self._after_decoding, job, place))
        return job.done

    def close(self) -> None:
        """Finish what was taken in, then end the threads."""
        self._decoders.shutdown(wait=True)
        self._scorer.shutdown(wait=True)

    def _take_in(self, count: int) -> None:
        with self._lock:
            if self._held + count > self.capacity:
                raise FullError
            self._held += count

    def _release(self, count: int) -> None:
        with self._lock:
            self._held -= count

    def _decode(self, job: Job, place: int, files: Sample) -> PixelArray | None:
        if job.dropped:
            return None
        try:
            pixels = job.engine.read(files)
        except (ImageReadError, MissingExtraError) as error:
            job.outcomes[place].problem = str(error)
            return None
        if job.look is not None:
            job.outcomes[place].look = job.look(pixels)
        return pixels

    def _after_decoding(self, job: Job, place: int, decoded: Future[PixelArray | None]) -> None:
        error = decoded.exception()
        pixels = None if error is not None else decoded.result()
        if pixels is None:
            self._finish([job], error)
            return
        with self._lock:
            self._ready.append(_Ready(job, place, pixels))
        batch = _Batch(self)
        self._scorer.submit(batch.score).add_done_callback(batch.finish)

    def take(self) -> list[_Ready]:
        """What is ready of the model that waits longest: 1, 2, 4, ... samples, at most `SCORE_BATCH`.

        Engines prepare themselves for each new size of a batch, which takes time and memory: there are few sizes.
        """
        with self._lock:
            if not self._ready:
                return []
            engine = self._ready[0].job.engine
            same = [one for one in self._ready if one.job.engine is engine][:SCORE_BATCH]
            chosen = same[: 1 << (len(same).bit_length() - 1)]
            gone = {id(one) for one in chosen}
            self._ready = deque(one for one in self._ready if id(one) not in gone)
            return chosen

    def score(self, batch: list[_Ready]) -> None:
        """Score decoded samples of one engine."""
        began = time.perf_counter()
        wanted = [one for one in batch if not one.job.dropped]
        if not wanted:
            return
        scores = wanted[0].job.engine.scores(np.stack([one.pixels for one in wanted]))
        for row, one in enumerate(wanted):
            outcome = one.job.outcomes[one.place]
            outcome.distance = None if scores.distances is None else float(scores.distances[row])
            outcome.scores = scores.probabilities[row]
        self._observe(len(wanted), time.perf_counter() - began)

    def finish(self, batch: list[_Ready], error: BaseException | None) -> None:
        """Tell the jobs of a batch that it is done."""
        self._finish([one.job for one in batch], error)

    def _finish(self, jobs: list[Job], error: BaseException | None) -> None:
        """One sample of each of the jobs needs no more work."""
        self._release(len(jobs))
        with self._lock:
            complete = []
            for job in jobs:
                job.left -= 1
                if job.left == 0 or error is not None:
                    complete.append(job)
        for job in complete:
            _settle(job, error)


class _Batch:
    """A turn of the scorer: takes what is ready when the turn comes, which an earlier turn may have left empty."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._taken: list[_Ready] = []

    def score(self) -> None:
        self._taken = self._worker.take()
        self._worker.score(self._taken)

    def finish(self, turn: Future[None]) -> None:
        self._worker.finish(self._taken, turn.exception())


def _settle(job: Job, error: BaseException | None) -> None:
    """Hand over the outcomes, unless somebody gave the job up or an error ended it before."""
    incomplete = any(one.scores is None and not one.problem for one in job.outcomes)
    with suppress(InvalidStateError):
        if error is not None or incomplete:
            job.done.set_exception(error or LateError())
        else:
            job.done.set_result(job.outcomes)
