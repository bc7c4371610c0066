"""Runs of a study share their data, and give what they give alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from coverslip.config import RunConfig, with_values
from coverslip.experiment import run
from coverslip.preparing import preparation_key
from coverslip.study.jobs import Job, perform, shared_data
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
