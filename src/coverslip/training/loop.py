"""The training loop: all layers learn, one step at a time, and nothing hides.

A step's samples, augmentation and dropout depend on the seed and the step only, so that a resumed run ends with the
same numbers as an unbroken one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coverslip.config import RunConfig
from coverslip.errors import ConfigError, DivergedError, ResourceError
from coverslip.models.hardware import wait_for
from coverslip.network import Network, chunks
from coverslip.runtime import Progress, derived_seed
from coverslip.structures import FloatArray, IntArray
from coverslip.training import notes
from coverslip.training.averaging import RunningAverage
from coverslip.training.batches import Batch, TimedStep, make_batch, make_batch_of_maps, make_share
from coverslip.training.checkpoint import State, load_checkpoint, save_checkpoint
from coverslip.training.losses import build_loss
from coverslip.training.maps import Maps
from coverslip.training.optimizers import build_optimizer, set_rate
from coverslip.training.plan import CHECKS, Pace, Plan, Trial
from coverslip.training.ranks import current
from coverslip.training.samples import Samples
from coverslip.training.sampling import SampleStream, draw_shares
from coverslip.training.schedules import Plateau, planned_rate
from coverslip.training.seen import Seen
from coverslip.training.validation import Looks, validation_numbers

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

HistoryRow = dict[str, Any]
FALLING = ("onecycle", "cosine", "step")
"""Schedules that end with a small learning rate."""
SHOWN = ("images_per_second", "validation_accuracy", "validation_macro_f1")
"""What the progress bar shows beside the loss."""
STEPS_AHEAD = 8
"""Steps whose images are read ahead where they come from a store, if memory allows."""
CHECKPOINT_SECONDS = 300.0
ENOUGH = "start fewer, or make training.batch_size (images of all processes together) larger"
SHORT_EPOCH_SECONDS = 5.0
TRIAL_SECONDS = 4.0
TRIAL_STEPS = 12


@dataclass
class Kept:
    """Weights that were looked at: at which step, how well they did (higher is better), and the weights themselves."""

    step: int = -1
    score: float = -np.inf
    state: State = field(default_factory=dict)


@dataclass
class Learner:
    """One fit of all layers of a network, from its first step or from a checkpoint.

    Attributes:
        network: what learns; it holds the kept weights when `run` returns.
        samples: images and targets.
        rows: int64, the training rows.
        validation: int64, rows that choose which weights are kept; may be empty.
        config: augmentation, optimizer, schedule, loss, precision.
        class_weights: float64 (classes,), loss weights of the classes, or of their positives with several labels an image.
        checkpoint: file for resuming; None keeps none. Where several processes learn together it is the first one's affair.
        progress: told about every step.
        looks: who is told about looks at the validation part.
        maps: what frozen first layers give, where only the layers above them learn.
    """

    network: Network
    samples: Samples
    rows: IntArray
    validation: IntArray
    config: RunConfig
    class_weights: FloatArray
    progress: Progress
    checkpoint: Path | None = None
    history: list[HistoryRow] = field(default_factory=list)
    looks: Looks | None = None
    maps: Maps | None = None
    _driven: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        training = self.config.training
        precision = "bf16-mixed" if self.network.precision == "bf16" else "32-true"
        kind = {"cpu": "cpu", "cuda": "cuda", "mps": "mps"}[self.network.device.type]
        self.ranks = current()
        self.fabric = self.ranks.fabric(kind, precision)
        self.learns = self.maps.cut.upper if self.maps else self.network.classifier
        self.weights_of_parts = [(self.learns.backbone, training.backbone_rate), (self.learns.head, 1.0)]
        self.stream = SampleStream(
            self.rows,
            training.batch_size,
            training.seed,
            draw_shares(training.sampler, self.samples.targets[self.rows]),
            self.samples.pixels.arranged,
        )
        self.loss = build_loss(training, self.class_weights, self.network.device, several=self.samples.several)
        self.plateau = Plateau()
        self.average = RunningAverage(training.ema) if training.ema else None
        self.best = Kept()
        self.spare = Kept()
        self.waited = 0
        self.diverged = False
        self.planned = 0
        if self.stream.batch_size < self.ranks.size:
            raise ConfigError(f"a step of {self.stream.batch_size} images cannot be shared out to {self.ranks.size} processes; {ENOUGH}")

    # The story ------------------------------------------------------------------------------------------------------

    def run(self, plan: Plan, pace: Pace | None = None, on_plan: Callable[[Plan], None] = lambda plan: None) -> int:
        """Learn; at the end the network holds the weights that did best on the validation part.

        Args:
            plan: how long.
            pace: changes the plan where a budget would not be kept, or be left; the learning rate then falls sooner, or later.
            on_plan: told each plan that differs from the one before.

        Returns:
            Steps that were taken here, without those before a checkpoint.

        Raises:
            DivergedError: the weights are no longer finite, and no earlier ones have learned anything.
        """
        training = self.config.training
        model, optimizer = self._set_up(build_optimizer(self.weights_of_parts, training))
        start, seen, seconds = self._restore(optimizer)
        if start == 0:
            self._look(0, plan, seen, 0.0)
        if pace is not None:
            pace.start()
        done, planned, last_save = start, plan.steps, time.perf_counter()
        last_look = last_save - seconds
        with torch.random.fork_rng():
            while done < plan.steps and not (done == start and self._is_over()):
                step = done
                share = self.plateau.share if training.schedule == "plateau" else planned_rate(training, step, plan.steps)
                set_rate(optimizer, training.learning_rate * share)
                self._learn(model, optimizer, step, self._batch(step), self.average, seen)
                done = step + 1
                self.progress("training", done, plan.steps, {"loss": seen.losses[-1], **self._latest()})
                now = time.perf_counter()
                epoch_ends = done % plan.steps_per_epoch == 0 or done == plan.steps
                if epoch_ends:
                    self._look(done, plan, seen, now - last_look)
                elif done % max(1, plan.steps // 100) == 0:
                    self._note(done, plan, seen, now - last_look)
                if self.history[-1]["step"] == done:
                    seen, last_look = self._nothing_seen(), time.perf_counter()
                if now - last_save > (SHORT_EPOCH_SECONDS if epoch_ends else CHECKPOINT_SECONDS):
                    self._save(done, optimizer, seen, time.perf_counter() - last_look)
                    last_save = time.perf_counter()
                if epoch_ends and self._is_over():
                    break
                if pace is not None and done % max(1, planned // CHECKS) == 0 and done < plan.steps:
                    plan = self._in_time(pace, plan, start, done, on_plan)
        self.planned = planned if done == plan.steps else done
        self._keep_best()
        return done - start

    def _in_time(self, pace: Pace, plan: Plan, start: int, done: int, on_plan: Callable[[Plan], None]) -> Plan:
        """The plan, as long as the budget has it by now; `start` steps were taken in an earlier process."""
        steps = start + self.ranks.same(lambda: pace.ask(done - start))
        if steps == plan.steps:
            return plan
        changed = replace(plan, steps=steps)
        on_plan(changed)
        return changed

    def _is_over(self) -> bool:
        """Whether going on is of no use: patience is at its end, or the weights are no longer finite."""
        patience = self.config.training.patience
        return self.diverged or (patience is not None and self.waited >= patience)

    def _batch(self, step: int) -> Batch:
        rows, seed = self.stream.batch(step), derived_seed("augment", self.config.training.seed, step)
        pixels, targets = self.samples.pixels, self.samples.targets[rows]
        if self.maps:
            return self._batch_of_maps(self.maps, rows, seed)
        if self.ranks.size == 1:
            made = make_batch(self.network, pixels.read(rows), targets, self.config.augment, seed)
        else:
            own = self.ranks.part(len(rows))
            made = make_share(self.network, lambda chosen: pixels.read(rows[chosen]), targets, self.config.augment, seed, own)
        self._expect(step)
        return made

    def _batch_of_maps(self, maps: Maps, rows: IntArray, seed: int) -> Batch:
        views, targets = maps.draw(len(rows), seed), torch.from_numpy(self.samples.targets[rows]).to(self.network.device)
        own = self.ranks.part(len(rows))
        return make_batch_of_maps(lambda chosen: maps.read(rows[chosen], views[chosen]), targets, self.config.augment.mixup, seed, own)

    def _expect(self, step: int) -> None:
        """Let the images of the next steps be read ahead, where they come from a store."""
        ahead = min(STEPS_AHEAD, self.samples.pixels.ahead // self.stream.batch_size)
        if ahead:
            coming = [self.stream.batch(step + number) for number in range(1, ahead + 1)]
            self.samples.pixels.expect(np.concatenate([rows[self.ranks.part(len(rows))] for rows in coming]))

    def _set_up(self, optimizer: Any) -> tuple[Any, Any]:
        """The network and an optimizer as the engine drives them; the network is set up once, for it then hears of its gradients."""
        self._driven = self._driven or self.fabric.setup_module(self.learns)
        return self._driven, self.fabric.setup_optimizers(optimizer)

    def _nothing_seen(self) -> Seen:
        return Seen.nothing(self.samples.classes)

    def _learn(self, model: Any, optimizer: Any, step: int, batch: Batch, average: RunningAverage | None, seen: Seen) -> None:
        """Change the weights by one batch, of which each process has a part."""
        self.learns.train()
        torch.manual_seed(derived_seed("dropout", self.config.training.seed, step, *self.ranks.seed()))
        with self.ranks.joint_statistics():
            logits = model(batch.images)
        loss = batch.loss(self.loss, logits) * self.ranks.weight(len(batch.images), len(batch.targets))
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if self.config.training.gradient_clip:
            self.fabric.clip_gradients(model, optimizer, max_norm=self.config.training.gradient_clip, error_if_nonfinite=False)
        optimizer.step()
        if average:
            average.update(self.network.classifier)
        seen.add(loss, logits, batch, self.ranks)

    # Looking at the validation part. Where the learning rate falls to nothing only the first and the last weights compete: a
    # lucky look in the middle of a fall wins on a small validation part and loses on new images.

    def _look(self, step: int, plan: Plan, seen: Seen, seconds: float) -> None:
        row = self._note(step, plan, seen, seconds)
        weights = self.average.swapped(self.network.classifier) if self.average and step else None
        try:
            self.diverged = not all(bool(tensor.isfinite().all()) for tensor in self.network.classifier.state_dict().values())
            if self.diverged:
                self._fall_back(step)
                return
            if len(self.validation):
                self._judge(row)
                if self.looks:
                    self.looks.told(step, plan.steps, row)
            looked = Kept(step, row.get("validation_score", 0.0))
            competes = step in (0, plan.steps) or self.config.training.schedule not in FALLING or self.config.training.patience
            if competes and (looked.score >= self.best.score or not len(self.validation)):
                self.best, row["kept"] = self._with_weights(looked), True
            elif not competes and looked.score >= self.spare.score:
                self.spare = self._with_weights(looked)
        finally:
            if weights is not None and self.average:
                self.average.swapped_back(self.network.classifier, weights)

    def _with_weights(self, looked: Kept) -> Kept:
        return replace(looked, state={name: tensor.detach().cpu().clone() for name, tensor in self.network.classifier.state_dict().items()})

    def _fall_back(self, step: int) -> None:
        """The weights are no longer finite: keep the best that were looked at on the way, if any has learned something."""
        if self.spare.score > self.best.score:
            self.best = self.spare
        for row in self.history:
            row.pop("kept", None)
            if row["step"] == self.best.step:
                row["kept"] = True
        training = self.config.training
        if not len(self.validation) or (self.best.step <= 0 and training.regime == "scratch"):
            rate = f"training.learning_rate = {training.learning_rate}"
            raise DivergedError(f"{rate}: by step {step} the weights are no longer finite numbers; make it smaller")

    @property
    def note(self) -> str:
        """What a reader of the numbers has to know about the fit; empty when all went well."""
        training, steps = self.config.training, self.history[-1]["step"] if self.history else 0
        if self.diverged:
            return notes.diverged(training.learning_rate, steps, self.best.step)
        said = [notes.replanned(steps, self.planned or steps)]
        if steps and not self.best.step and len(self.validation):
            head_learned = bool(training.frozen_first) and self.config.model.weights != "none"
            said.insert(0, notes.untrained(steps, len(self.validation), head_learned=head_learned))
        return "; ".join(filter(None, said))

    def _judge(self, row: HistoryRow) -> None:
        own = self.validation[self.ranks.part(len(self.validation))]
        mine = self.network.scores(chunks(self.samples.pixels.array, self.samples.pixels.index[own]), copies=False)
        scores, targets = self.ranks.gathered(mine), self.samples.targets[self.validation]
        row |= self.ranks.same(lambda: validation_numbers(scores, targets, self.samples.classes))
        self.plateau.update(row["validation_loss"])
        best = min((past["validation_loss"] for past in self.history[:-1] if "validation_loss" in past), default=np.inf)
        self.waited = 0 if row["validation_loss"] < best else self.waited + 1

    def _note(self, step: int, plan: Plan, seen: Seen, seconds: float) -> HistoryRow:
        share = (
            self.plateau.share
            if self.config.training.schedule == "plateau"
            else planned_rate(self.config.training, max(step - 1, 0), plan.steps)
        )
        row: HistoryRow = {
            "phase": "all",
            "step": step,
            "epoch": step / plan.steps_per_epoch,
            "learning_rate": self.config.training.learning_rate * share,
        }
        if seen.losses:
            row |= {
                "train_loss": float(np.mean(seen.losses)),
                "train_macro_f1": seen.macro_f1,
                "seconds": seconds,
                "images_per_second": len(seen.losses) * self.stream.batch_size / max(seconds, 1e-9),
            }
        self.history.append(row)
        return row

    def _latest(self) -> dict[str, float]:
        shown: dict[str, float] = {}
        for row in self.history:
            shown |= {name: float(row[name]) for name in SHOWN if name in row}
        return shown

    def _keep_best(self) -> None:
        if self.best.state:
            self.network.classifier.load_state_dict(self.best.state)
        self.network.classifier.eval()

    # Resuming -------------------------------------------------------------------------------------------------------

    def _save(self, step: int, optimizer: Any, seen: Seen, seconds: float) -> None:
        if self.checkpoint is None:
            return
        state: State = {
            "step": step,
            "classifier": self.network.classifier.state_dict(),
            "optimizer": list(optimizer.state_dict()["state"].items()),
            "average": self.average.state() if self.average else None,
            "plateau": self.plateau.state(),
            "best": vars(self.best),
            "spare": vars(self.spare),
            "waited": self.waited,
            "diverged": self.diverged,
            "history": self.history,
            "losses": seen.losses,
            "counts": torch.from_numpy(seen.counts),
            "seconds": seconds,
        }
        save_checkpoint(self.checkpoint, state)

    def _restore(self, optimizer: Any) -> tuple[int, Seen, float]:
        """Steps done, and what was seen and the seconds since the last row of the history."""
        state = self.ranks.same(lambda: load_checkpoint(self.checkpoint) if self.checkpoint else None)
        if state is None:
            return 0, self._nothing_seen(), 0.0
        self.network.classifier.load_state_dict(state["classifier"])
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": {int(number): values for number, values in state["optimizer"]}, "param_groups": groups})
        if self.average:
            self.average.restore(state["average"])
        self.plateau.restore(state["plateau"])
        self.best, self.spare = Kept(**state["best"]), Kept(**state["spare"])
        self.waited, self.diverged = state["waited"], state["diverged"]
        self.history[:] = state["history"]
        return int(state["step"]), Seen(state["losses"], state["counts"].numpy()), float(state["seconds"])

    # The trial ------------------------------------------------------------------------------------------------------

    def try_batches(self, *, timed: bool) -> Trial:
        """Run forward and backward on the first batches and leave no trace: meets running out of memory at once.

        Args:
            timed: go on for some seconds to measure; one step otherwise.

        Raises:
            ResourceError: the batch does not fit into memory.
        """
        classifier = self.network.classifier
        before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
        try:
            with torch.random.fork_rng():
                steps = self._time_steps(timed)
            score = self._time_scores() if timed and len(self.validation) else 0.0
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            size = self.stream.batch_size
            height, width, _ = self.network.geometry.shape
            raise ResourceError(
                f"a batch of {size} images of {height}x{width} does not fit into the memory of {self.network.device}; "
                f"try -s training.batch_size={max(1, size // 2)}, a smaller pixels.height and pixels.width, or a smaller backbone"
            ) from error
        finally:
            classifier.zero_grad(set_to_none=True)
            classifier.load_state_dict(before)
        return Trial(steps, score)

    def _time_steps(self, timed: bool) -> float:
        seconds: list[float] = []
        for taken in islice(self.timed_steps(), TRIAL_STEPS if timed else 1):
            seconds.append(self.ranks.slowest(taken.seconds))
            if sum(seconds) > TRIAL_SECONDS and len(seconds) > 3:
                break
        return float(np.median(seconds[1:] or seconds))

    def timed_steps(self) -> Iterator[TimedStep]:
        """Take the steps of a run, for as long as one asks for the next, and say how long each took; weights hardly move."""
        still = self.config.training.model_copy(update={"learning_rate": 1e-12, "weight_decay": 0.0})
        model, optimizer = self._set_up(build_optimizer(self.weights_of_parts, still))
        average = RunningAverage(0.5) if self.average else None
        for step in count():
            start = self._now()
            batch = self._batch(step)
            ready = self._now()
            self._learn(model, optimizer, step, batch, average, self._nothing_seen())
            yield TimedStep(self._now() - start, ready - start)

    def _now(self) -> float:
        """Seconds on a clock, once the device has done all that it was told to do."""
        wait_for(self.network.device)
        return time.perf_counter()

    def _time_scores(self) -> float:
        rows = self.samples.pixels.index[self.validation[:32]]
        self.network.scores(chunks(self.samples.pixels.array, rows), copies=False)
        start = time.perf_counter()
        self.network.scores(chunks(self.samples.pixels.array, rows), copies=False)
        return self.ranks.slowest((time.perf_counter() - start) / len(rows)) / self.ranks.size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "out of memory" in text or "can't allocate memory" in text
