"""What a server does, without HTTP: opens the models, takes samples in, gives predictions, stops in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request

from coverslip.inference import RuntimeName
from coverslip.runtime import cpu_count
from coverslip.serve import explaining
from coverslip.serve.answers import Explanation
from coverslip.serve.limits import Limits
from coverslip.serve.looks import thumbnail
from coverslip.serve.metrics import Metrics
from coverslip.serve.models import Models, Served, open_model
from coverslip.serve.refusals import Refusal
from coverslip.serve.samples import Named
from coverslip.serve.uploads import Uploads
from coverslip.serve.worker import FullError, LateError, Look, Outcome, Worker

RETRY = {"Retry-After": "1"}


class Service:
    """The models of a server and all that is needed to use them.

    Args:
        bundles: name → bundle folder.
        device: `auto`, `cpu` or `gpu`.
        runtime: `torch`, `onnx`, `openvino`, or `auto` for the fastest on this machine.
        limits: what is accepted.

    Attributes:
        ready: whether all models are open.
        stopping: whether it is to end.
        failure: why a model could not be opened.
        abandoned: whether it ended while a model was being opened, by a thread that cannot be interrupted.
    """

    def __init__(self, bundles: Mapping[str, Path], device: str, runtime: RuntimeName, limits: Limits) -> None:
        self.limits = limits
        self.models = Models()
        self.uploads = Uploads(limits)
        self.metrics = Metrics()
        self.failure: BaseException | None = None
        self.ready = False
        self.stopping = False
        self.abandoned = False
        self._bundles = dict(bundles)
        self._device = device
        self._runtime: RuntimeName = runtime
        self._opening: Future[None] | None = None
        self._worker = Worker(limits.queue, cpu_count(), self.metrics.observe_batch)
        self.metrics.watch("coverslip_ready", "Whether all models are open: 1 or 0.", lambda: float(self.ready))
        self.metrics.watch("coverslip_queue_images", "Samples that wait or are worked on.", lambda: float(self._worker.held))
        self.metrics.watch("coverslip_upload_bytes", "Bytes of bodies that are held.", lambda: float(self.uploads.held))

    def start(self, when_done: Callable[[], None]) -> None:
        """Open the models in the background; `when_done` is called once they are open, or one could not be opened."""

        def note(opening: Future[None]) -> None:
            self.failure = opening.exception()
            self.ready = self.failure is None and not self.stopping
            when_done()

        self._opening = self._worker.call(self._open)
        self._opening.add_done_callback(note)

    def _open(self) -> None:
        for name, folder in self._bundles.items():
            if self.stopping:
                return
            self.models.add(open_model(name, folder, self._device, self._runtime, self.limits))

    def close(self) -> None:
        """Finish what was accepted, then end the threads. Until the models are open nothing was accepted, and nothing is waited for."""
        self.stopping = True
        self.abandoned = self._opening is not None and not self._opening.done()
        if not self.abandoned:
            self._worker.close()

    def find(self, name: str | None) -> Served:
        """The model that a request is for.

        Raises:
            Refusal: 503 until all models are open; 404 or 422 as `Models.find`.
        """
        if not self.ready:
            raise Refusal(503, "the models are being opened; ask /health until it says ready", headers=RETRY)
        return self.models.find(name)

    async def outcomes(self, request: Request, served: Served, samples: Sequence[Named], *, thumbnails: bool) -> list[Outcome]:
        """Decode and score samples together with those of other requests.

        Raises:
            Refusal: 413 too many samples; 429 the queue is full; 503 not done in time.
        """
        if len(samples) > self.limits.images:
            raise Refusal(413, f"{len(samples)} images in one request; at most {self.limits.images} are taken, send them in several")
        whole = [sample.files for sample in samples if sample.files]
        look: Look | None = partial(thumbnail, channels=served.body.channels) if thumbnails else None
        try:
            job = self._worker.submit(served.engine, whole, self.limits.seconds, look)
        except FullError:
            raise self._full() from None
        done = iter(await self._wait(request, job) if whole else [])
        outcomes = [next(done) if sample.files else Outcome(problem=sample.problem) for sample in samples]
        bad = sum(outcome.scores is None for outcome in outcomes)
        self.metrics.images.labels(served.name, "scored").inc(len(outcomes) - bad)
        self.metrics.images.labels(served.name, "unreadable").inc(bad)
        return outcomes

    async def explain(self, served: Served, sample: Named, label: str | None) -> Explanation:
        """Where in an image the model saw a class, worked out in the thread that scores.

        Raises:
            Refusal: 422 a file cannot be used; 429 the queue is full; 503 not done in time.
        """
        call = partial(explaining.explain, served.explainer, served.name, sample.name, sample.files, label)
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await asyncio.wrap_future(self._worker.call(call))
        except FullError:
            raise self._full() from None
        except TimeoutError:
            raise self._too_late() from None

    def _full(self) -> Refusal:
        return Refusal(429, f"{self._worker.held} images wait already; try again soon", headers=RETRY)

    async def _wait(self, request: Request, job: Future[list[Outcome]]) -> list[Outcome]:
        """The outcomes of a job; it is given up when its time is over or the client goes away.

        The body was read before, so that nothing but the end of the connection can still be received.
        """
        work = asyncio.wrap_future(job)
        gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
        waited: set[asyncio.Future[Any]] = {work, gone}
        try:
            await asyncio.wait(waited, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise self._too_late() if not gone.done() else Refusal(400, "the client went away")
            return work.result()
        except LateError:
            raise self._too_late() from None
        finally:
            for one in waited:
                one.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    def _too_late(self) -> Refusal:
        return Refusal(503, f"not done within {self.limits.seconds:g} seconds; send fewer images at a time, or try again", headers=RETRY)
