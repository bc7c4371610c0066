"""Numbers on coloured cells can be read on light and on dark pages: contrasts by WCAG 2.1 (section 1.4.3 asks for 4.5)."""

from __future__ import annotations

import re
from importlib import resources

import numpy as np
import pytest

from coverslip.report.results import _cell
from coverslip.report.study.compare_figures import SHADES

ENOUGH = 4.5
STYLE = (resources.files("coverslip.report") / "style.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    {name: value.strip() for name, value in re.findall(r"--([\w-]+): ([^;]+);", block)}
    for block in re.findall(r":root \{([^}]*)\}", STYLE)[:2]
)


def colour(text: str) -> np.ndarray:
    """`#0072b2` or `0 114 178` as three numbers in [0, 1]."""
    parts = [text[place : place + 2] for place in (1, 3, 5)] if text.startswith("#") else text.split()
    return np.array([int(part, 16 if text.startswith("#") else 10) for part in parts]) / 255


def luminance(shown: np.ndarray) -> float:
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(theme: dict[str, str], cell: str, opacity: float) -> float:
    """Of the ink of a theme on a cell that lies over its paper."""
    behind = opacity * colour(theme[cell]) + (1 - opacity) * colour(theme["paper"])
    low, high = sorted((luminance(behind), luminance(colour(theme["ink"]))))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast({"ink": "#000000", "paper": "#ffffff", "blue": "#ffffff"}, "blue", 1.0) == pytest.approx(21)
    assert contrast({"ink": "#777777", "paper": "#ffffff", "blue": "#ffffff"}, "blue", 1.0) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_cell_of_the_heatmap_can_be_read(theme: dict[str, str]) -> None:
    assert min(contrast(theme, "blue", opacity) for opacity in np.linspace(*SHADES, 11)) > ENOUGH


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("kind", ["hit", "miss"])
def test_every_cell_of_a_confusion_matrix_can_be_read(theme: dict[str, str], kind: str) -> None:
    cells = [_cell(100 * share, share, kind == "hit") for share in np.linspace(0.01, 1, 11)]
    assert {cell["kind"] for cell in cells} == {kind}
    assert min(contrast(theme, kind, cell["strength"]) for cell in cells) > ENOUGH
