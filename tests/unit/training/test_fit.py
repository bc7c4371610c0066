import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import coverslip.training.fit
import coverslip.training.loop
from coverslip.config import load_config, with_values
from coverslip.errors import InputError
from coverslip.training import extractor
from coverslip.training.fit import Fitted, fit, loss_weights, probe_views
from coverslip.training.plan import MANY_MORE, Pace, Plan, Trial, make_plan

TRAIN, VALIDATION = np.arange(32), np.arange(32, 48)
NO_TRIAL = Trial(float("nan"), float("nan"))
PROBE = {"training": {"regime": "probe", "optimizer": "exact"}}
FINETUNE = {"training": {"regime": "finetune", "steps": 8, "frozen_epochs": 2}}
LOADED = {**FINETUNE, "model": {"weights": "pretrained"}}
"""As if the backbone had been loaded: one that knows nothing gets no head of its own first."""


def weights_of(network: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.classifier.state_dict().items()}


def share_right(network: Any, samples: Any) -> float:
    scores = network.scores([samples.pixels.read(VALIDATION)])
    return float((scores.argmax(axis=1) == samples.targets[VALIDATION]).mean())


# How long -------------------------------------------------------------------------------------------------------------


def plan(**training: Any) -> Any:
    rows, validation = training.pop("rows", 100), training.pop("validation", 20)
    trial, left, looks = training.pop("trial", NO_TRIAL), training.pop("left", None), training.pop("looks", None)
    return make_plan(load_config({"training": training}), rows, validation, trial, left, looks)


def test_epochs_become_steps() -> None:
    assert plan(epochs=5, batch_size=32, rows=320) == Plan(50, 10)
    assert plan(epochs=5, batch_size=32, rows=330) == Plan(50, 10)
    assert plan(epochs=5, batch_size=32, rows=20) == Plan(5, 1)
    assert plan(epochs=5, batch_size=32, steps_per_epoch=50, rows=20) == Plan(250, 50)


def test_steps_take_the_place_of_epochs_and_minutes() -> None:
    assert plan(epochs=5, steps=7, batch_size=10) == Plan(7, 10)
    assert plan(minutes=3.0, steps=7, batch_size=10, left=180.0) == Plan(7, 10)


def test_looks_are_spread_over_the_whole_fit_and_change_nothing_but_the_looks() -> None:
    assert plan(epochs=5, batch_size=32, rows=320, looks=8) == Plan(50, 7)
    assert plan(steps=7, looks=8) == Plan(7, 1)
    assert plan(steps=64, looks=8) == Plan(64, 8)
    found = plan(trial=Trial(0.1, 0.01), validation=50, left=20.0, looks=4)
    assert found.steps * 0.1 + 4 * 50 * 0.01 == pytest.approx(20.0 * 0.96, abs=0.1)


@given(
    st.floats(1e-4, 2), st.floats(0, 0.1), st.integers(1, 5000), st.integers(0, 2000), st.integers(1, 64), st.floats(1, 10_000),
)  # fmt: skip
def test_a_budget_is_filled_and_not_overrun(step: float, score: float, rows: int, validation: int, batch: int, left: float) -> None:
    found = plan(batch_size=batch, rows=rows, validation=validation, trial=Trial(step, score), left=left)
    looks = found.steps / found.steps_per_epoch
    cost = found.steps * step + looks * validation * score
    one = step + validation * score / found.steps_per_epoch
    assert found.steps >= 1
    assert cost <= max(left, one * 1.001)
    assert cost + one > 0.95 * left


def test_a_budget_in_numbers() -> None:
    found = plan(batch_size=10, rows=100, validation=20, trial=Trial(0.1, 0.01), left=100.0)
    assert found == Plan(int(0.96 * 100 / (0.1 + 0.02)), 10)


def test_a_budget_that_is_gone_still_takes_one_step() -> None:
    assert plan(batch_size=10, trial=Trial(0.1, 0.0), left=-3.0).steps == 1


# Class weights --------------------------------------------------------------------------------------------------------


def test_class_weights_in_closed_form() -> None:
    targets = np.repeat([0, 1, 2], [4, 16, 1])
    assert loss_weights(targets, 3, "none").tolist() == [1, 1, 1]
    np.testing.assert_allclose(loss_weights(targets, 3, "balanced"), [21 / 12, 21 / 48, 21 / 3])
    np.testing.assert_allclose(loss_weights(targets, 3, "root"), np.array([1 / 2, 1 / 4, 1]) * 21 / (2 + 4 + 1))


@pytest.mark.parametrize("kind", ["none", "balanced", "root"])
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_class_weights_have_mean_one_over_the_images(kind: str, targets: list[int]) -> None:
    weights = loss_weights(np.array(targets), 6, kind)
    assert weights[targets].mean() == pytest.approx(1)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_balanced_classes_weigh_the_same_in_all(targets: list[int]) -> None:
    weights = loss_weights(np.array(targets), 5, "balanced")
    totals = [weights[label] * targets.count(label) for label in set(targets)]
    assert totals == pytest.approx([totals[0]] * len(totals))


# Regimes --------------------------------------------------------------------------------------------------------------


def test_scratch_learns(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config, samples = make_config(training={"epochs": 12}), make_samples()
    network = make_network(config)
    plans: list[Plan] = []
    found = fit(network, samples, TRAIN, VALIDATION, config, on_plan=plans.append)
    assert share_right(network, samples) > 0.9
    assert plans == [Plan(48, 4)]
    assert found.steps == 48
    assert found.network.classifier is network.classifier
    assert found.images_per_second > 0
    np.testing.assert_array_equal(found.scores(samples, VALIDATION), network.for_use().scores([samples.pixels.read(VALIDATION)]))


@pytest.mark.parametrize("sections", [{}, PROBE])
def test_what_learned_in_bfloat16_is_judged_in_float32(make_config: Any, make_network: Any, make_samples: Any, sections: Any) -> None:
    config, samples = make_config(**sections), make_samples(level=40.0)
    network = make_network(config)
    network.precision = "bf16"
    found = fit(network, samples, TRAIN, VALIDATION, config)
    assert (network.precision, found.network.precision) == ("bf16", "32")
    exact = network.for_use().scores([samples.pixels.read(VALIDATION)])
    np.testing.assert_allclose(found.scores(samples, VALIDATION), exact, atol=0.0 if not sections else 0.02)


def test_a_probe_changes_the_head_and_nothing_else(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config, samples = make_config(**PROBE), make_samples(level=40.0)
    network = make_network(config)
    before = weights_of(network)
    found = fit(network, samples, TRAIN, VALIDATION, config)
    after = weights_of(network)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}
    assert share_right(network, samples) > 0.9
    assert found.steps is None
    np.testing.assert_allclose(found.scores(samples, VALIDATION), network.scores([samples.pixels.read(VALIDATION)]), atol=1e-5)


def test_the_scores_of_a_probe_are_averaged_over_its_test_time_copies(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config, samples = make_config(**{**PROBE, "training": {**PROBE["training"], "tta": "turns"}}), make_samples()
    network = make_network(config)
    found = fit(network, samples, TRAIN, VALIDATION, config)
    np.testing.assert_allclose(found.scores(samples, VALIDATION), network.for_use().scores([samples.pixels.read(VALIDATION)]), atol=1e-9)


@pytest.mark.parametrize("head", ["multi", [16]])
def test_a_probe_with_hidden_layers_learns_by_steps_on_augmented_views(
    make_config: Any, make_network: Any, make_samples: Any, head: Any
) -> None:
    sections = {
        "model": {"head": head},
        "training": {"regime": "probe", "views": 2, "epochs": 30, "learning_rate": 0.01},
        "augment": {"noise": 0.3},
    }
    config, samples = make_config(**sections), make_samples(level=40.0)
    network = make_network(config)
    before = weights_of(network)
    seen: list[str] = []
    found = fit(network, samples, TRAIN, VALIDATION, config, progress=lambda stage, *_: seen.append(stage))
    assert share_right(network, samples) > 0.75
    assert found.history[-1]["step"] == 30 * 4
    assert seen.count("features") == 3
    assert all(torch.equal(tensor, network.classifier.state_dict()[name]) for name, tensor in before.items() if name.startswith("backbone"))


def test_finetuning_starts_from_a_solved_head(make_config: Any, make_network: Any, make_samples: Any) -> None:
    samples = make_samples()
    probe = make_network(make_config(**PROBE))
    fit(probe, samples, TRAIN, VALIDATION, make_config(**PROBE))
    config = make_config(**LOADED)
    network = make_network(make_config(**FINETUNE))
    before = weights_of(network)
    found = fit(network, samples, TRAIN, VALIDATION, config)
    start = found.history[0]
    targets = samples.targets[VALIDATION]
    scores = probe.scores([samples.pixels.read(VALIDATION)])
    assert start["step"] == 0
    assert start["validation_loss"] == pytest.approx(-np.log(scores[np.arange(16), targets]).mean(), rel=1e-3)
    assert found.steps == 8
    if [row["step"] for row in found.history if row.get("kept")][-1]:
        assert not torch.equal(before["backbone.network.stem.0.weight"], weights_of(network)["backbone.network.stem.0.weight"])


def test_finetuning_with_hidden_layers_trains_the_head_first(make_config: Any, make_network: Any, make_samples: Any) -> None:
    bare = make_config(**{**FINETUNE, "model": {"head": [16]}})
    config = make_config(**{**FINETUNE, "model": {"head": [16], "weights": "pretrained"}})
    found = fit(make_network(bare), make_samples(), TRAIN, VALIDATION, config)
    phases = [row["phase"] for row in found.history]
    assert phases == sorted(phases, key=["head", "all"].index)
    assert phases.count("head") == 2 * 4
    assert found.history[-1]["step"] == 8


def test_no_frozen_epochs_or_no_weights_leave_the_head_as_it_was(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config = make_config(**{**LOADED, "training": {**FINETUNE["training"], "frozen_epochs": 0}})
    for sections in (config, make_config(**FINETUNE)):
        seen: list[str] = []
        fit(make_network(make_config()), make_samples(), TRAIN, VALIDATION, sections, progress=lambda stage, *_: seen.append(stage))  # noqa: B023
        assert "features" not in seen
        assert "head" not in seen


class Clock:
    """Tells seconds that go by only when it is told so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(20, 400), st.lists(st.floats(0.05, 20.0), min_size=1, max_size=8))
def test_a_pace_keeps_the_budget_whatever_the_steps_come_to_take(planned: int, costs: list[float]) -> None:
    """Steps planned for a second each, of which some take less and some much more."""
    clock, taken, steps = Clock(), 0, planned
    pace = Pace(planned, float(planned), clock)
    pace.start()
    while taken < steps:
        clock.now += costs[min(taken * len(costs) // planned, len(costs) - 1)]
        taken += 1
        steps = pace.ask(taken) if taken < steps else steps
        assert taken <= steps
    assert clock.now <= planned + 2 * max(costs)
    if len(set(costs)) == 1:
        assert clock.now > planned * 0.96 / MANY_MORE - 2 * costs[0]
    if all(0.9 < cost <= 1.0 for cost in costs):
        assert steps == planned


def test_a_pace_concludes_nothing_from_a_slow_beginning_and_takes_back_what_it_concluded() -> None:
    clock = Clock()
    pace = Pace(100, 100.0, clock)
    clock.now = 5.0  # the first look at the validation part
    pace.start()
    found, taken = [], 0
    while taken < pace.steps:
        taken += 1
        clock.now += 3.0 if taken <= 2 else 2.0 if taken <= 20 else 0.6
        found.append(pace.ask(taken))
    assert set(found[:3]) == {100}
    assert min(found) < 60
    assert taken > 1.4 * min(found)
    assert 100 * 0.96 / MANY_MORE**2 < clock.now <= 101


def test_steps_that_were_timed_on_a_busy_machine_become_more() -> None:
    clock, taken = Clock(), 0
    pace = Pace(40, 100.0, clock)
    pace.start()
    while taken < pace.steps:
        taken += 1
        clock.now += 0.5
        pace.ask(taken)
    assert pace.steps == pytest.approx(192, abs=10)


@pytest.mark.parametrize("sections", [PROBE, LOADED])
def test_one_class_only_is_refused(make_config: Any, make_network: Any, make_samples: Any, sections: dict[str, Any]) -> None:
    config = make_config(**sections)
    with pytest.raises(InputError, match="one class only"):
        fit(make_network(make_config()), make_samples(), np.arange(0, 32, 2), VALIDATION, config)


# Budgets and resuming -------------------------------------------------------------------------------------------------


def test_a_budget_becomes_steps_that_are_told_and_repeated(
    make_config: Any, make_network: Any, make_samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverslip.training.fit, "Pace", partial(Pace, clock=Clock()))  # no step is slower than it was timed
    samples, plans = make_samples(), []
    config = make_config(training={"minutes": 0.02})
    first = make_network(config)
    found = fit(first, samples, TRAIN, VALIDATION, config, minutes=0.02, on_plan=plans.append)
    assert found.steps == plans[0].steps > 1
    assert found.seconds < 6
    stated = make_config(training={"minutes": 0.02, "steps": plans[0].steps})
    again = make_network(stated)
    fit(again, samples, TRAIN, VALIDATION, stated, minutes=0.02)
    assert all(torch.equal(tensor, weights_of(again)[name]) for name, tensor in weights_of(first).items())


def test_a_machine_that_becomes_slow_makes_a_budget_fewer_steps(
    make_config: Any, make_network: Any, make_samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, samples, plans = Clock(), make_samples(), []
    config = make_config(training={"minutes": 0.02, "schedule": "onecycle"})

    def tick(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        clock.now += 100.0 / (plans[0].steps // 2) * (stage == "training")  # half as many steps as planned

    monkeypatch.setattr(coverslip.training.fit, "Pace", lambda planned, seconds: Pace(planned, 100.0, clock))
    found = fit(make_network(config), samples, TRAIN, VALIDATION, config, minutes=0.02, on_plan=plans.append, progress=tick)
    assert found.steps == plans[-1].steps == pytest.approx(plans[0].steps / 2, abs=1 + plans[0].steps // 50)
    assert found.history[-1]["learning_rate"] == pytest.approx(0, abs=0.01 * config.training.learning_rate)
    assert "validation_loss" in found.history[-1]
    assert f"{found.steps} steps in place of {plans[0].steps}: the machine became slower" in found.note
    later = fit(
        make_network(config), samples, TRAIN, VALIDATION, with_values(config, training={"steps": plans[0].steps}),
        minutes=0.02, keep_time=True, progress=tick,
    )  # fmt: skip
    assert later.steps == pytest.approx(plans[0].steps / 2, abs=1 + plans[0].steps // 50)


@pytest.mark.parametrize("head", ["single", [16]])
def test_finetuning_goes_on_after_an_interruption(
    make_config: Any, make_network: Any, make_samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: Any
) -> None:
    monkeypatch.setattr(coverslip.training.loop, "SHORT_EPOCH_SECONDS", 0.0)
    config, samples = make_config(**{**FINETUNE, "model": {"head": head}}), make_samples()

    def stop(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if stage == "training" and done == 6:
            raise KeyboardInterrupt

    unbroken, broken, resumed = (make_network(config) for _ in range(3))
    whole = fit(unbroken, samples, TRAIN, VALIDATION, config)
    checkpoint = tmp_path / "fit.ckpt"
    with pytest.raises(KeyboardInterrupt):
        fit(broken, samples, TRAIN, VALIDATION, config, checkpoint=checkpoint, progress=stop)
    rest = fit(resumed, samples, TRAIN, VALIDATION, config, checkpoint=checkpoint)
    assert all(torch.equal(tensor, weights_of(resumed)[name]) for name, tensor in weights_of(unbroken).items())
    timeless = [
        [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.history] for run in (whole, rest)
    ]
    assert timeless[0] == timeless[1]
    assert rest.steps == whole.steps == 8


def test_the_speed_counts_the_steps_that_were_taken(
    make_config: Any, make_network: Any, make_samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit that patience stops early is not made faster by the steps that it left out."""
    config = make_config(training={"patience": 1, "learning_rate": 1.0, "optimizer": "sgd", "schedule": "constant", "steps": 100_000})
    found = fit(make_network(config), make_samples(), TRAIN, VALIDATION, config)
    assert found.steps is not None
    assert found.steps < 200
    assert found.images_per_second <= found.steps * 8 / sum(row.get("seconds", 0.0) for row in found.history) * 1.01


def test_batches_are_no_larger_than_the_data(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config = make_config(training={"batch_size": 500, "epochs": 2})
    found = fit(make_network(config), make_samples(), TRAIN, VALIDATION, config)
    assert found.steps == 2


def test_as_many_views_as_epochs_are_one_an_epoch_and_never_the_original(make_config: Any) -> None:
    def asked(**training: Any) -> list[int]:
        settings = {"regime": "probe", "views": 3, "epochs": 3, "optimizer": "adam", **training}
        return list(probe_views(make_config(training=settings, augment={"noise": 0.3})))

    assert asked() == [1, 2, 3]
    for other in ({"epochs": 4}, {"optimizer": "exact"}, {"steps": 9}, {"steps_per_epoch": 2}):
        assert asked(**other) == [0, 1, 2, 3], other
    plain = make_config(training={"regime": "probe", "views": 3, "epochs": 3})
    assert list(probe_views(plain)) == [0]


def test_a_probe_knows_what_its_features_took_whoever_computed_them(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config, samples = make_config(**PROBE), make_samples()
    first, second = (fit(make_network(config), samples, TRAIN, VALIDATION, config) for _ in range(2))
    assert first.features is not None
    assert second.features is not None
    assert first.features.seconds == second.features.seconds
    assert len(first.features.seconds) == 1
    assert 0 < sum(first.features.seconds.values()) <= first.features_seconds


def test_the_views_count_when_it_is_asked_what_computes_the_features(
    make_config: Any, make_network: Any, make_samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """48 images of 32x32: enough for OpenVINO once four augmented views of each come on top, in a probe; not for the first head alone."""
    monkeypatch.setattr(extractor, "WORTH_PREPARING", 5 * 48 * 32 * 32)
    samples, flips = make_samples(), {"augment": {"horizontal_flip": True}}

    def runtime(**sections: Any) -> str:
        config = make_config(**sections)
        return "".join(by.runtime for by in fit(make_network(make_config()), samples, TRAIN, VALIDATION, config).features_by)

    assert runtime(**PROBE, **flips) == "openvino"
    assert runtime(**PROBE) == "torch"
    assert runtime(**LOADED, **flips) == "torch"
    assert runtime(training={**LOADED["training"], "runtime": "openvino"}, model=LOADED["model"]) == "openvino"
    assert runtime(training={"regime": "scratch", "steps": 1, "runtime": "openvino"}) == ""


def test_the_time_of_inference_is_that_of_the_whole_network(make_config: Any, make_network: Any, make_samples: Any) -> None:
    config, samples = make_config(**PROBE), make_samples()
    images, seconds = fit(make_network(config), samples, TRAIN, VALIDATION, config).time_scores(samples, VALIDATION, {})
    assert images == len(VALIDATION)
    assert seconds > 0


def test_runs_that_share_a_frozen_backbone_time_it_once(
    monkeypatch: pytest.MonkeyPatch, make_config: Any, make_network: Any, make_samples: Any
) -> None:
    config, samples, known = make_config(**PROBE), make_samples(), dict[str, float]()
    first, second = (fit(make_network(config), samples, TRAIN, VALIDATION, config) for _ in range(2))
    looked: list[object] = []
    monkeypatch.setattr(Fitted, "_look", lambda *asked: looked.append(asked) or time.sleep(0.05))
    times = [one.time_scores(samples, VALIDATION, known)[1] for one in (first, first, second)]
    assert len(looked) == 2, "few images to warm up, then all"
    assert len(known) == 1
    assert min(times) >= 0.05, "the time of the backbone counts for each"
    first.time_scores(samples, VALIDATION[:1], known)
    assert len(known) == 2, "other images are other times"
