"""A real Chromium, and a look at what it drew: does anything overlap, or is anything cut off?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {
        "color_scheme": "light",
        "viewport": {"width": 375, "height": 812},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}
"""How the page is looked at: the options of a browser context."""

FLAWS = """
() => {
  const dialog = document.querySelector("dialog[open]");
  const root = dialog ?? document.body;
  const frame = root.getBoundingClientRect();
  const kinds = "button, select, input, output, legend, p, h1, h2, h3, h4, span, img, progress, kbd, figcaption, label, pre, td, th";
  const shown = (one) => {
    const box = one.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && getComputedStyle(one).visibility !== "hidden" && !one.closest("dialog:not([open])");
  };
  const told = (one) => `${one.tagName.toLowerCase()}${one.id ? "#" + one.id : ""} "${(one.value ?? one.textContent).trim().slice(0, 40)}"`;
  const all = [...root.querySelectorAll(kinds)].filter(shown);
  const flaws = [];
  const pen = document.createElement("canvas").getContext("2d");
  for (const one of all) {
    const box = one.getBoundingClientRect();
    if (box.left < frame.left - 0.5 || box.right > frame.right + 0.5) flaws.push(`${told(one)} leaves the frame`);
    if (one.matches("select") && one.selectedOptions.length) {
      const style = getComputedStyle(one);
      pen.font = style.font;
      const needs = pen.measureText(one.selectedOptions[0].text).width + parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
      if (needs > one.clientWidth) flaws.push(`${told(one)} is cut off: ${needs} of ${one.clientWidth}`);
    } else if (!one.matches("input, img, progress") && one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0) {
      flaws.push(`${told(one)} is cut off: ${one.scrollWidth} of ${one.clientWidth}`);
    }
  }
  for (const [place, one] of all.entries()) {
    for (const other of all.slice(place + 1)) {
      if (one.contains(other) || other.contains(one)) continue;
      const a = one.getBoundingClientRect(), b = other.getBoundingClientRect();
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left), down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 1) flaws.push(`${told(one)} overlaps ${told(other)}`);
    }
  }
  if (document.documentElement.scrollWidth > innerWidth) flaws.push("the page scrolls sideways");
  return { looked: all.length, flaws };
}
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of the machine; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"there is no browser: none of {', '.join(NAMES)} is on the PATH")
    from playwright.sync_api import sync_playwright

    root = getattr(os, "geteuid", lambda: 1)() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


def look_at(page: Page, name: str, least: int, folder: Path) -> None:
    """Keep a screenshot, in COVERSLIP_SCREENSHOTS where that names a folder, and fail where something overlaps or is cut off."""
    place = Path(os.environ.get("COVERSLIP_SCREENSHOTS") or folder)
    place.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=place / f"{name}.png", full_page=True)
    assert (place / f"{name}.png").stat().st_size > 5_000
    found = page.evaluate(FLAWS)
    assert found["looked"] >= least
    assert found["flaws"] == []
