"""Runs of a study share their data, and give what they give alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coverslip.config import RunConfig, with_values
from coverslip.experiment import run
from coverslip.preparing import preparation_key
from coverslip.study.jobs import Job, perform, shared_data
from coverslip.study.verdict import rank
from unit.study.make_config import tiny_config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return tiny_config(tmp_path_factory.mktemp("data"))


def test_a_job_gives_the_numbers_of_a_run_alone(config: RunConfig, tmp_path: Path) -> None:
    shared_data(config)
    other = with_values(config, training={"learning_rate": 0.01})
    result = perform(Job("a", other, tmp_path / "job"))
    alone = run(other, tmp_path / "alone")
    assert result.metrics == alone.metrics
    assert (tmp_path / "job" / "config.toml").read_text() == (tmp_path / "alone" / "config.toml").read_text()
    assert not (tmp_path / "job" / "pictures").exists()


def test_data_is_prepared_once_for_configs_that_agree(config: RunConfig) -> None:
    other = with_values(config, training={"optimizer": "sgd"}, model={"head": "multi"})
    assert preparation_key(config) == preparation_key(other)
    assert shared_data(config) is shared_data(other)
    assert preparation_key(config) != preparation_key(with_values(config, split={"seed": 1}))
    assert preparation_key(config) != preparation_key(with_values(config, pixels={"height": 40, "width": 40}))


def test_a_finished_job_is_read_and_not_made_again(config: RunConfig, tmp_path: Path) -> None:
    first = perform(Job("a", config, tmp_path / "job"))
    written = (tmp_path / "job" / "metrics.json").stat().st_mtime_ns
    assert perform(Job("a", config, tmp_path / "job")).metrics == first.metrics
    assert (tmp_path / "job" / "metrics.json").stat().st_mtime_ns == written


def test_a_frozen_backbone_is_shared_and_changes_nothing(config: RunConfig, tmp_path: Path) -> None:
    probe = {"regime": "probe", "optimizer": "adam", "views": 2, "epochs": 2}
    for number, head in enumerate(("single", "multi")):
        asked = with_values(config, training=probe, model={"head": head}, augment={"noise": 0.2})
        result = perform(Job(head, asked, tmp_path / head, time_inference=True))
        alone = run(asked, tmp_path / f"{head}-alone")
        assert result.metrics == alone.metrics
        times = json.loads((tmp_path / head / "timing.json").read_text())
        assert times["inference_images"] == result.metrics["test"]["n"]
        assert min(times["inference_seconds"], times["training_seconds"], times["features_seconds"]) > 0
        assert times["prediction_images_per_second"] is None, "features were cached"
        assert "a baseline, no model to use" in (tmp_path / head / "environment.json").read_text()
        assert number == 0 or "inference_images" not in (tmp_path / f"{head}-alone" / "timing.json").read_text()


def test_only_a_run_that_leads_keeps_its_model(config: RunConfig, tmp_path: Path) -> None:
    first = perform(Job("a", config, tmp_path / "a", bundle="best"))
    assert (tmp_path / "a" / "bundle").is_dir()
    reached = rank(first.metrics)
    behind = Job("b", config, tmp_path / "b", bundle="best", beats=(reached[0] + 0.1, *reached[1:]))
    perform(behind)
    assert not (tmp_path / "b" / "bundle").exists()
    written = (tmp_path / "b" / "metrics.json").stat().st_mtime_ns
    perform(behind)
    assert (tmp_path / "b" / "metrics.json").stat().st_mtime_ns == written
    perform(Job("b", config, tmp_path / "b", bundle="best", beats=reached))
    assert (tmp_path / "b" / "bundle").is_dir()
    perform(Job("c", config, tmp_path / "c", bundle="none"))
    assert not (tmp_path / "c" / "bundle").exists()
