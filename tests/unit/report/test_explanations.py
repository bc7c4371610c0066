import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coverslip.errors import MissingInputError, RunFolderError
from coverslip.report import write_report
from coverslip.report.explanations import explained, write_overview
from coverslip.report.pictures import Album
from unit.report.make_run import make_run

ENTRY: dict[str, Any] = {
    "image": "p/a<b>.png", "label": "golgi", "score": 0.982, "predicted": ["golgi", "cytosol"], "true": "er|golgi", "method": "gradcam",
    "uncertain": "score|unlike", "image_file": "pictures/image.png", "overlay": "pictures/overlay.png",
    "hiding": {"share": 0.1, "score": 0.98, "hidden": 0.41, "elsewhere": 0.95, "lower_than": 1.0}, "agreement": 0.12,
    "channels": {"red": -0.001, "green": 2.5, "blue": -0.7}, "distance_text": "Unlike all training images.",
    "neighbours": [{"label": "er|golgi", "image": "x.png", "distance": 0.3, "thumbnail": "pictures/near.jpg"}],
}  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("image.png", "overlay.png", "near.jpg"):
        Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(folder / name)
    return folder


def test_an_explanation_is_said_in_words(pictures: Path) -> None:
    found = explained(ENTRY, Album(pictures))
    text = " ".join(found.lines)
    assert found.title == "golgi: 0.982"
    assert "Predicted golgi, cytosol, labelled er, golgi." in text
    assert "Marked as uncertain" in text
    assert "takes the score of golgi from 0.980 to 0.410; hiding as much elsewhere, to 0.950" in text
    assert "not what the score rests on" not in text
    assert "believe neither alone" in text
    assert "green +2.50, blue -0.70, red no part" in text
    assert [words for _, words in found.shots] == ["image", "Grad-CAM"]
    assert [words for _, words in found.neighbours] == ["er, golgi"]


def test_a_region_that_does_not_matter_is_said_to_be_none(pictures: Path) -> None:
    hiding = {"share": 0.1, "score": 0.98, "hidden": 0.97, "elsewhere": 0.9, "lower_than": 0.0}
    text = " ".join(explained({**ENTRY, "hiding": hiding, "agreement": 0.8}, Album(pictures)).lines)
    assert "The highlighted region is not what the score rests on." in text
    assert "lower than at none of the random places" in text
    assert "believe neither" not in text


def test_hiding_that_raises_the_score_speaks_for_no_region(pictures: Path) -> None:
    raised = {"share": 0.1, "score": 0.975, "hidden": 0.980, "elsewhere": 0.987, "lower_than": 1.0}
    text = " ".join(explained({**ENTRY, "hiding": raised}, Album(pictures)).lines)
    assert "The highlighted region is not what the score rests on." in text
    (pictures.parent / "manifest.json").write_text(json.dumps({"explanations": [{**ENTRY, "hiding": raised}]}))
    assert "In 0 of 1, hiding the highlighted region lowers" in write_overview(pictures.parent).read_text(encoding="utf-8")


def test_hiding_that_changes_nothing_and_comparisons_that_disagree_are_said(pictures: Path) -> None:
    still = {"share": 0.1, "score": 0.99996, "hidden": 0.99996, "elsewhere": 0.99997, "lower_than": 0.75}
    text = " ".join(explained({**ENTRY, "hiding": still}, Album(pictures)).lines)
    assert "hardly changes the score, wherever it lies" in text
    assert "not what the score rests on" not in text
    torn = {"share": 0.1, "score": 0.98, "hidden": 0.9, "elsewhere": 0.91, "lower_than": 0.25}
    assert "do not rely on this picture" in " ".join(explained({**ENTRY, "hiding": torn}, Album(pictures)).lines)
    for hidings, said in (
        ([still, still], "In 2 of 2, hiding a tenth of the image hardly changes the score"),
        (
            [ENTRY["hiding"], still],
            "In 1 of 1, hiding the highlighted region lowers the score more than hiding as much elsewhere. In 1 more,",
        ),
    ):
        manifest = {"explanations": [{**ENTRY, "hiding": hiding} for hiding in hidings]}
        (pictures.parent / "manifest.json").write_text(json.dumps(manifest))
        assert said in write_overview(pictures.parent).read_text(encoding="utf-8")


def test_a_training_image_is_told_from_its_neighbours(pictures: Path) -> None:
    near = {**ENTRY["neighbours"][0], "distance": 0.0005}
    found = explained({**ENTRY, "neighbours": [near, *ENTRY["neighbours"]]}, Album(pictures))
    assert [words for _, words in found.neighbours] == ["er, golgi (this image)", "er, golgi"]
    assert "The model learned from this image" in " ".join(found.lines)
    assert "The model learned from this image" not in " ".join(explained(ENTRY, Album(pictures)).lines)


@pytest.mark.parametrize("broken", [{}, {"hiding": 3, "channels": [], "neighbours": "x", "score": None, "overlay": "../../etc/passwd"}])
def test_what_is_missing_or_damaged_is_left_out(pictures: Path, broken: dict[str, Any]) -> None:
    found = explained({"label": "a", **broken}, Album(pictures))
    assert (found.title, found.shots, found.neighbours) == ("a", [], [])


def test_an_overview_is_one_page_that_escapes_names(pictures: Path) -> None:
    folder = pictures.parent
    manifest = {"explanations": [ENTRY, {**ENTRY, "image": "b"}], "problems": {"c.png": "cut off"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    page = write_overview(folder).read_text(encoding="utf-8")
    assert page.count('<article class="explained">') == 2
    assert "In 2 of 2, hiding the highlighted region lowers the score" in page
    assert "a&lt;b&gt;.png" in page
    assert "c.png" in page
    assert page.count("data:image/") == 6
    (folder / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError):
        write_overview(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(MissingInputError, match=r"manifest\.json"):
        write_overview(folder)


def test_a_report_shows_explained_cases_and_what_doubts_are_worth(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = write_report(run).read_text(encoding="utf-8")
    assert 'id="explained"' not in page
    index = run / "pictures" / "index.json"
    index.parent.mkdir(exist_ok=True)
    for name in ("image.png", "overlay.png", "near.jpg"):
        Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(index.parent / name)
    cases = [{**ENTRY, "kind": kind} for kind in ("explained_right", "explained_wrong", "explained_wrong")]
    index.write_text(json.dumps([*(json.loads(index.read_text()) if index.exists() else []), *cases]))
    environment = json.loads((run / "environment.json").read_text())
    notes = ["uncertain: decisions are not marked by their scores", "another note"]
    (run / "environment.json").write_text(json.dumps(environment | {"notes": notes}))
    metrics = json.loads((run / "metrics.json").read_text())
    share = {"value": 0.125, "low": 0.1, "high": 0.2, "method": "exact"}
    doubts = {part: {"uncertain": share} for part in ("test", "folds")}
    (run / "metrics.json").write_text(json.dumps(metrics | {"uncertainty": doubts}))
    page = write_report(run).read_text(encoding="utf-8")
    assert page.count('<article class="explained">') == 3
    assert page.index(">Wrong<") < page.index(">Right<")
    assert 'Marked as uncertain</td><td class="right"><b>12.5' in page.replace("\n", "")
    assert "Decisions are not marked by their scores." in page


def test_a_flat_map_and_a_score_of_one_copy_are_said(pictures: Path) -> None:
    assert "Nothing that Grad-CAM sees speaks for golgi." in explained({**ENTRY, "hiding": None}, Album(pictures)).lines
    text = " ".join(explained({**ENTRY, "score": 0.9}, Album(pictures)).lines)
    assert "the score of golgi, looked at once, without mirrored or turned copies, from 0.980" in text
