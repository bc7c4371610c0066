"""One measurement of each strategy on a few simulated gels, in this process; in processes of their own in tests/flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coverslip.errors import ConfigError, InputError
from coverslip.simulate import simulate
from coverslip.study import measuring, speeds
from coverslip.study.engines import LocalEngine
from coverslip.study.measuring import Task, measure, misfit
from coverslip.study.strategies import STRATEGIES, Material
from coverslip.study.velocity import MODELS, VelocityPlan, gather, measure_velocity, plan_velocity

MakePlan = Callable[..., VelocityPlan]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERSLIP_CACHE", str(tmp_path_factory.getbasetemp() / "velocity-cache"))
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.05)


@pytest.fixture(scope="module")
def gels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("gels", tmp_path_factory.mktemp("data") / "gels", images=12, seed=1)


@pytest.fixture
def make_plan(gels: Path) -> MakePlan:
    def make(pixels: dict[str, Any] | None = None, **asked: Any) -> VelocityPlan:
        layers = {"data": {"path": str(gels)}, "pixels": {"height": 32, **(pixels or {})}}
        return plan_velocity(layers, **{"models": ["small_30k"], "batch_sizes": [4], "seconds": 0.05, **asked})

    return make


@pytest.fixture
def material(make_plan: MakePlan) -> Material:
    return gather(make_plan())[0]


def test_every_strategy_gives_the_same_pixels(material: Material) -> None:
    rows = np.array([3, 0, 3, 11])
    batches = [strategy.read(material).read(rows) for strategy in STRATEGIES.values()]
    assert len(batches) == 5
    assert all(np.array_equal(batch, batches[0]) for batch in batches)
    assert batches[0].shape == (4, 32, 32, 1)
    assert material.image_bytes == 32 * 32


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_measurement_holds_all_numbers(material: Material, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speeds, "PATIENCE", float("inf"))  # however slow the machine, all the steps are taken
    row = measure(Task(material, "small_30k", strategy, 4, 0.05, latency=True))
    assert (row["status"], row["error"]) == ("ok", "")
    assert row["weights"] == 29_954
    assert row["images_per_second"] == pytest.approx(4000 / row["step_milliseconds"])
    assert 0 < row["waiting_share"] < 1
    assert row["step_low"] <= row["step_milliseconds"] <= row["step_high"]
    assert row["steps"] >= 3
    assert row["peak_memory_megabytes"] >= row["idle_memory_megabytes"] > 50
    assert 0 < row["latency_milliseconds"] <= row["latency_p95_milliseconds"]
    assert 0 < row["batch_latency_milliseconds"] <= row["batch_latency_p95_milliseconds"]


def test_a_batch_may_hold_more_images_than_there_are(material: Material) -> None:
    row = measure(Task(material, "small_30k", "disk", 40, 0.05))
    assert row["images_per_second"] == pytest.approx(40_000 / row["step_milliseconds"])


def test_preparing_computes_features_and_measures_nothing(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    row = measure(Task(material, "small_30k", "features", 4, 0.05, prepare=True))
    assert "images_per_second" not in row
    monkeypatch.setattr("coverslip.network.Network.features", None)  # they are in the cache
    assert measure(Task(material, "small_30k", "features", 8, 0.05))["status"] == "ok"


def test_what_would_not_fit_is_said_before_it_is_tried(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "free_memory", lambda: 1_000_000)
    row = measure(Task(material, "small_200k", "disk", 4, 0.05))
    assert row["status"] == "too large"
    assert row["error"].startswith("needs about 0.0 GB to train 4 images a step, and 0.0 GB are free")
    assert row["weights"] > 180_000
    assert measure(Task(material, "small_200k", "features", 4, 0.05))["status"] == "ok"  # only the head learns


def test_the_estimate_is_the_summarys_with_half_the_activations_in_bfloat16(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(material, "small_30k", "disk", 100, 0.05)
    network = measuring._network(task, measuring.config_of(task))
    summary = measuring.summarise(network.classifier, (32, 32), 1, batch_size=100)
    fixed = 4 * 4 * summary.weights + summary.weight_bytes - 4 * summary.weights  # weights, gradients, two moments; buffers once
    for precision, share in (("32", 1.0), ("bf16", 0.5)):
        needed = fixed + 100 * share * summary.activation_bytes
        monkeypatch.setattr(measuring, "free_memory", lambda needed=needed: needed)
        assert misfit(summary, replace(network, precision=precision)) == ""
        monkeypatch.setattr(measuring, "free_memory", lambda needed=needed: needed - 1)
        assert misfit(summary, replace(network, precision=precision)) != ""


def test_running_out_of_memory_is_a_row(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("coverslip.training.loop.make_batch", fail)
    row = measure(Task(material, "small_30k", "disk", 4, 0.05))
    assert row["status"] == "out of memory"
    assert "Tried to allocate 2 GiB" in row["error"]


def test_the_study_is_written_and_what_cannot_be_built_is_a_row(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan({"width": 40}, models=["small_30k", "vit_tiny_patch16_224"], strategies=["none", "features"])
    told = []

    def note(stage: str, done: int, total: int, _: object) -> None:
        told.extend([(done, total)] if stage == "measuring" else [])

    rows, advice = measure_velocity(plan, tmp_path / "study", engine=LocalEngine(), progress=note)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert list(rows["status"]) == ["ok", "ok", "failed", "failed"]
    assert "patches of 16x16" in rows["error"].iloc[2]
    assert rows["latency_milliseconds"].notna().tolist() == [True, True, False, False]
    assert [choice.model for choice in advice.choices] == ["small_30k", "vit_tiny_patch16_224"]
    assert advice.choices[0].strategy == "none"
    assert {path.name for path in (tmp_path / "study").iterdir()} >= {
        "study.toml", "environment.json", "results.csv", "results.parquet", "verdict.json",
    }  # fmt: skip


def test_images_that_cannot_be_read_are_left_out(gels: Path, tmp_path: Path, make_plan: MakePlan) -> None:
    for name in ("gel", "not_gel"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bad.png").write_text("no image")
    plan = plan_velocity({"data": {"path": str(tmp_path)}, "pixels": {"height": 32}})
    with pytest.raises(InputError, match="of 2 images only 0 can be read"):
        gather(plan)
    for number, file in enumerate(sorted(gels.rglob("*.png"))[:3]):
        (tmp_path / "gel" / f"{number}.png").write_bytes(file.read_bytes())
    material, around = gather(plan)
    assert len(material.samples) == around.measured == 3
    assert around.images == 5


# The plan -------------------------------------------------------------------------------------------------------------


def test_a_plan_names_every_combination_once_and_in_order(make_plan: MakePlan) -> None:
    plan = make_plan(models=["small_30k", "small_200k", "small_30k"], batch_sizes=[8, 2, 8], strategies=["none", "disk"])
    assert plan.combinations == [
        (model, strategy, size) for model in ("small_30k", "small_200k") for strategy in ("none", "disk") for size in (2, 8)
    ]


def test_models_come_from_the_list_then_from_the_config_then_by_default(gels: Path) -> None:
    data = {"data": {"path": str(gels)}}
    assert plan_velocity(data).models == MODELS
    assert plan_velocity(data, {"model": {"backbone": "resnet18"}}).models == ("resnet18",)
    assert plan_velocity(data, {"model": {"backbone": "resnet18"}}, models=["small_30k"]).models == ("small_30k",)


def test_steps_are_those_of_a_run_that_trains_all_layers(gels: Path) -> None:
    data = {"data": {"path": str(gels)}}
    assert plan_velocity(data).config.augment.horizontal_flip
    assert plan_velocity(data).config.training.ema > 0
    probe = {"training": {"regime": "probe", "optimizer": "exact", "ema": 0.0}, "augment": {"horizontal_flip": False}}
    config = plan_velocity(probe, data).config
    assert (config.training.regime, config.training.optimizer, config.training.ema) == ("scratch", "adamw", 0.0)
    assert not config.augment.horizontal_flip


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"models": ["resnt18"]}, "Did you mean 'resnet18'"),
        ({"models": []}, "no model"),
        ({"batch_sizes": [8, 0]}, "a batch size of 0"),
        ({"batch_sizes": []}, "no batch size"),
        ({"strategies": ["dsk"]}, "Did you mean 'disk'"),
        ({"strategies": []}, "no strategy"),
        ({"seconds": 0.0}, "0 seconds"),
        ({"pixels": {"width": 48}, "augment": {"quarter_turns": True}}, "square"),
        ({"training": {"batch_size": 4}}, "--batch-sizes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_plan_is_refused_before_any_work(asked: dict[str, Any], said: str) -> None:
    keywords = {name: value for name, value in asked.items() if name in ("models", "batch_sizes", "strategies", "seconds")}
    layer = {name: value for name, value in asked.items() if name not in keywords}
    with pytest.raises(ConfigError, match=said):
        plan_velocity({"data": {"path": "nowhere"}, "pixels": {"height": 32}}, layer, **keywords)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_velocity(models=["resnt18", "resnt50"], batch_sizes=[0], strategies=["dsk"], seconds=-1)
    assert len(caught.value.problems) == 5
