"""The page of a comparison at 24 runs: complete, and no label over another."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from coverslip.report.study import compare_figures as figures
from coverslip.report.study import write_study_report
from coverslip.report.study.compare import COLUMNS, _table
from coverslip.report.study.files import read_study
from unit.report.study.make_study import make_study
from unit.report.test_page import Page as Parsed


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("studies") / "gel")


def overlaps(drawing: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of a drawing whose boxes meet."""
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()
    texts = [one for one in drawing.findobj(Text) if one.get_visible() and one.get_text().strip()]
    boxes = [(one.get_text(), one.get_window_extent(canvas.get_renderer())) for one in texts]
    return [
        (a, b) for (a, here), (b, there) in itertools.combinations(boxes, 2) if here.shrunk(0.98, 0.9).overlaps(there.shrunk(0.98, 0.9))
    ]


def test_the_page_tells_all(study: Path) -> None:
    text = write_study_report(study).read_text(encoding="utf-8")
    page = Parsed(text)
    assert not page.problems
    assert len(set(page.ids)) == len(page.ids)
    titles = ["All runs", "Accuracy with intervals", "Time and accuracy", "The best run", "Learning curves", "Is the difference real?"]
    assert re.findall(r"<h2>([^<]*)</h2>", text)[: len(titles)] == titles
    assert "is the best of 24 runs" in text
    assert text.count("vgg16") > 10
    assert len(re.findall('class="right">(?:not told apart|worse)<', text)) == 23
    assert "coverslip compare gel --grid gel-24" in text


def test_runs_that_were_not_made_are_listed_with_their_reason(tmp_path: Path) -> None:
    text = write_study_report(make_study(tmp_path / "gel", absent=("gpu",))).read_text(encoding="utf-8")
    assert "is the best of 12 runs" in text
    assert text.count(">not run<") == 12 + 1
    assert "no such thing here" in text
    assert "12 of 24" in text


def test_the_best_run_is_shown_on_what_judged_it_where_others_were_judged_on_folds(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "gel")
    table = pd.read_csv(folder / "results.csv")
    assert table["verdict"].iloc[0] != "best"
    table.loc[0, "judged_on"] = "folds"
    table.to_csv(folder / "results.csv", index=False)
    text = write_study_report(folder).read_text(encoding="utf-8")
    assert re.search(r"gpu-resnet18-single-adam</span>, on the test part\.", text)
    assert ">Confusion matrix<" in text
    assert "out-of-fold predictions and the test part" in text


@pytest.mark.parametrize(("kept", "said"), [(0, True), (20, False)])
def test_a_model_from_before_the_first_step_is_named(tmp_path: Path, kept: int, said: bool) -> None:
    folder = make_study(tmp_path / "gel")
    steps = np.arange(0, 21)
    history = pd.DataFrame({"fold": "", "phase": "all", "step": steps, "epoch": steps / 3, "train_loss": 1.0, "kept": ""})
    history.loc[history["step"] == kept, "kept"] = "True"
    history.to_csv(folder / "runs" / "cpu-vgg16-single-adam" / "history.csv", index=False)
    text = write_study_report(folder).read_text(encoding="utf-8")
    words = "Kept the weights from before the first step, for no later ones did better on the validation part: cpu-vgg16-single-adam."
    assert (words in text) == said


def test_no_label_lies_over_another(study: Path) -> None:
    table = _table(read_study(study))
    assert len(table) == 24
    steps = pd.Series(range(1, 41), dtype=float)
    history = pd.DataFrame({"epoch": steps / 2, "train_loss": 1 / steps})
    curves = {network: dict.fromkeys(rows["model_id"], history) for network, rows in table.groupby("pretrained_model")}
    drawings = {
        "heatmap": figures.heatmap(table, COLUMNS, "cpu-vgg16-multi-sgd"),
        "bars": figures.bars(table.sort_values("accuracy", ascending=False), "accuracy", "accuracy"),
        "time": figures.time_and_number(table, "accuracy", "accuracy"),
        "losses": figures.losses(curves, "cpu-vgg16-multi-sgd"),
    }
    assert {name: overlaps(drawing) for name, drawing in drawings.items()} == {name: [] for name in drawings}
    wide = table.assign(model_id=[f"a-very-long-name-of-a-backbone-with-many-settings-and-a-number-{i}" for i in range(24)])
    assert overlaps(figures.heatmap(wide, COLUMNS, "")) == []
    assert overlaps(figures.bars(wide, "accuracy", "accuracy")) == []


def test_the_better_of_a_column_is_the_stronger() -> None:
    even, decades = np.array([0.5, 0.7, 0.9]), np.array([1.0, 10.0, 100.0])
    for values, logarithmic in ((even, False), (decades, True)):
        rising = figures._strengths(values, rising=True, logarithmic=logarithmic)
        np.testing.assert_allclose(rising, [0, 0.5, 1], atol=1e-9)
        np.testing.assert_allclose(figures._strengths(values, rising=False, logarithmic=logarithmic), rising[::-1], atol=1e-9)


def test_a_study_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('kind = "compare"\ncommand = "coverslip compare"\n')
    assert "not finished" in write_study_report(tmp_path).read_text(encoding="utf-8")
