"""Numbers on coloured cells can be read on light and on dark pages, and the colours of curves told apart by the colour-blind.

Contrasts are those of WCAG 2.1 (section 1.4.3 asks for 4.5). Colour blindness is that of Machado, Oliveira and Fernandes (2009) at
full strength; colours are told apart by their distance in CIELAB, where a difference of 2.3 is just noticed.
"""

from __future__ import annotations

import itertools
import re
from importlib import resources

import numpy as np
import pytest

from coverslip.report.figures import SERIES, VARIABLES
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
    return float(linear(shown) @ [0.2126, 0.7152, 0.0722])


def contrast(theme: dict[str, str], cell: str, opacity: float) -> float:
    """Of the ink of a theme on a cell that lies over its paper."""
    behind = opacity * colour(theme[cell]) + (1 - opacity) * colour(theme["paper"])
    low, high = sorted((luminance(behind), luminance(colour(theme["ink"]))))
    return (high + 0.05) / (low + 0.05)


BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.0890])


def linear(shown: np.ndarray) -> np.ndarray:
    return np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)


def seen(theme: dict[str, str], name: str, kind: str) -> np.ndarray:
    """A colour in CIELAB as it is seen with a kind of colour blindness."""
    xyz = TO_XYZ @ np.clip(np.array(BLINDNESS[kind]) @ linear(colour(theme[name])), 0, 1) / WHITE
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_curves_are_told_apart_by_the_colour_blind(theme: dict[str, str], kind: str) -> None:
    names = [VARIABLES[colour] for colour in SERIES]
    assert len(set(names)) == 6
    distances = [np.linalg.norm(seen(theme, a, kind) - seen(theme, b, kind)) for a, b in itertools.combinations(names, 2)]
    assert min(distances) > 10


def test_red_and_green_are_not_told_apart_by_this_measure() -> None:
    """The measure finds what it is meant to find."""
    theme = {"red": "#a05000", "green": "#6f6f00"}
    assert np.linalg.norm(seen(theme, "red", "deuteranopia") - seen(theme, "green", "deuteranopia")) < 10


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
