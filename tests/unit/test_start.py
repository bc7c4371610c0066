from __future__ import annotations

from pathlib import Path

import pytest

from coverslip.errors import ConfigError
from coverslip.simulate import simulate
from coverslip.start import begin


@pytest.fixture(scope="module")
def gels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate("gels", tmp_path_factory.mktemp("start") / "gels", images=12, seed=1)


def test_sections_are_seen_by_the_choice_of_a_recipe(gels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python gives as keywords counts as much as what the command line gives with -s."""
    monkeypatch.setenv("COVERSLIP_WEIGHTS", str(tmp_path))
    sections = {"training": {"minutes": 2.0, "regime": "scratch"}}
    by_keyword = begin(str(gels), recipe=None, settings=(), out=tmp_path / "run", resume=False, sections=sections)
    by_option = begin(
        str(gels), recipe=None, settings=["training.minutes=2.0", "training.regime=scratch"], out=tmp_path / "run", resume=False
    )
    assert by_keyword == by_option
    assert by_keyword.recipe == "auto-scratch"
    assert "2 minutes" in by_keyword.why
    assert by_keyword.config.training.minutes == 2.0


def test_sections_stand_over_recipe_and_settings(gels: Path, tmp_path: Path) -> None:
    start = begin(
        str(gels), recipe="quick", settings=["training.epochs=3", "training.batch_size=4"], out=tmp_path / "run", resume=False,
        sections={"training": {"epochs": 2}},
    )  # fmt: skip
    assert (start.config.training.epochs, start.config.training.batch_size) == (2, 4)
    assert start.config.model.backbone == "small_200k"


def test_unknown_sections_are_refused_with_the_near_name(gels: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'training'"):
        begin(str(gels), recipe="quick", settings=(), out=tmp_path / "run", resume=False, sections={"trainin": {"epochs": 2}})
