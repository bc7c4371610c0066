"""The worker with an engine whose pace the test sets."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from coverslip.data.decoding import ImageReadError, PixelArray
from coverslip.data.reading import FileContent
from coverslip.serve.engine import Scores
from coverslip.serve.worker import FullError, LateError, Worker


class Paced:
    """Gives the first byte of a file as its score; waits in `scores` while the gate is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()
        self.sizes: list[int] = []

    def read(self, files: Sequence[FileContent]) -> PixelArray:
        if files[0].data == b"":
            raise ImageReadError("the file is empty")
        return np.full((1, 1, 1), files[0].data[0], np.uint8)

    def scores(self, pixels: PixelArray) -> Scores:
        self.sizes.append(len(pixels))
        self.inside.set()
        assert self.gate.wait(20)
        if (pixels == 255).any():
            raise RuntimeError("out of memory")
        return Scores(pixels.reshape(-1, 1) / 100.0, pixels.reshape(-1) * 2.0)


def samples(*values: int) -> list[tuple[FileContent, ...]]:
    return [(FileContent("a", bytes([value])),) for value in values]


@pytest.fixture
def worker() -> Iterator[Worker]:
    running = Worker(capacity=64, threads=2)
    yield running
    running.close()


def scores_of(outcomes: list) -> list[float]:
    return [float(one.scores[0]) for one in outcomes]


def test_outcomes_come_in_the_order_of_the_samples(worker: Worker) -> None:
    files = [*samples(5, 3, 9), (FileContent("empty", b""),), *samples(7)]
    found = worker.submit(Paced(), files, 20, look=lambda pixels: str(pixels.item())).result(20)
    assert [one.problem for one in found] == ["", "", "", "the file is empty", ""]
    assert scores_of([*found[:3], found[4]]) == [0.05, 0.03, 0.09, 0.07]
    assert [one.distance for one in found] == [10, 6, 18, None, 14]
    assert [one.look for one in found] == ["5", "3", "9", None, "7"]
    assert worker.held == 0


def test_requests_are_scored_together_in_few_sizes(worker: Worker) -> None:
    engine, other = Paced(), Paced()
    engine.gate.clear()
    first = worker.submit(engine, samples(1), 20)
    assert engine.inside.wait(20)
    rest = [worker.submit(engine if number % 4 else other, samples(number), 20) for number in range(1, 33)]
    while worker.held < 33 or len(worker._ready) < 32:
        threading.Event().wait(0.01)
    engine.gate.set()
    assert scores_of(first.result(20)) == [0.01]
    assert [scores_of(one.result(20)) for one in rest] == [[number / 100] for number in range(1, 33)]
    assert engine.sizes == [1, 16, 8]
    assert other.sizes == [8]


def test_what_does_not_fit_is_refused_whole(worker: Worker) -> None:
    engine = Paced()
    engine.gate.clear()
    held = worker.submit(engine, samples(*range(1, 61)), 20)
    with pytest.raises(FullError):
        worker.submit(engine, samples(1, 2, 3, 4, 5), 20)
    assert worker.held == 60
    fits = worker.submit(engine, samples(1, 2, 3, 4), 20)
    engine.gate.set()
    assert len(held.result(20)) == 60
    assert len(fits.result(20)) == 4
    assert worker.held == 0


def test_an_engine_that_fails_fails_its_batch_only(worker: Worker) -> None:
    engine = Paced()
    with pytest.raises(RuntimeError, match="out of memory"):
        worker.submit(engine, samples(255), 20).result(20)
    assert scores_of(worker.submit(engine, samples(4), 20).result(20)) == [0.04]
    assert worker.held == 0


def test_what_is_late_or_given_up_is_not_scored(worker: Worker) -> None:
    engine = Paced()
    engine.gate.clear()
    worker.submit(engine, samples(1), 20)
    assert engine.inside.wait(20)
    given_up, late = worker.submit(engine, samples(2, 3), 20), worker.submit(engine, samples(4), 0.05)
    given_up.cancel()
    threading.Event().wait(0.1)
    engine.gate.set()
    with pytest.raises(LateError):
        late.result(20)
    assert scores_of(worker.submit(engine, samples(6), 20).result(20)) == [0.06]
    assert engine.sizes == [1, 1]
    assert worker.held == 0


def test_closing_finishes_what_was_taken_in() -> None:
    worker, engine = Worker(capacity=64, threads=2), Paced()
    jobs = [worker.submit(engine, samples(number, number), 20) for number in range(1, 20)]
    worker.close()
    assert [scores_of(job.result(0)) for job in jobs] == [[number / 100] * 2 for number in range(1, 20)]
