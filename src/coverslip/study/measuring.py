"""One measurement: a model, a strategy and a batch size, with the training step of a real run. Done in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from coverslip.config import RunConfig, with_values
from coverslip.models.classifier import build_classifier
from coverslip.models.hardware import choose_device, choose_precision, keeping_memory, wait_for
from coverslip.models.summary import Summary, summarise
from coverslip.network import Network
from coverslip.runtime import derived_seed, free_memory, peak_memory, used_memory
from coverslip.structures import IntArray
from coverslip.study.speeds import latency, speed, take_steps
from coverslip.study.strategies import STRATEGIES, Material, Strategy
from coverslip.training.batches import TimedStep
from coverslip.training.fit import feature_store, loss_weights
from coverslip.training.loop import Learner, is_out_of_memory
from coverslip.training.probe import learn_head
from coverslip.training.samples import Samples
from coverslip.training.sampling import SampleStream

MEGABYTE = 1e6
HEAD_STEPS = 100
"""Steps of a head on features, which take a millisecond each; `learn_head` tells of each of so many."""
LATENCY_SECONDS = 0.5
LATENCY_LEAST, LATENCY_MOST = 5, 50


@dataclass(frozen=True)
class Task:
    """What is to be measured.

    Attributes:
        material: the images.
        model: a backbone.
        strategy: the name of a strategy.
        batch_size: images a step; more than there are images are the same ones again.
        seconds: for how long steps are taken.
        latency: whether the time of inference is measured, too.
        prepare: whether nothing is measured, but what the strategy needs is computed and cached.
    """

    material: Material
    model: str
    strategy: str
    batch_size: int
    seconds: float
    latency: bool = False
    prepare: bool = False


def measure(task: Task) -> dict[str, Any]:
    """Numbers of one measurement, by column of results.csv; `status` is `ok`, `too large` or `out of memory`."""
    idle = used_memory()
    strategy, config = STRATEGIES[task.strategy], config_of(task)
    network = _network(task, config)
    summary = summarise(network.classifier, network.geometry.size, len(network.geometry.channels), batch_size=task.batch_size)
    row: dict[str, Any] = {
        "weights": summary.weights, "multiply_adds": summary.multiply_adds, "idle_memory_megabytes": idle / MEGABYTE,
    }  # fmt: skip
    lacking = "" if strategy.frozen else misfit(summary, network)
    if lacking:
        return row | {"status": "too large", "error": lacking}
    try:
        with keeping_memory(network.device):
            row |= _measured(task, strategy, config, network)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return row | {"status": "out of memory", "error": f"memory ran out: {str(error).splitlines()[0][:160]}"}
    return row | {"status": "ok", "error": ""}


def config_of(task: Task) -> RunConfig:
    """The config of a run with this model and batch size, from random weights on."""
    training = {"regime": "scratch", "batch_size": task.batch_size}
    exact = {"optimizer": "adamw"} if task.material.config.training.optimizer == "exact" else {}
    model = {"backbone": task.model, "weights": "none", "class_groups": None}
    return with_values(task.material.config, model=model, training=training | exact)


def _network(task: Task, config: RunConfig) -> Network:
    material, device = task.material, choose_device(config.training.device)
    classifier = build_classifier(
        config.model,
        channels=len(material.geometry.channels),
        classes=material.classes,
        size=material.geometry.size,
        seed=derived_seed("weights", config.training.seed),
    )
    precision = choose_precision(config.training.precision, device)
    return Network(
        classifier, material.geometry, material.normalisation, config.augment, config.training.tta, device, precision,
        several=material.targets.ndim == 2,
    )  # fmt: skip


def misfit(summary: Summary, network: Network) -> str:
    """Why the memory will not do for a step, by an estimate that is rather too small; empty when it will."""
    kept = summary.batch_size * summary.activation_bytes * (0.5 if network.precision == "bf16" else 1.0)
    needed = summary.training_bytes - summary.batch_size * summary.activation_bytes + kept
    free = torch.cuda.mem_get_info(network.device)[0] if network.device.type == "cuda" else free_memory()
    if needed <= free:
        return ""
    return f"needs about {needed / 1e9:.1f} GB to train {summary.batch_size} images a step, and {free / 1e9:.1f} GB are free"


def _measured(task: Task, strategy: Strategy, config: RunConfig, network: Network) -> dict[str, float]:
    pixels, targets = strategy.read(task.material), task.material.targets
    samples = Samples(pixels, targets, task.material.classes, np.arange(len(targets)))
    rows = np.resize(np.arange(len(targets), dtype=np.int64), max(len(targets), task.batch_size))
    if task.prepare:
        _features(network, samples, config)
        return {}
    if strategy.frozen:
        steps = head_steps(network, samples, rows, config)
    else:
        weights = loss_weights(targets, samples.classes, config.training.class_weights)
        learner = Learner(network, samples, rows, rows[:0], config, weights, lambda *_: None)
        with torch.random.fork_rng():
            steps = take_steps(learner.timed_steps(), task.seconds)
        network.classifier.zero_grad(set_to_none=True)
    row = speed(steps, task.batch_size) | {"peak_memory_megabytes": peak_memory() / MEGABYTE}
    if network.device.type == "cuda":
        row["peak_gpu_megabytes"] = torch.cuda.max_memory_allocated(network.device) / MEGABYTE
    return row | (_latencies(task, network, samples) if task.latency else {})


def _features(network: Network, samples: Samples, config: RunConfig) -> Any:
    network.classifier.backbone.requires_grad_(False)
    return feature_store(network, samples, config).rows(np.arange(len(samples.targets), dtype=np.int64))


def head_steps(network: Network, samples: Samples, rows: IntArray, config: RunConfig) -> list[TimedStep]:
    """Steps of the head on cached features; what it takes to draw a batch is timed beside them."""
    features, targets = _features(network, samples, config)[rows], samples.targets[rows]
    weights = loss_weights(targets, samples.classes, config.training.class_weights)
    training = config.training.model_copy(update={"steps": HEAD_STEPS})
    marks = [time.perf_counter()]
    learn_head(network.classifier.head, [features], targets, weights, training, 1, lambda *_: marks.append(time.perf_counter()))
    stream, stored = SampleStream(np.arange(len(targets)), training.batch_size, training.seed), torch.from_numpy(features)
    drawn = list(_timed(lambda step: stored[torch.from_numpy(stream.batch(step))].to(network.device), HEAD_STEPS))
    taken = np.diff(marks).tolist()
    warm = HEAD_STEPS // 10
    return [TimedStep(whole, min(part, whole)) for whole, part in zip(taken[warm:], drawn[warm:], strict=True)]


def _latencies(task: Task, network: Network, samples: Samples) -> dict[str, float]:
    """Time from stored pixels to scores, of one image and of a batch, with the network as it predicts."""
    network.settled = True
    rows = np.resize(np.arange(len(samples.targets), dtype=np.int64), task.batch_size)
    batch = samples.pixels.read(rows)
    found: dict[str, float] = {}
    for name, images in (("latency", batch[:1]), ("batch_latency", batch)):

        def score(_: int, images: Any = images) -> None:
            network.scores([images])
            wait_for(network.device)

        score(0)
        middle, high = latency(list(_timed(score, LATENCY_MOST, LATENCY_SECONDS)))
        found |= {f"{name}_milliseconds": middle, f"{name}_p95_milliseconds": high}
    return found


def _timed(work: Callable[[int], object], most: int, limit: float = float("inf")) -> Iterator[float]:
    """Seconds of each repetition: at least a few, then until time is up or there were enough."""
    began = time.perf_counter()
    for number in range(most):
        start = time.perf_counter()
        work(number)
        end = time.perf_counter()
        yield end - start
        if number + 1 >= LATENCY_LEAST and end - began > limit:
            break
