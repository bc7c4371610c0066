"""The frame of a study's page: whatever a kind of study puts in comes out, once and escaped."""

from __future__ import annotations

from pathlib import Path

import pytest

from coverslip.errors import RunFolderError
from coverslip.report import figures
from coverslip.report.numbers import shown
from coverslip.report.pictures import Picture
from coverslip.report.results import confusion
from coverslip.report.sections import draw
from coverslip.report.study import Block, Card, Listing, Page, Shot, is_study, render, write_study_report
from unit.report.test_page import Page as Parsed


def make_page(**changes: object) -> Page:
    drawing = draw(figures.class_counts({"a": 1, "b": 2}), "Counts")
    dot = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    blocks = (
        Block("Runs", "One a row.", (drawing,), Listing(("Run", "Accuracy"), (("<one>", "0.9"), ("two", "0.8")), right=(1,), strong=(0,))),
        Block("Right & wrong", gallery=(Shot(Picture(dot, 1, 1), (("label", True), ("said", False)), "a.png"),)),
        Block("Confusion", matrix=confusion({"confusion": [[3, 1], [0, 4]]}, ["a", "b"])),
    )
    cards = (Card("Accuracy", "90 %", "95 % interval 80–95 %", shown({"value": 0.9, "low": 0.8, "high": 0.95})), Card("Runs", "2"))
    values = {
        "name": "gel", "kind": "compare", "headline": "One is best.", "cards": cards, "warnings": (("warning", "few images"),),
        "blocks": blocks, "facts": (("Machine", "Linux"),), "command": "coverslip compare gel", "config": 'kind = "compare"',
    }  # fmt: skip
    return Page(**{**values, **changes})  # type: ignore[arg-type]


def test_everything_is_on_the_page_and_the_page_is_well_formed() -> None:
    text = render(make_page())
    page = Parsed(text)
    assert not page.problems
    assert not page.open
    assert len(set(page.ids)) == len(page.ids)
    assert {"runs", "right---wrong", "confusion", "reproduce"} <= set(page.ids)
    assert {f"#{anchor}" for anchor in ("runs", "right---wrong", "confusion", "reproduce")} <= set(page.links)
    assert "&lt;one&gt;" in text
    assert "<one>" not in text
    for words in ("One is best.", "few images", "95 % interval", "a.png", "coverslip compare gel", "kind = &#34;compare&#34;"):
        assert words in text, words
    assert text.count("<svg") == 1
    assert page.tags.count("script") == 0


def test_what_is_empty_is_left_out() -> None:
    text = render(make_page(cards=(), warnings=(), blocks=(), facts=(), command="", config=""))
    assert "<section" not in text
    assert 'class="card"' not in text
    assert 'class="warning' not in text


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    assert not is_study(tmp_path)
    with pytest.raises(RunFolderError, match="not a study folder"):
        write_study_report(tmp_path)
    (tmp_path / "study.toml").write_text('kind = "os.path"\n')
    with pytest.raises(RunFolderError, match="expected one of compare, search, velocity"):
        write_study_report(tmp_path)
