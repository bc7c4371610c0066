import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import coverslip.training.loop
from coverslip.config import RunConfig
from coverslip.data.decoding import PixelArray
from coverslip.data.store import Pixels
from coverslip.errors import DivergedError, ResourceError
from coverslip.evaluation.metrics import accuracy, confusion_matrix
from coverslip.runtime import no_progress
from coverslip.structures import IntArray
from coverslip.training.loop import Learner, is_out_of_memory
from coverslip.training.plan import Plan
from coverslip.training.validation import Looks

TRAIN, VALIDATION = np.arange(32), np.arange(32, 48)
NOTHING = np.zeros(0, dtype=np.int64)
SECONDS = {"seconds", "images_per_second"}


@pytest.fixture
def learner(make_config: Any, make_network: Any, make_samples: Any) -> Any:
    def make(samples: Any = None, **settings: Any) -> Learner:
        config: RunConfig = make_config(**settings.pop("sections", {}))
        chosen = samples or make_samples()
        filled = {
            "network": make_network(config, classes=chosen.classes), "samples": chosen, "rows": TRAIN, "validation": VALIDATION,
            "config": config, "class_weights": np.ones(chosen.classes), "progress": no_progress,
        }  # fmt: skip
        return Learner(**{**filled, **settings})

    return make


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.network.classifier.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def numbers(learner: Learner) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in SECONDS} for row in learner.history]


@pytest.mark.parametrize("regime", ["scratch", "finetune"])
def test_weights_that_learned_nothing_that_helps_are_said_to_be_kept(learner: Any, regime: str) -> None:
    sections = {"training": {"regime": regime, "learning_rate": 0.05}, "model": {"backbone": "small_30k", "weights": "none"}}
    contrary = learner(sections=sections)
    contrary.samples.targets[VALIDATION] = 1 - contrary.samples.targets[VALIDATION]  # what is learned makes these worse
    before = weights_of(contrary)
    contrary.run(Plan(12, 3))
    assert contrary.best.step == 0
    assert same(before, weights_of(contrary))
    assert (
        "on the 16 validation images the weights after 12 steps did no better than those before the first, which are kept" in contrary.note
    )
    assert "the model is as it was before it learned" in contrary.note  # random weights are not frozen first: the head learned nothing
    learned = learner(sections=sections)
    learned.run(Plan(12, 3))
    assert learned.best.step == 12
    assert learned.note == ""


# Looking ------------------------------------------------------------------------------------------------------------


def test_who_looks_is_told_at_each_look_and_may_end_the_fit(learner: Any) -> None:
    told: list[tuple[int, int]] = []

    def tell(step: int, steps: int, row: dict[str, Any]) -> None:
        told.append((step, steps))
        assert 0 <= row["validation_macro_f1"] <= 1
        assert row["validation_loss"] > 0
        if step == 6:
            raise TimeoutError

    found = learner(looks=Looks(4, tell))
    with pytest.raises(TimeoutError):
        found.run(Plan(12, 3))
    assert told == [(0, 12), (3, 12), (6, 12)]
    silent = learner(looks=Looks(4, tell), validation=NOTHING)
    silent.run(Plan(6, 3))
    assert len(told) == 3


# Learning -------------------------------------------------------------------------------------------------------------


def test_a_trivial_task_is_learned_in_seconds(learner: Any, make_samples: Any) -> None:
    found = learner(make_samples(classes=3), sections={"training": {"class_weights": "none"}})
    found.run(Plan(60, 4))
    scores = found.network.scores([found.samples.pixels.read(VALIDATION)])
    assert (scores.argmax(axis=1) == found.samples.targets[VALIDATION]).mean() > 0.9
    losses = [row["train_loss"] for row in found.history if "train_loss" in row]
    assert losses[-1] < 0.3 * losses[0]
    assert found.history[-1]["train_macro_f1"] > 0.9 > found.history[1]["train_macro_f1"]
    assert not found.network.classifier.training


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "onecycle", "plateau"])
def test_every_optimizer_learns_under_every_schedule(learner: Any, optimizer: str, schedule: str) -> None:
    rate = 0.05 if optimizer == "sgd" else 1e-3 if optimizer == "rmsprop" else 3e-3
    found = learner(sections={"training": {"optimizer": optimizer, "schedule": schedule, "learning_rate": rate}})
    found.run(Plan(16, 4))
    assert found.history[-1]["train_loss"] < found.history[1]["train_loss"]


def test_the_history_has_a_row_for_the_start_and_one_for_each_step_of_a_short_fit(learner: Any) -> None:
    found = learner(sections={"training": {"schedule": "onecycle"}})
    assert found.run(Plan(10, 4)) == 10
    assert [row["step"] for row in found.history] == list(range(11))
    assert [row["epoch"] for row in found.history] == pytest.approx([step / 4 for step in range(11)])
    looked = [row["step"] for row in found.history if "validation_loss" in row]
    assert looked == [0, 4, 8, 10]
    rates = [row["learning_rate"] for row in found.history[1:]]
    assert len(set(rates)) == 10
    assert max(rates) == pytest.approx(3e-3, rel=0.05)


def test_a_long_fit_notes_a_hundred_rows_and_every_step_counts_in_one(learner: Any) -> None:
    losses: list[float] = []

    def stop(stage: str, done: int, total: int, shown: dict[str, float]) -> None:
        if done == 41:
            raise KeyboardInterrupt
        losses.append(shown["loss"])

    found = learner(progress=stop, validation=NOTHING, sections={"training": {"batch_size": 2}})
    with pytest.raises(KeyboardInterrupt):
        found.run(Plan(230, 230))
    assert [row["step"] for row in found.history] == list(range(0, 41, 2))
    assert [row["train_loss"] for row in found.history[1:]] == pytest.approx(np.reshape(losses, (20, 2)).mean(axis=1))


def test_validation_numbers_are_those_of_the_network_at_that_moment(learner: Any) -> None:
    found = learner()
    start = found.network.scores([found.samples.pixels.read(VALIDATION)])
    found.run(Plan(4, 4))
    targets = found.samples.targets[VALIDATION]
    assert found.history[0]["validation_accuracy"] == accuracy(confusion_matrix(targets, start.argmax(axis=1), 2))
    assert found.history[0]["validation_loss"] == pytest.approx(-np.log(start[np.arange(16), targets]).mean())


def test_the_weights_that_did_best_are_kept(learner: Any) -> None:
    found = learner(sections={"training": {"schedule": "constant", "learning_rate": 0.03}})
    found.run(Plan(24, 2))
    rows = [row for row in found.history if "validation_score" in row]
    assert len(rows) == 13
    best = max(row["validation_score"] for row in rows)
    kept = [row for row in rows if row.get("kept")][-1]
    assert kept["validation_score"] == best
    scores = found.network.scores([found.samples.pixels.read(VALIDATION)])
    targets = found.samples.targets[VALIDATION]
    assert -np.log(scores[np.arange(16), targets]).mean() == pytest.approx(kept["validation_loss"], rel=1e-4)


def test_the_start_is_kept_when_training_makes_it_worse(learner: Any, make_samples: Any) -> None:
    good = learner()
    good.run(Plan(40, 4))
    found = learner(
        sections={"training": {"learning_rate": 10.0, "optimizer": "sgd", "gradient_clip": 0.0, "schedule": "constant", "epochs": 1}}
    )
    found.network.classifier.load_state_dict(good.network.classifier.state_dict())
    before = weights_of(found)
    found.run(Plan(6, 2))
    assert same(weights_of(found), before)
    assert [row["step"] for row in found.history if row.get("kept")] == [0]


def test_weights_that_are_no_numbers_are_never_kept_and_end_the_fit(learner: Any) -> None:
    found = learner()
    before = weights_of(found)

    def break_the_weights(stage: str, done: int, total: int, shown: dict[str, float]) -> None:
        if done == 21:
            with torch.no_grad():
                found.network.classifier.head.bias.fill_(torch.nan)

    found.progress = break_the_weights
    assert found.run(Plan(40, 2)) == 22
    assert all(tensor.isfinite().all() for tensor in weights_of(found).values())
    (kept,) = [row for row in found.history if row.get("kept")]
    assert kept["validation_score"] == max(row["validation_score"] for row in found.history if "validation_score" in row)
    assert 0 < kept["step"] <= 20
    assert not same(weights_of(found), before)
    assert f"by step 22 the weights were no longer finite numbers, and those of step {kept['step']} are kept" in found.note
    assert not np.isnan(found.network.scores([found.samples.pixels.read(VALIDATION)])).any()
    assert before.keys() == weights_of(found).keys()


@pytest.mark.parametrize("rows", [VALIDATION, NOTHING])
def test_weights_that_never_learned_anything_are_no_result(learner: Any, rows: Any) -> None:
    found = learner(validation=rows)

    def break_the_weights(stage: str, done: int, total: int, shown: dict[str, float]) -> None:
        with torch.no_grad():
            found.network.classifier.head.bias.fill_(torch.nan)

    found.progress = break_the_weights
    with pytest.raises(DivergedError, match=r"training\.learning_rate = 0\.003.*by step 2 .*smaller"):
        found.run(Plan(4, 2))


def test_without_a_validation_part_the_last_weights_are_kept(learner: Any) -> None:
    found = learner(validation=NOTHING)
    start = weights_of(found)
    found.run(Plan(8, 4))
    once = weights_of(found)
    assert not same(once, start)
    assert [row["step"] for row in found.history if row.get("kept")] == [0, 8]
    assert all("validation_loss" not in row for row in found.history)


def test_patience_stops_and_keeps_what_was_best(learner: Any) -> None:
    found = learner(sections={"training": {"patience": 3, "learning_rate": 1e-12, "schedule": "constant"}})

    def spoil(stage: str, done: int, total: int, shown: dict[str, float]) -> None:
        with torch.no_grad():
            for weight in found.network.classifier.head.parameters():
                weight.mul_(3.0 if done > 4 else 1.0)

    found.progress = spoil
    steps = found.run(Plan(100, 2))
    losses = {row["step"]: row["validation_loss"] for row in found.history if "validation_loss" in row}
    best = min(losses, key=losses.__getitem__)
    assert steps == max(losses) < 100
    assert (steps - best) // 2 == 3


def test_class_weights_move_the_scores_towards_the_heavy_class(learner: Any, make_samples: Any) -> None:
    noise = make_samples(noise=200.0)
    shares = []
    for weights in ((1.0, 1.0), (10.0, 0.1)):
        found = learner(noise, validation=NOTHING, class_weights=np.array(weights))
        found.run(Plan(12, 4))
        shares.append(found.network.scores([noise.pixels.read(VALIDATION)])[:, 0].mean())
    assert shares[1] > shares[0] + 0.1


def test_label_smoothing_and_mixup_keep_the_training_loss_away_from_zero(learner: Any) -> None:
    losses = {}
    for name, sections in {"plain": {}, "smooth": {"training": {"label_smoothing": 0.3}}, "mixed": {"augment": {"mixup": 8.0}}}.items():
        found = learner(sections=sections)
        found.run(Plan(40, 4))
        losses[name] = found.history[-1]["train_loss"]
    assert losses["plain"] < 0.2
    floor = -(0.85 * np.log(0.85) + 0.15 * np.log(0.15))  # entropy of the smoothed target
    assert losses["smooth"] > 0.9 * floor
    assert losses["mixed"] > losses["plain"] + 0.15


def test_the_backbone_learns_at_its_share_of_the_rate(learner: Any) -> None:
    moved = {}
    for share in (1.0, 0.01):
        found = learner(sections={"training": {"backbone_rate": share, "schedule": "constant"}}, validation=NOTHING)
        before = weights_of(found)
        found.run(Plan(1, 1))
        after = weights_of(found)
        moved[share] = {
            part: max(
                float((after[name] - before[name]).abs().max())
                for name, _ in found.network.classifier.named_parameters()
                if name.startswith(part)
            )
            for part in ("backbone", "head")
        }
    assert moved[0.01]["backbone"] == pytest.approx(0.01 * moved[1.0]["backbone"], rel=0.2)
    assert moved[0.01]["head"] == pytest.approx(moved[1.0]["head"], rel=0.05)


def test_the_gradient_is_clipped(learner: Any) -> None:
    steps = {}
    for clip in (0.0, 1e-3):
        settings = {
            "gradient_clip": clip,
            "optimizer": "sgd",
            "momentum": 0.0,
            "weight_decay": 0.0,
            "learning_rate": 1.0,
            "schedule": "constant",
        }
        found = learner(sections={"training": settings}, validation=NOTHING)
        before = weights_of(found)
        found.run(Plan(1, 1))
        after = weights_of(found)
        names = [name for name, _ in found.network.classifier.named_parameters()]
        steps[clip] = float(torch.cat([(after[name] - before[name]).flatten() for name in names]).norm())
    assert steps[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert steps[0.0] > 0.05


# The same numbers -----------------------------------------------------------------------------------------------------

RICH: dict[str, Any] = {
    "model": {"head": [16, 8]},
    "training": {"ema": 0.9, "schedule": "plateau", "epochs": 5, "weight_decay": 0.05},
    "augment": {"mixup": 0.4, "horizontal_flip": True, "noise": 0.2, "rotation_degrees": 5.0, "brightness": 0.1},
}
PLAIN: dict[str, Any] = {"training": {"optimizer": "sgd", "schedule": "onecycle", "learning_rate": 0.05}}
PLAN = Plan(20, 4)


def interrupted(make: Any, checkpoint: Path, at: int, plan: Plan = PLAN, **settings: Any) -> Learner:
    """A fit that is stopped by Ctrl-C after `at` steps, in a fresh process so to speak."""

    def stop(stage: str, done: int, total: int, shown: dict[str, float]) -> None:
        if done == at:
            raise KeyboardInterrupt

    found: Learner = make(checkpoint=checkpoint, progress=stop, **settings)
    with pytest.raises(KeyboardInterrupt):
        found.run(plan)
    return found


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(learner: Any) -> None:
    first, second, other = (learner(sections={**RICH, "training": {**RICH["training"], "seed": seed}}) for seed in (1, 1, 2))
    for number, found in enumerate((first, second, other)):
        torch.manual_seed(number)
        found.run(PLAN)
    assert same(weights_of(first), weights_of(second))
    assert numbers(first) == numbers(second)
    assert not same(weights_of(first), weights_of(other))


def test_the_global_generator_is_left_as_it_was(learner: Any) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = learner(sections=RICH)
    found.try_batches(timed=True)
    found.run(Plan(3, 2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sections", [RICH, PLAIN], ids=["ema, mixup, dropout, plateau", "sgd, onecycle"])
@pytest.mark.parametrize("at", [1, 6, 13])
def test_an_interrupted_fit_that_goes_on_ends_with_the_numbers_of_an_unbroken_one(
    learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], at: int
) -> None:
    monkeypatch.setattr(coverslip.training.loop, "SHORT_EPOCH_SECONDS", 0.0)
    monkeypatch.setattr(coverslip.training.loop, "CHECKPOINT_SECONDS", 0.0)
    unbroken = learner(sections=sections)
    assert unbroken.run(PLAN) == 20
    checkpoint = tmp_path / "fit.ckpt"
    interrupted(learner, checkpoint, at, sections=sections)
    resumed = learner(sections=sections, checkpoint=checkpoint)
    resumed.try_batches(timed=False)
    taken = resumed.run(PLAN)
    assert taken == (20 if at == 1 else 20 - at + 1)
    assert same(weights_of(resumed), weights_of(unbroken))
    assert numbers(resumed) == numbers(unbroken)
    assert any("kept" in row for row in numbers(unbroken)[1:])


def test_interrupted_twice_and_between_two_rows_of_the_history(learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """230 steps note a row every other step; a checkpoint in between keeps the loss that no row holds yet."""
    plan = Plan(230, 10)
    sections = {"training": {"batch_size": 2, "ema": 0.9}, "model": {"head": [8]}}
    unbroken = interrupted(learner, tmp_path / "other.ckpt", 23, plan, sections=sections)
    assert not (tmp_path / "other.ckpt").exists()
    monkeypatch.setattr(coverslip.training.loop, "CHECKPOINT_SECONDS", 0.0)
    for at in (4, 14):
        interrupted(learner, tmp_path / "fit.ckpt", at, plan, sections=sections)
    resumed = interrupted(learner, tmp_path / "fit.ckpt", 23, plan, sections=sections)
    assert same(weights_of(resumed), weights_of(unbroken))
    assert numbers(resumed) == numbers(unbroken)
    assert len(numbers(unbroken)) == 12


def test_checkpoints_are_written_at_the_end_of_an_epoch_and_inside_a_long_one(
    learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow machine, on whose clock each step takes a minute: far more than five minutes pass between two rows."""
    minutes, saved = [0], {0: 0}

    def clock(stage: str, done: int, total: int, shown: dict[str, float]) -> None:
        minutes[0] += 1
        if done == 75:
            raise KeyboardInterrupt

    monkeypatch.setattr(coverslip.training.loop, "save_checkpoint", lambda path, state: saved.update({state["step"]: minutes[0]}))
    monkeypatch.setattr(coverslip.training.loop.time, "perf_counter", lambda: 60.0 * minutes[0])
    interrupted_fit = learner(checkpoint=tmp_path / "fit.ckpt", progress=clock, sections={"training": {"batch_size": 2}})
    with pytest.raises(KeyboardInterrupt):
        interrupted_fit.run(Plan(4000, 50))
    assert 50 in saved
    assert max(np.diff([*saved.values(), 75])) <= 6


def test_a_fit_out_of_patience_does_not_go_on_when_it_is_resumed(learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverslip.training.loop, "SHORT_EPOCH_SECONDS", 0.0)
    sections = {"training": {"patience": 1, "learning_rate": 0.3, "optimizer": "sgd", "schedule": "constant"}}
    first = learner(sections=sections, checkpoint=tmp_path / "fit.ckpt")
    steps = first.run(Plan(200, 2))
    assert steps < 200
    again = learner(sections=sections, checkpoint=tmp_path / "fit.ckpt")
    assert again.run(Plan(200, 2)) == 0
    assert same(weights_of(again), weights_of(first))
    assert numbers(again) == numbers(first)


def test_a_fit_that_was_finished_gives_its_weights_again(learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverslip.training.loop, "SHORT_EPOCH_SECONDS", 0.0)
    first = learner(checkpoint=tmp_path / "fit.ckpt")
    first.run(PLAN)
    again = learner(checkpoint=tmp_path / "fit.ckpt")
    assert again.run(PLAN) == 0
    assert same(weights_of(again), weights_of(first))


# The trial ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("sections", [RICH, {}], ids=["rich", "plain"])
def test_the_trial_leaves_no_trace(learner: Any, timed: bool, sections: dict[str, Any]) -> None:
    found, untouched = learner(sections=sections), learner(sections=sections)
    before = weights_of(found)
    trial = found.try_batches(timed=timed)
    assert any("running_mean" in name for name in before)
    assert same(weights_of(found), before)
    assert found.history == []
    assert trial.step_seconds > 0
    assert (trial.score_seconds > 0) == timed
    found.run(Plan(6, 3))
    untouched.run(Plan(6, 3))
    assert same(weights_of(found), weights_of(untouched))
    assert numbers(found) == numbers(untouched)


def test_the_trial_without_a_validation_part(learner: Any) -> None:
    assert learner(validation=NOTHING).try_batches(timed=True).score_seconds == 0


@pytest.mark.parametrize("sections", [RICH, {}], ids=["rich", "plain"])
def test_timed_steps_wait_for_their_batch_and_hardly_move_the_weights(
    learner: Any, sections: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = learner(sections=sections)
    before = {name: weight.clone() for name, weight in found.network.classifier.named_parameters()}
    read = Pixels.read

    def slowly(pixels: Pixels, rows: IntArray) -> PixelArray:
        time.sleep(0.05)
        return read(pixels, rows)

    monkeypatch.setattr(Pixels, "read", slowly)
    taken = list(islice(found.timed_steps(), 4))
    assert len(taken) == 4
    assert all(0.05 <= step.waiting < step.seconds for step in taken)
    assert all(torch.allclose(weight, before[name], atol=1e-9) for name, weight in found.network.classifier.named_parameters())


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "cpu", "mps"])
@pytest.mark.parametrize("where", ["step", "score"])
def test_running_out_of_memory_is_met_with_advice(learner: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str) -> None:
    found = learner()
    before = weights_of(found)
    forward = found.network.classifier.forward

    def fail(images: torch.Tensor) -> torch.Tensor:
        if found.network.classifier.training == (where == "step"):
            raise error
        result: torch.Tensor = forward(images)
        return result

    monkeypatch.setattr(found.network.classifier, "forward", fail)
    with pytest.raises(ResourceError, match=r"8 images of 32x32 .*-s training\.batch_size=4.*pixels\.height"):
        found.try_batches(timed=True)
    monkeypatch.undo()
    assert same(weights_of(found), before)
    assert all(weight.grad is None for weight in found.network.classifier.parameters())


def test_other_errors_are_not_taken_for_a_lack_of_memory(learner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = learner()

    def fail(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(found.network.classifier, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        found.try_batches(timed=False)
    assert not isinstance(caught.value, ResourceError)
    assert not is_out_of_memory(caught.value)


def test_frozen_layers_stay_frozen(learner: Any) -> None:
    found = learner()
    found.network.classifier.backbone.requires_grad_(False)
    before = {name: weight.clone() for name, weight in found.network.classifier.backbone.named_parameters()}
    found.run(Plan(3, 3))
    assert all(torch.equal(weight, before[name]) for name, weight in found.network.classifier.backbone.named_parameters())


def test_rows_are_read_through_the_index_of_the_pixels(learner: Any, make_samples: Any) -> None:
    """The same rows in another storage order: the same fit."""
    samples = make_samples()
    order = np.random.default_rng(0).permutation(48)
    place = np.argsort(order)
    moved = replace(samples, pixels=replace(samples.pixels, array=samples.pixels.array[order], index=place))
    first, second = learner(samples), learner(moved)
    for found in (first, second):
        found.run(Plan(5, 2))
    assert same(weights_of(first), weights_of(second))
    assert numbers(first) == numbers(second)


def test_batch_norm_learns_its_averages(learner: Any) -> None:
    found = learner(validation=NOTHING)
    norm = next(module for module in found.network.classifier.modules() if isinstance(module, nn.BatchNorm2d))
    found.run(Plan(4, 2))
    assert int(norm.num_batches_tracked) == 4  # type: ignore[arg-type]
    assert norm.running_mean is not None
    assert norm.running_mean.abs().max() > 0
