"""The page: one file, complete, honest, whatever is missing and whatever the names are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from coverslip.errors import MissingInputError, RunFolderError
from coverslip.report import write_report
from coverslip.report.files import read_run
from coverslip.report.page import headline
from coverslip.runtime import write_json
from unit.report.make_run import make_evaluation, make_run

FILES = (
    "config.toml", "environment.json", "audit.json", "split.csv", "history.csv", "predictions.csv", "metrics.json", "timing.json",
    "summary.json", "weights.json", "label_errors.csv", "pictures/index.json", "pictures",
)  # fmt: skip
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Ids, links, sources and the balance of tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.problems: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [found["href"]] if found.get("href") else []
        self.sources += [found["src"]] if found.get("src") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def gel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "gel")


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "nuclei", "nuclei")


def read(folder: Path) -> tuple[str, Page]:
    path = write_report(folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def check(text: str, page: Page) -> None:
    """What holds for every page."""
    assert page.open == []
    assert page.problems == []
    assert len(page.ids) == len(set(page.ids))
    assert len(page.links) > 5
    for link in page.links:
        assert link == "data:," or (link.startswith("#") and link[1:] in page.ids), link
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "script" not in page.tags
    assert not re.search(r"https?://|url\(\s*['\"]?(?!#)", text)
    for reference in re.findall(r"url\(#([^)]*)\)", text):
        assert reference in page.ids
    assert len(text) < 5_000_000


def test_gel_page_is_whole(gel: Path) -> None:
    text, page = read(gel)
    check(text, page)
    assert {
        "data",
        "split",
        "seen",
        "augmentation",
        "model",
        "training",
        "weights",
        "results",
        "mistakes",
        "labels",
        "time",
        "methods",
        "reproduce",
    } <= set(page.ids)
    assert page.tags.count("svg") == 8
    assert len(page.sources) == 12 + 24 + 7 + 6 + 5
    assert "there is no curve to draw" in page.text
    assert "The file mode alone tells the classes apart" in page.text
    assert "5 folds, 3 repeats" in page.text
    assert "1 exact pair, 2 near pairs (14 candidates compared pixel by pixel)" in page.text
    assert "480 × 640 (31)" in page.text
    assert "1.33 times (median), up to 2.60 times" in page.text
    assert "Shortcuts" in page.text


def test_nuclei_page_is_whole(nuclei: Path) -> None:
    text, page = read(nuclei)
    check(text, page)
    assert "more" in page.ids
    assert page.tags.count("svg") == 12
    assert "Groups, worst first" in page.text
    assert "Most frequent confusions" in page.text
    assert text.count('class="cell') == 16 * 16


def test_evaluation_page_is_whole(tmp_path: Path) -> None:
    text, page = read(make_evaluation(tmp_path / "evaluation"))
    check(text, page)
    assert {"data", "model", "results", "mistakes", "labels", "methods", "reproduce"} <= set(page.ids)
    assert not {"split", "training", "time", "seen", "augmentation"} & set(page.ids)
    assert "torn.jpg" in page.text
    assert "runs/gel/bundle" in page.text


def test_same_files_give_same_page(gel: Path) -> None:
    assert read(gel)[0] == read(gel)[0]


@pytest.mark.parametrize("name", FILES)
def test_any_file_may_be_missing(gel: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(gel, folder)
    if (folder / name).is_dir():
        shutil.rmtree(folder / name)
    else:
        (folder / name).unlink()
    check(*read(folder))


def test_only_metrics(gel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(gel / "metrics.json", folder)
    text, page = read(folder)
    assert page.problems == []
    assert "results" in page.ids
    assert "http" not in text


def test_run_that_was_interrupted(gel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.toml", "audit.json", "split.csv"):
        shutil.copy(gel / name, folder)
    assert "This run has no numbers yet." in read(folder)[1].text


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="not a run folder: there is no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(MissingInputError, match=r"it holds none of metrics\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["metrics.json", "config.toml", "audit.json", "predictions.csv", "pictures/index.json"])
def test_damaged_file_is_named_and_old_page_stays(gel: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(gel, folder)
    (folder / "report.html").write_text("the old page")
    (folder / name).write_bytes(b'{"half": [1, 2\n,"\xff\xfe')
    with pytest.raises(RunFolderError, match=re.escape(str(folder / name))):
        write_report(folder)
    assert (folder / "report.html").read_text() == "the old page"


def test_untrusted_names_are_escaped(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b $x_1$ </svg>", "日本語", "NA"]
    text, page = read(make_run(tmp_path / "run", "nuclei", classes=names))
    check(text, page)
    assert page.tags.count("img") == len(page.sources)
    for name in names:
        assert name in page.text


def test_forty_classes_with_long_names(tmp_path: Path) -> None:
    names = [f"a class with a rather long name, number {i}" for i in range(41)]
    text, page = read(make_run(tmp_path / "run", "nuclei", classes=names))
    check(text, page)
    assert "Too many classes to draw" in page.text
    assert "The first 40 of 41 classes." in page.text


def test_names_that_differ_in_the_middle_stay_apart(tmp_path: Path) -> None:
    names = [f"a rather long species name, number {place} of the collection of mushrooms" for place in range(12)]
    text, _ = read(make_run(tmp_path / "run", "nuclei", classes=names))
    assert len(set(re.findall(r'<th class="column" title="[^"]*"><span>([^<]*)</span>', text))) == 12
    assert "… 7 of the collection of…" in text


def test_multilabel_run(tmp_path: Path) -> None:
    classes = ["red", "green", "blue"]
    rows = [
        ("a.png", 0.9, 0.8, 0.1, "red|green", "red|green"),
        ("b.png", 0.2, 0.9, 0.3, "green", "green|blue"),
        ("c.png", 0.1, 0.4, 0.9, "blue", "blue"),
    ]
    table = pd.DataFrame(rows, columns=["image", *(f"p_{name}" for name in classes), "predicted", "label"])
    table.assign(part="test", fold="").to_csv(tmp_path / "predictions.csv", index=False)
    table.assign(part="test")[["image", "label", "part"]].to_csv(tmp_path / "split.csv", index=False)
    numbers = {"n": 3, "macro_f1": {"value": 0.9, "low": 0.5, "high": 1.0, "method": "bootstrap"}}
    (tmp_path / "metrics.json").write_text(json.dumps({"task": "multilabel", "classes": classes, "test": numbers}))
    text, page = read(tmp_path)
    check(text, page)
    assert "On 3 images the model had not seen macro F1 is 0.900 (interval 0.500–1.000)." in page.text
    assert "Labels that come together" in page.text
    assert "Labels per image" in page.text
    assert "Thresholds side by side" not in page.text
    assert "ROC curve" in page.text


def number(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, object]:
    return {"value": value, "low": low, "high": high, "method": "exact"}


@pytest.mark.parametrize(
    ("metrics", "part", "sentence"),
    [
        (
            {"test": {"n": 22, "accuracy": number(21 / 22, 0.7716, 0.9988)}},
            "test",
            "On 22 images the model had not seen, 21 were right: 95.5 % (95 % interval 77.2–99.9 %).",
        ),
        (
            {"test": {"n": 1, "accuracy": number(1.0, 0.025, 1.0)}},
            "test",
            "On 1 image the model had not seen, 1 was right: 100 % (95 % interval 2.5–100 %).",
        ),
        ({"test": {"n": 9, "accuracy": number(None)}}, "test", "This run has no numbers yet."),
        (
            {"validation": {"n": 10, "accuracy": number(1.0, 0.69, 1.0)}},
            "validation",
            "On 10 validation images, all 10 were right: 100 % (95 % interval 69–100 %).",
        ),
        (
            {
                "folds": {
                    "n": 92,
                    "accuracy": number(0.98, 0.95, 0.995),
                    "each": [{"repeat": r, "fold": f} for r in (0, 1) for f in range(5)],
                }
            },
            "folds",
            "In 5-fold cross-validation, repeated twice, 98 % (95 % interval 95–99.5 %) of 92 images were classified correctly "
            "while held out from training.",
        ),
        ({}, None, "This run has no numbers yet."),
    ],
)
def test_headline(tmp_path: Path, metrics: dict[str, object], part: str | None, sentence: str) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"level": 0.95} | metrics))
    assert headline(read_run(tmp_path), part).replace("\u00a0", " ") == sentence


def test_undefined_numbers_are_said(gel: Path, tmp_path: Path) -> None:
    shutil.copytree(gel, tmp_path / "run")
    metrics = json.loads((gel / "metrics.json").read_text())
    metrics["test"]["roc_auc"] = {"value": None, "low": None, "high": None, "method": "undefined"}
    metrics["test"]["per_class"]["gel"]["f1"] = {"value": None, "low": None, "high": None, "method": "undefined"}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    text, page = read(tmp_path / "run")
    check(text, page)
    assert page.text.count("undefined") >= 3


def test_folds_only_run_counts_its_confusion(gel: Path, tmp_path: Path) -> None:
    shutil.copytree(gel, tmp_path / "run")
    metrics = json.loads((gel / "metrics.json").read_text())
    kept = {key: metrics[key] for key in ("task", "classes", "folds")}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(kept))
    text, page = read(tmp_path / "run")
    check(text, page)
    cells = [int(n) for n in re.findall(r'class="cell[^>]*>(\d+)', text)]
    assert len(cells) == 4
    assert sum(cells) == metrics["folds"]["n"]


def test_report_needs_no_torch() -> None:
    code = "import sys, coverslip.report.page; sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib.pyplot', 'seaborn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("method", "bars"), [("exact", True), ("bootstrap over rows, one group only", False)])
def test_long_words_on_an_interval_take_the_room_of_the_bars(gel: Path, tmp_path: Path, method: str, bars: bool) -> None:
    shutil.copytree(gel, tmp_path / "run")
    metrics = {"task": "binary", "classes": ["a", "b"]}
    for part in ("test", "validation"):
        metrics[part] = {"n": 20, "accuracy": {"value": 0.8, "low": 0.6, "high": 0.9, "method": method}}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert method in page
    assert ('<table class="full calm">' in page) is bars
    assert ("Bars run from 0 to 1." in page) is bars


@pytest.mark.parametrize(
    ("accuracy", "answer"),
    [
        ([0.70, 0.80], "The curve still rises by more than chance would explain: more images are likely to help."),
        ([0.80, 0.82], "It may still rise, but by no more than chance would explain: more images may help."),
        ([0.82, 0.82], "The curve is flat there: more images of the same kind would hardly help."),
        ([0.99, 1.0], "Nothing is left to gain on these images"),
    ],
)
def test_the_learning_curve_answers_its_question(gel: Path, tmp_path: Path, accuracy: list[float], answer: str) -> None:
    folder = shutil.copytree(gel, tmp_path / "run")
    curve = pd.DataFrame({"images": [600, 1200], "accuracy": accuracy}).assign(
        low=lambda t: t.accuracy - 0.03, high=lambda t: t.accuracy + 0.03
    )
    curve.to_csv(folder / "learning_curve.csv", index=False)
    _, page = read(folder)
    assert f"From 600 to 1,200 training images the accuracy went from {accuracy[0]:.3f} to {accuracy[1]:.3f}. {answer}" in page.text


def test_hashes_are_named_as_other_facts_are(gel: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gel, tmp_path / "run")
    environment = json.loads((folder / "environment.json").read_text())
    write_json(folder / "environment.json", environment | {"data": {"pixels_sha256": "abc", "split_sha256": "def"}})
    _, page = read(folder)
    assert "pixels sha256 abc, split sha256 def" in page.text
