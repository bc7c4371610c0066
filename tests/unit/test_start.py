from __future__ import annotations

from pathlib import Path

import pytest

from coverslip.errors import ConfigError, InputError
from coverslip.simulate import simulate
from coverslip.start import begin, free_folder


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


def test_what_goes_on_is_the_last_of_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, kind in (("gel", "search"), ("gel-2", "compare"), ("gel-3", "search"), ("gel-4", "velocity")):
        (tmp_path / "studies" / name).mkdir(parents=True)
        (tmp_path / "studies" / name / "study.toml").write_text(f'kind = "{kind}"\n')
    assert free_folder("gel", resume=True, kind="search") == Path("studies/gel-3")
    assert free_folder("gel", resume=True, kind="compare") == Path("studies/gel-2")
    assert free_folder("gel", resume=False, kind="search") == Path("studies/gel-5")
    (tmp_path / "studies" / "cells").mkdir()  # stopped before it said what it is
    assert free_folder("cells", resume=True, kind="compare") == Path("studies/cells")
    (tmp_path / "studies" / "cells" / "study.toml").write_text('kind = "velocity"\n')
    with pytest.raises(InputError, match=r"no comparison to go on with: none of .*cells holds one"):
        free_folder("cells", resume=True, kind="compare")
    with pytest.raises(InputError, match=r"no run to go on with: .*cells does not exist"):
        free_folder("cells", resume=True)
