"""The page, in a real Chromium."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from importlib.resources import files as resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from browser import LOOKS, chromium, look_at
from coverslip.evaluation.decisions import decide
from coverslip.evaluation.frames import label_texts
from coverslip.structures import Task
from servers import Server

from .conftest import SMALL, TINY, Cli, images_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page, Route


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The page at desktop size, ready; it must not have made a mistake, nor asked anybody but the server."""
    with opened(browser, server, "light") as shown:
        yield shown


class opened:  # noqa: N801
    """A page that is looked at in one way."""

    def __init__(self, browser: Browser, server: Server, look: str) -> None:
        self.context = browser.new_context(**LOOKS[look])
        self.address = server.address
        self.mistakes: list[str] = []
        self.asked: list[str] = []

    def __enter__(self) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(self.address)
        page.locator("#choose-files:enabled").wait_for()
        return page

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert self.mistakes == []
        assert len(self.asked) > 8
        assert [url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))] == []


def add(page: Page, files: list[Path], cards: int, where: str = "#files") -> None:
    page.set_input_files(where, files)
    page.locator(".card").nth(cards - 1).wait_for()
    page.locator("#progress").wait_for(state="hidden")
    assert page.locator(".card").count() == cards


def labels(page: Page) -> list[str]:
    """The label of each card that is shown."""
    return [" + ".join(card.locator(".label").all_text_contents()) for card in page.locator(".card").all()]


def names(page: Page) -> list[str]:
    return [Path(name).name for name in page.locator(".card .name").all_text_contents()]


def drawn(page: Page) -> None:
    """Wait until what was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def set_threshold(page: Page, value: float) -> None:
    page.locator("#threshold").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", str(value)
    )


def test_many_images_get_pictures_labels_and_bars(page: Page, server: Server, gels: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("Dear reader")
    chosen = images_of(gels)[:12]
    answer = server.send("/predict?model=gel", chosen).json()["predictions"]
    add(page, [*chosen, tmp_path / "letter.png"], 13)
    assert names(page) == [*[path.name for path in chosen], "letter.png"]
    assert labels(page) == [*[row["decision"][0] for row in answer], ""]
    for place, row in enumerate(answer):
        shown = page.locator(".card").nth(place).locator(".bars .number").all_text_contents()
        assert sorted(shown) == sorted(f"{value:.3f}" for value in row["probabilities"].values())
    assert page.locator(".card .look img").evaluate_all("all => all.filter((one) => one.naturalWidth > 0).length") == 12
    assert "not an image" in page.locator(".card").nth(12).locator(".error").text_content()
    assert page.locator("#summary").text_content().endswith("; 1 not read")


def test_files_that_come_before_the_model_wait_for_it(browser: Browser, server: Server, gels: Path) -> None:
    with opened(browser, server, "light") as page:
        held: list[Route] = []
        page.route("**/model?*", lambda route: held.append(route))  # noqa: PLW0108 - a builtin takes no marks
        page.reload()
        page.wait_for_function("() => document.querySelector('#status').textContent === 'ready'")
        page.set_input_files("#files", images_of(gels)[:2])
        page.locator(".notice", has_text="2 files wait until the model is open").wait_for()
        page.wait_for_timeout(200)
        for one in held:
            one.continue_()
        page.locator(".card .label").nth(1).wait_for()
        assert page.locator(".card").count() == 2
        assert page.locator(".notice").count() == 0


def test_files_that_come_before_the_models_are_known_wait_too(browser: Browser, server: Server, gels: Path) -> None:
    with opened(browser, server, "light") as page:
        held: dict[str, list[Route]] = {"models": [], "model?*": []}
        page.route("**/models", lambda route: held["models"].append(route))  # noqa: PLW0108 - a builtin takes no marks
        page.route("**/model?*", lambda route: held["model?*"].append(route))  # noqa: PLW0108
        page.reload()
        page.wait_for_function("() => document.querySelector('#status').textContent === 'ready'")
        page.set_input_files("#files", images_of(gels)[:2])
        waiting = page.locator(".notice", has_text="2 files wait until the model is open")
        waiting.wait_for()
        while not held["models"]:
            page.wait_for_timeout(20)
        held["models"][0].continue_()
        while not held["model?*"]:
            page.wait_for_timeout(20)
        assert waiting.count() == 1
        held["model?*"][0].continue_()
        page.locator(".card .label").nth(1).wait_for()
        assert page.locator(".notice").count() == 0


def test_files_that_are_dropped(page: Page, gels: Path) -> None:
    data = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in images_of(gels)[:3]]
    transfer = page.evaluate_handle(
        """(files) => {
          const transfer = new DataTransfer();
          for (const [name, text] of files) transfer.items.add(new File([Uint8Array.from(atob(text), (one) => one.charCodeAt(0))], name));
          return transfer;
        }""",
        data,
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#drop", kind, {"dataTransfer": transfer})
    page.locator(".card .label").nth(2).wait_for()
    assert names(page) == [name for name, _ in data]


def test_a_folder_that_is_dropped(page: Page, gels: Path, tmp_path: Path) -> None:
    """From the desktop, as the browser itself is told of it, with folders inside and files that are no images."""
    chosen = {f"new/{path.parent.name}/{path.name}": path for path in images_of(gels)[::10]}
    for name, path in chosen.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(path.read_bytes())
    (tmp_path / "new" / "notes.txt").write_text("Monday")
    (tmp_path / "new" / "gel" / ".hidden.png").write_text("nothing")
    desktop = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(tmp_path / "new")], "dragOperationsMask": 1}
        desktop.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 300, "data": data})
    page.locator(".card .label").nth(len(chosen) - 1).wait_for()
    assert sorted(page.locator(".card .name").all_text_contents()) == sorted(chosen)
    assert "2 files are no images" in page.locator(".notice").text_content()


def test_a_tiff_of_16_bit_is_shown(page: Page, gels: Path, tmp_path: Path) -> None:
    with Image.open(images_of(gels)[0]) as image:
        grey = image.convert("L")
    tifffile.imwrite(tmp_path / "deep.tif", np.asarray(grey).astype(np.uint16) * 200)
    add(page, [tmp_path / "deep.tif"], 1)
    assert page.locator(".look img").evaluate("one => one.naturalWidth") == 32
    page.locator(".look").click()
    assert page.locator("#detail-caption").text_content() == "what the network sees"


def test_a_threshold_that_is_moved_changes_the_labels(page: Page, server: Server, gels: Path) -> None:
    chosen = images_of(gels)[::4]
    add(page, chosen, 10)
    scores = [row["probabilities"]["not_gel"] for row in server.send("/predict?model=gel", chosen).json()["predictions"]]
    own = labels(page)
    middle = sorted(scores)[4] + 1e-4
    set_threshold(page, middle)
    drawn(page)
    moved = round(middle * 1000) / 1000
    assert labels(page) == ["not_gel" if score >= moved else "gel" for score in scores]
    assert {"gel", "not_gel"} == set(labels(page))
    track, mark = (page.locator(f".card .track:has(b){inner}").first.bounding_box() for inner in ("", " b"))
    assert (mark["x"] + mark["width"] / 2 - track["x"]) / track["width"] == pytest.approx(moved, abs=0.01)
    assert page.locator("#threshold-value").text_content() == f"{moved:.3f}"
    page.click("#threshold-reset")
    drawn(page)
    assert labels(page) == own


def test_filter_and_order(page: Page, server: Server, gels: Path) -> None:
    chosen = images_of(gels)[:8]
    add(page, chosen, 8)
    rows = server.send("/predict?model=gel", chosen).json()["predictions"]
    by_doubt = [row["image"] for row in sorted(rows, key=lambda row: max(row["probabilities"].values()))]
    page.select_option("#order", "least")
    drawn(page)
    assert names(page) == by_doubt
    page.select_option("#order", "most")
    drawn(page)
    assert names(page) == by_doubt[::-1]
    page.fill("#find", chosen[3].stem)
    drawn(page)
    assert names(page) == [chosen[3].name]
    page.fill("#find", "nothing like it")
    page.locator("#nothing").wait_for()


def test_the_keyboard_is_enough(page: Page, gels: Path) -> None:
    add(page, images_of(gels)[:6], 6)
    first = labels(page)
    page.locator(".look").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#detail[open]").wait_for()
    assert page.locator("#detail-name").text_content() == names(page)[1]
    page.keyboard.press("2")  # the second class
    page.keyboard.press("ArrowRight")
    assert page.locator("#detail-name").text_content() == names(page)[2]
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    page.locator("#detail").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.closest('.card') === document.querySelectorAll('.card')[2]")
    drawn(page)
    assert labels(page) == [first[0], "not_gel", "gel", *first[3:]]
    page.select_option("#only-state", "corrected")
    drawn(page)
    changed = [place for place, (now, then) in enumerate(zip([first[0], "not_gel", "gel", *first[3:]], first, strict=True)) if now != then]
    assert page.locator(".card").count() == len(changed) >= 1
    page.select_option("#only-state", "unchecked")
    drawn(page)
    assert page.locator(".card").count() == 4


def test_the_corrected_table_is_the_next_training_set(page: Page, cli: Cli, gel_run: Path, gels: Path, tmp_path: Path) -> None:
    add(page, [gels], 40, "#folder")
    truth = {path.name: path.parent.name for path in images_of(gels)}
    corrected = 0
    for card, name in zip(page.locator(".card").all(), names(page), strict=True):
        if card.locator(".label").text_content() != truth[name]:
            card.locator("select").select_option(truth[name])
            corrected += 1
    assert corrected > 0
    drawn(page)
    assert f"{corrected} corrected" in page.locator("#summary").text_content()
    with page.expect_download() as waiting:
        page.click("#download")
    table = gels.parent / "gel-labels.csv"
    waiting.value.save_as(table)
    found = pd.read_csv(table)
    assert list(found.columns) == ["image", "label", "predicted", "corrected", "checked", "uncertain", "p_gel", "p_not_gel"]
    assert len(found) == 40
    assert (found["corrected"] == "yes").sum() == corrected
    assert all(truth[Path(row.image).name] == row.label for row in found.itertuples())
    own = ["training.epochs=1", "training.regime=finetune", f"model.weights={gel_run}", "data.positive=gel"]  # which then comes last
    small = [text for text in TINY if text != "-s" and not text.startswith(("training.", "model.weights"))]
    done = cli("train", table, "--recipe", "quick", *[word for text in [*small, *own] for word in ("-s", text)], "--out", tmp_path / "next")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "next" / "bundle" / "model.json").read_text())["classes"] == ["not_gel", "gel"]
    assert "class by class: not_gel, gel" in (tmp_path / "next" / "environment.json").read_text()


def test_corrections_are_not_lost_without_a_question(page: Page, gels: Path) -> None:
    add(page, images_of(gels)[:2], 2)
    asked: list[str] = []

    def refuse(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", refuse)
    page.locator(".card select").first.select_option("not_gel")
    page.click("#clear")
    page.select_option("#model", "cells")
    assert len(asked) == 2
    assert "have not downloaded the table" in asked[0]
    assert (page.locator(".card").count(), page.locator("#model").input_value()) == (2, "gel")
    with page.expect_download():
        page.click("#download")
    page.click("#clear")
    drawn(page)
    assert (page.locator(".card").count(), len(asked)) == (0, 2)


def test_the_card_is_shown_as_text_for_people(page: Page) -> None:
    card = (
        "---\nlicense: mit\n---\n\n# <b>a</b>\n\nSaid in `code`\nand on.\n\n- one\n- two\n\n"
        "| class | n |\n|---|---|\n| a\\|b | 7 |\n## Use\n\n    coverslip predict\n"
    )
    found = page.evaluate(
        """async (card) => {
          const { cardElements } = await import("/page/card.js");
          return cardElements(card).map((one) => [one.tagName, one.textContent, one.querySelectorAll("li, td, th, code, b").length]);
        }""",
        card,
    )
    assert found == [
        ["H3", "<b>a</b>", 0], ["P", "Said in code and on.", 1], ["UL", "onetwo", 2], ["DIV", "classna|b7", 4], ["H4", "Use", 0],
        ["PRE", "coverslip predict", 0],
    ]  # fmt: skip


def test_samples_of_four_files_with_several_labels(page: Page, cli: Cli, cell_run: Path, cells: Path, tmp_path: Path) -> None:
    page.select_option("#model", "cells")
    page.locator("#hint", has_text="red, green, blue, yellow").wait_for()
    add(page, [cells / "images"], 24, "#folder")
    assert names(page)[0] == sorted({path.name.rpartition("_")[0] for path in images_of(cells)})[0]
    set_threshold(page, 0.999)
    drawn(page)
    assert set(labels(page)) <= {"no label"} or all(" + " not in one for one in labels(page))
    page.locator(".look").first.click()
    choices = page.locator("#correct-choices input")
    assert choices.count() == 12
    for place in range(12):
        choices.nth(place).set_checked(place in (1, 3))
    page.keyboard.press("Escape")
    drawn(page)
    wanted = page.evaluate("[...document.querySelectorAll('#only-label option')].map((one) => one.textContent)")
    assert labels(page)[0] == f"{wanted[2]} + {wanted[4]}"
    with page.expect_download() as waiting:
        page.click("#download")
    table = cells / "cells-labels.csv"
    waiting.value.save_as(table)
    found = pd.read_csv(table, keep_default_na=False)
    assert found["label"][0] == f"{wanted[2]}|{wanted[4]}"
    assert len(found) == 24
    settings = dict(text.split("=", 1) for text in SMALL[2:] if text != "-s" and not text.startswith("split.group"))
    settings |= {"model.weights": str(cell_run), "training.epochs": "1", "data.allow_empty": "true"}
    settings |= {"data.image": "{image}_{channel}.png", "data.labels": "label", "data.separator": '"|"'}
    words = [word for key, value in settings.items() for word in ("-s", f"{key}={value}")]
    done = cli("train", table, *SMALL[:2], *words, "--out", tmp_path / "next")
    assert done.status == 0, done.err
    assert f"backbone weights: {cell_run}" in done.err


def test_a_card_shows_its_labels_first_and_some_of_many(page: Page) -> None:
    """Where each class has a threshold of its own, a label need not have one of the highest probabilities."""
    found = page.evaluate(
        """async () => {
          const { makeCard, showCard } = await import("/page/cards.js");
          const classes = ["a", "b", "c", "d", "e", "f", "g"];
          const model = { task: "multilabel", classes, thresholds: { values: {} } };
          const probabilities = Object.fromEntries(classes.map((name, place) => [name, 0.9 - place / 10]));
          return [["g", "e"], classes, []].map((labels) => {
            const card = makeCard({}, model, {});
            showCard(card, { name: "x", prediction: { probabilities } }, model, labels);
            const texts = (words) => [...card.querySelectorAll(words)].map((one) => one.textContent);
            return [texts(".verdict span"), texts(".bars .class")];
          });
        }"""
    )
    assert found == [
        [["g", "e"], ["e", "g", "a"]],
        [["a", "b", "c", "d", "e", "and 2 more"], ["a", "b", "c", "d", "e"]],
        [["no label"], ["a", "b", "c"]],
    ]


def test_another_model_looks_at_the_same_images(page: Page, gels: Path) -> None:
    add(page, images_of(gels)[:2], 2)
    page.select_option("#model", "cells")
    page.locator(".card .error").nth(1).wait_for()
    assert "channel" in page.locator(".card .error").first.text_content()
    page.select_option("#model", "gel")
    page.locator(".card .label").nth(1).wait_for()


def test_a_connection_that_breaks_is_said_and_can_be_tried_again(page: Page, gels: Path) -> None:
    page.context.set_offline(True)
    add(page, images_of(gels)[:3], 3)
    page.locator(".notice.problem", has_text="no connection to the server").wait_for()
    assert page.locator(".card .error").all_text_contents() == ["no connection to the server: is it still running?"] * 3
    page.context.set_offline(False)
    page.click("#retry")
    page.locator(".card .label").nth(2).wait_for()
    assert page.locator(".card .error:visible").count() == page.locator(".notice").count() == 0


def test_the_heat_map_comes_with_the_picture(page: Page, server: Server, gels: Path, cells: Path) -> None:
    add(page, images_of(gels)[:1], 1)
    page.locator(".look").click()
    heat = page.locator("#heat-image")
    heat.wait_for()
    first = heat.get_attribute("src")
    assert heat.evaluate("one => one.naturalWidth") > 30
    other = ({"gel", "not_gel"} - {labels(page)[0]}).pop()
    page.select_option("#heat-label", other)
    page.locator(f"#heat-image[alt='heat map of {other}']").wait_for()
    assert heat.get_attribute("src") != first
    page.keyboard.press("Escape")
    page.select_option("#model", "cells")
    page.locator("#hint", has_text="yellow").wait_for()
    page.click("#clear")
    add(page, images_of(cells)[:4], 1)
    page.locator(".look").click()
    page.locator("#detail-channels .number").nth(3).wait_for()
    answer = server.send("/explain?model=cells", images_of(cells)[:4]).json()
    assert set(answer["channels"]) == {"red", "green", "blue", "yellow"}


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_overlaps_or_is_cut_off(browser: Browser, server: Server, gels: Path, cells: Path, tmp_path: Path, look: str) -> None:
    (tmp_path / "letter.png").write_text("Dear reader")
    with opened(browser, server, look) as page:
        look_at(page, f"{look}-empty", 6, tmp_path)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
        assert brightness < 60 if look == "dark" else brightness > 200
        add(page, [*images_of(gels)[:5], tmp_path / "letter.png"], 6)
        page.on("dialog", lambda dialog: dialog.accept())
        page.locator(".card select").first.select_option("not_gel")
        page.set_input_files("#files", images_of(gels)[:1])  # again
        page.locator(".notice").wait_for()
        look_at(page, f"{look}-results", 80, tmp_path)
        page.locator(".look").first.click()
        page.locator("#detail-image").wait_for()
        page.locator("#heat-message", has_text="drawing").wait_for(state="hidden")
        look_at(page, f"{look}-detail", 18, tmp_path)
        page.keyboard.press("Escape")
        page.click("#about-open")
        assert page.locator("#about-card td").count() > 4
        look_at(page, f"{look}-about", 3, tmp_path)
        page.keyboard.press("Escape")
        page.select_option("#model", "cells")
        page.locator("#hint", has_text="yellow").wait_for()
        page.click("#clear")
        add(page, images_of(cells)[:8], 2)
        look_at(page, f"{look}-cells", 40, tmp_path)
        page.locator(".look").first.click()
        page.locator("#heat-message", has_text="drawing").wait_for(state="hidden")
        look_at(page, f"{look}-cells-detail", 60, tmp_path)


@pytest.mark.parametrize("look", LOOKS)
def test_the_document_for_people(browser: Browser, server: Server, tmp_path: Path, look: str) -> None:
    with opened(browser, server, look) as page:
        page.click("text=From a program")
        page.locator(".operation").nth(7).wait_for()
        look_at(page, f"{look}-docs", 10, tmp_path)
        headings = page.locator(".operation h2").all_text_contents()
        document = server.get("/openapi.json").json()
        operations = [f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item]
        assert headings[: len(operations)] == operations
        assert len(operations) == 6
        fields = (
            page.locator(".operation", has=page.locator("h2", has_text="Prediction")).last.locator("td:first-child").all_text_contents()
        )
        assert fields == list(document["components"]["schemas"]["Prediction"]["properties"])


def test_the_files_of_the_page_name_no_outside_address() -> None:
    found = [entry for entry in resources("coverslip.serve.page").iterdir() if entry.name.endswith((".html", ".css", ".js"))]
    assert len(found) >= 11
    for entry in found:
        assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+|@import|url\(", entry.read_text(encoding="utf-8")) == [], entry.name


def test_the_page_decides_as_the_model_does(page: Page) -> None:
    """The rules of the page, once a threshold was moved, against those of the package, on random probabilities."""
    random = np.random.default_rng(0)
    classes = ["a", "b", "c", "d"]
    for task, rule, count in ((Task.BINARY, "second_class", 2), (Task.MULTILABEL, "each_class", 4), (Task.MULTICLASS, "highest", 4)):
        for at_least_one in (False, True):
            scores = random.random((200, count)).round(3)
            thresholds = random.random(count).round(3) + 0.001
            names = classes[:count]
            own = thresholds if task is Task.MULTILABEL else float(thresholds[1])
            expected = label_texts(decide(scores, task, own, at_least_one=at_least_one), names)
            model = {"task": str(task), "classes": names, "thresholds": {"rule": rule, "at_least_one": at_least_one}}
            moved = {"values": dict(zip(names, thresholds.tolist(), strict=True)), "floor": 0, "moved": True}
            rows = [{"probabilities": dict(zip(names, row, strict=True)), "decision": ["?"]} for row in scores.tolist()]
            found = page.evaluate(
                """async ([model, rows, moved]) => {
                  const { decide } = await import("/page/rules.js");
                  return rows.map((row) => decide(model, row, moved).join("|"));
                }""",
                [model, rows, moved],
            )
            assert found == expected
            assert len(set(found)) > 1
