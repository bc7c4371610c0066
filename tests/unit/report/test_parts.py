"""The pure parts: curves, numbers, figures, pictures."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from coverslip.evaluation.decisions import reliability_curve
from coverslip.report import figures, numbers
from coverslip.report.curves import MOST_POINTS, precision_recall_points, roc_points
from coverslip.report.numbers import Shown
from coverslip.report.pictures import LARGE, Album
from coverslip.report.several_figures import ClassCurves, class_reliability, class_thresholds


@pytest.mark.parametrize("ties", [1, 10, 1000])
def test_areas_under_the_drawn_curves(ties: int) -> None:
    random = np.random.default_rng(ties)
    truth = random.random(300) < 0.3
    scores = np.round((truth * 0.3 + random.random(300)) * ties) / ties
    points = roc_points(truth, scores)
    assert points is not None
    assert np.trapezoid(points[1], points[0]) == pytest.approx(roc_auc_score(truth, scores))
    found = precision_recall_points(truth, scores)
    assert found is not None
    recall, precision = found
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(average_precision_score(truth, scores))
    assert recall[0] == 0
    assert recall[-1] == 1


def test_an_interval_that_begins_below_zero_is_no_row_of_dashes() -> None:
    assert Shown(0.5, 0.25, 0.75).interval == "0.250\u20130.750"
    assert Shown(-0.4, -1.0, -0.2).interval == "\u22121.000 to \u22120.200"
    assert Shown(0.1, None, None).interval == ""


def test_curves_of_one_outcome_are_not_drawn() -> None:
    scores = np.array([0.1, 0.9])
    assert roc_points(np.array([True, True]), scores) is None
    assert roc_points(np.array([False, False]), scores) is None
    assert precision_recall_points(np.array([False, False]), scores) is None


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    random = np.random.default_rng(0)
    truth, scores = random.random(50_000) < 0.5, random.random(50_000)
    points = roc_points(truth, scores)
    assert points is not None
    assert len(points[0]) <= MOST_POINTS
    assert (points[0][0], points[1][0], points[0][-1], points[1][-1]) == (0, 0, 1, 1)


def test_percent_never_rounds_up_to_certainty() -> None:
    assert numbers.percent(0.99996).startswith("99.996")
    assert numbers.percent(1.0) == "100\u00a0%"
    assert numbers.percent(0.0) == "0\u00a0%"
    assert numbers.decimal(-0.25) == "\u22120.250"
    assert numbers.decimal(None) == "undefined"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.034, "34 ms"),
        (0.0042, "4.2 ms"),
        (0.0997, "0.10 s"),
        (59.97, "1 min 00 s"),
        (3599.8, "1 h 00 min"),
        (7384, "2 h 03 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert numbers.duration(seconds).replace("\u00a0", " ") == text


def test_shortened_text_fits() -> None:
    for limit in range(9, 40):
        for size in range(1, 60):
            assert len(numbers.shorten("x" * size, limit)) <= limit


def drawn() -> dict[str, Figure]:
    known, unknown = Shown(0.9, 0.8, 1.0, "exact"), Shown(None)
    curve = (np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.9, 1.0]))
    names = [f"class {i}" for i in range(9)]
    history = pd.DataFrame({"step": [1, 2, 3], "phase": ["head", "all", "all"], "train_loss": [3.0, 2, 1], "learning_rate": [1.0, 1, 0]})
    scores = np.random.default_rng(0).dirichlet(np.ones(3), size=80)
    curve_table = pd.DataFrame({"images": [10, 100, 1000], "accuracy": [0.5, 0.7, 0.8], "low": [0.4, 0.6, 0.7], "high": [0.6, 0.8, 0.9]})
    return {
        "counts": figures.class_counts({"a": 3, "日本語 $x$ <b>": 0}),
        "history": figures.history(history, {"train_loss": "training"}, "loss", history.assign(fold=0)),
        "rate": figures.learning_rate(history),
        "roc": figures.roc(dict.fromkeys(names, curve), dict.fromkeys(names, known)),
        "recall": figures.precision_recall({"a": curve}, {"a": unknown}),
        "reliability": figures.reliability(reliability_curve(scores, scores.argmax(axis=1))),
        "classes": figures.per_class({"F1": {"a": known, "b": unknown, "c": None}}),
        "folds": figures.folds({"Accuracy": [(0, 0.9), (1, 1.0)]}, {"Accuracy": known}),
        "curve": figures.learning_curve(curve_table),
        "stages": figures.stages({"fit": 3.2, "save_all": 0.0}),
        "epochs": figures.history(history.assign(epoch=[0.5, 1.0, 1.5], group=[1, 1, 2]), {"train_loss": "training"}, "loss"),
        "thresholds": class_thresholds({name: ClassCurves({"test": curve, "validation": curve}, 0.4) for name in names}),
        "no thresholds": class_thresholds({"a": ClassCurves({}, None), "b": ClassCurves({"folds": curve}, 0.1)}),
        "class reliability": class_reliability(dict.fromkeys(names, (reliability_curve(scores[:, 0], np.arange(80) % 2), "ECE 0.1"))),
    }


def test_every_figure_becomes_svg_that_follows_the_theme() -> None:
    seen: set[str] = set()
    all_drawn = drawn()
    assert len(all_drawn) == 14
    for name, drawing in all_drawn.items():
        text = figures.as_svg(drawing, name, 'a "title" <b>')
        assert text.startswith('<svg role="img" aria-label="a &quot;title&quot; &lt;b&gt;"')
        assert text.endswith("</svg>")
        assert "http" not in text
        assert "<style" not in text
        assert "var(--ink, #1c2630)" in text or "var(--muted, #5b6875)" in text
        assert not re.search(r"#000000|#ffffff", re.sub(r"var\([^)]*\)", "", text))
        ids = set(re.findall(r'\bid="([^"]*)"', text))
        assert not ids & seen
        seen |= ids
        assert set(re.findall(r'href="#([^"]*)"', text)) <= ids


def test_epochs_stand_above_steps_where_they_are_known() -> None:
    table = pd.DataFrame({"step": [0, 10, 20], "epoch": [0.0, 1.0, 2.0], "train_loss": [3.0, 2, 1]})
    below, above = figures.history(table, {"train_loss": "training"}, "loss").axes
    assert (below.get_xlabel(), above.get_xlabel()) == ("step", "epoch")
    np.testing.assert_allclose(np.array(above.get_xlim()) * 10, below.get_xlim())
    assert len(figures.history(table.drop(columns="epoch"), {"train_loss": "training"}, "loss").axes) == 1


@pytest.mark.parametrize("values", [[0.0, 0.022], [0.5, 0.9], [0.31, 0.3101]])
def test_marks_of_shares_never_read_the_same(values: list[float]) -> None:
    history = pd.DataFrame({"step": [0, 1], "accuracy": values})
    drawing = figures.history(history, {"accuracy": "accuracy"}, "", None, share=True)
    drawing.draw_without_rendering()
    axes = drawing.axes[0]
    low, high = axes.get_ylim()
    marks = [mark.get_text() for mark in axes.get_yticklabels() if low <= mark.get_position()[1] <= high]
    assert len(marks) >= 3
    assert len(set(marks)) == len(marks)
    assert all(re.fullmatch(r"[0-9.]+ %", mark) for mark in marks)


def test_figures_leave_matplotlib_as_it_was() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    drawn()
    assert dict(mpl.rcParams) == before


def test_class_names_reach_the_svg_as_text() -> None:
    text = figures.as_svg(drawn()["counts"], "counts", "counts")
    assert "日本語 $x$ &lt;b&gt;" in text


def save(path: Path, side: int, mode: str = "RGB") -> None:
    channels = len(mode)
    pixels = np.random.default_rng(0).integers(0, 255, size=(side, side, channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)


def test_pictures_are_embedded_small(tmp_path: Path) -> None:
    save(tmp_path / "small.png", 20)
    save(tmp_path / "large.png", 700)
    album = Album(tmp_path)
    small, large = album.picture("small.png"), album.picture("large.png")
    assert small is not None
    assert large is not None
    assert small.uri.startswith("data:image/png;base64,")
    assert small.tiny
    assert base64.b64decode(small.uri.partition(",")[2]) == (tmp_path / "small.png").read_bytes()
    assert large.uri.startswith("data:image/jpeg;base64,")
    assert (large.width, large.height) == (384, 384)
    assert len(large.uri) < 300_000


def test_transparent_pictures_lie_on_white(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, size=(200, 200, 4), dtype=np.uint8)
    noise[..., 3] = 0
    Image.fromarray(noise).save(tmp_path / "clear.png")
    assert (tmp_path / "clear.png").stat().st_size > LARGE
    found = Album(tmp_path).picture("clear.png")
    assert found is not None
    opened = Image.open(io.BytesIO(base64.b64decode(found.uri.partition(",")[2])))
    assert np.asarray(opened).min() == 255


def test_album_refuses_other_places_and_broken_files(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    save(tmp_path / "secret.png", 20)
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "pictures" / "page.png").write_text("<svg onload=alert(1)>")
    album = Album(tmp_path / "pictures")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "missing.png", "broken.png", "page.png", None, 3, "", ".", ".."):
        assert album.picture(name) is None
    assert album.left_out == 0


def test_album_stops_at_its_limit(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.png", 40)
    album = Album(tmp_path, limit=2 * len(Album(tmp_path).picture("0.png").uri))
    found = [album.picture(f"{i}.png") for i in range(4)]
    assert [picture is not None for picture in found] == [True, True, False, False]
    assert album.left_out == 2
