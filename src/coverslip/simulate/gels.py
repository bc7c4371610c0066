"""Gel photographs, and pictures that are none, through the same simulated camera."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from coverslip.simulate.note import NOTE, png_note
from coverslip.structures import FloatArray

Shape = tuple[int, int]
Scene = Callable[[np.random.Generator, Shape], FloatArray]

GEL_CLASSES = ("gel", "not_gel")
DARK_TINTS = ((1.0, 1.0, 1.0), (0.93, 0.97, 1.06), (1.05, 1.0, 0.93), (0.97, 1.03, 0.98))
LETTERS = np.array(list("aaabcdeeeefghiiklmnnooprrsstttuvwy"))


def save_photograph(folder: Path, label: str, number: str, rng: np.random.Generator) -> None:
    """Draw a scene, photograph it, and save it in a format, mode and size that say nothing about the class."""
    shape = int(rng.integers(200, 520)), int(rng.integers(220, 620))
    scene = _gel if label == "gel" else NOT_GELS[rng.integers(len(NOT_GELS))]
    grey = _photograph(rng, scene(rng, shape))
    mode = str(rng.choice(["L", "RGB", "RGBA"], p=[0.4, 0.4, 0.2]))
    tint = DARK_TINTS[rng.integers(len(DARK_TINTS))] if mode != "L" else (1.0, 1.0, 1.0)
    colours = np.clip(grey[..., None] * np.asarray(tint) * 255, 0, 255).round().astype(np.uint8)
    picture = Image.fromarray(colours[..., 0] if mode == "L" else colours).convert(mode)
    if mode == "RGBA" or rng.random() < 0.5:
        picture.save(folder / f"{number}.png", pnginfo=png_note(), compress_level=2)
    else:
        picture.save(folder / f"{number}.jpg", quality=int(rng.integers(70, 96)), comment=NOTE)


def _photograph(rng: np.random.Generator, scene: FloatArray) -> FloatArray:
    """Light, exposure, inversion, sharpness and noise of a camera: float (height, width) in [0, 1]."""
    if rng.random() < 0.3:
        scene = -scene
    scene = (scene - scene.mean()) / max(float(scene.std()), 1e-6) + rng.uniform(0.0, 0.9) * _light(rng, (scene.shape[0], scene.shape[1]))
    scene = ndimage.gaussian_filter(scene, rng.uniform(0.3, 1.3))
    scene = (scene - scene.mean()) / max(float(scene.std()), 1e-6)
    exposed = rng.uniform(0.22, 0.7) + rng.uniform(0.05, 0.2) * np.clip(scene, -3, 4)
    return np.clip(exposed + rng.normal(0, rng.uniform(0.006, 0.035), scene.shape), 0, 1)


def _light(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Slow changes of brightness, a slope with soft patches on it: mean 0, deviation 1."""
    rows, columns = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])
    angle = rng.uniform(0, 2 * np.pi)
    light = (
        np.cos(angle) * rows
        + np.sin(angle) * columns
        - rng.uniform(0.0, 0.8) * (rows**2 + columns**2)
        + rng.uniform(0, 0.4) * _cloud(rng, shape, (1, 1))
    )
    return np.asarray((light - light.mean()) / light.std(), np.float64)


def _cloud(rng: np.random.Generator, shape: Shape, cells: Shape) -> FloatArray:
    """Smooth noise with about `cells` bumps down and across: mean 0, deviation 1."""
    coarse = rng.normal(size=(cells[0] + 3, cells[1] + 3)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.float64)
    return np.asarray((smooth - smooth.mean()) / max(float(smooth.std()), 1e-6), np.float64)


class _Band(NamedTuple):
    """Place from the wells to the lower edge, in [0, 1]; strength; half thickness as a share of the image height."""

    place: float
    strength: float
    thickness: float


class _Spot(NamedTuple):
    """A band where it is drawn, in pixels."""

    column: float
    row: float
    width: float
    thickness: float
    strength: float


def _gel(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Lanes of bands that ran down from wells, one or two of them a ladder, on an unevenly lit gel."""
    height, width = shape
    lanes = int(np.clip(rng.integers(4, 15), 3, width // 26))
    margin = rng.uniform(0.02, 0.12) * width
    pitch = (width - 2 * margin) / lanes
    lane_width = pitch * rng.uniform(0.55, 0.82)
    wells = height * rng.uniform(0.04, 0.16)
    bend = _bend(rng, shape)
    ladders = {0} if rng.random() < 0.6 else {int(rng.integers(lanes)), lanes - 1}
    ladder, shared = _ladder(rng), np.sort(rng.uniform(0.25, 0.85, int(rng.integers(1, 4))))
    gel = 0.12 * rng.uniform(0.2, 1.0) * _light(rng, shape)
    slot = rng.uniform(0.0, 0.35) * (rng.random() < 0.75), max(0.008 * height, 1.5)
    for lane in range(lanes):
        centre = margin + (lane + 0.5) * pitch
        for band in ladder if lane in ladders else _sample(rng, shared):
            row = wells + band.place * (height - wells)
            _add(gel, _Spot(centre, row, lane_width, max(band.thickness * height, 1.0), band.strength), bend)
        if lane not in ladders and rng.random() < 0.4:
            gel += _smear(rng, shape, wells)[:, None] * _across(np.arange(width, dtype=np.float64), centre, lane_width)
        _add(gel, _Spot(centre, wells, lane_width, slot[1], -slot[0]), bend)
        _add(gel, _Spot(centre, wells + 2 * slot[1], lane_width, slot[1] / 2, slot[0]), bend)
    for _ in range(int(rng.poisson(4))):
        dust = _Spot(rng.uniform(0, width), rng.uniform(0, height), rng.uniform(1.5, 4), rng.uniform(0.5, 1.5), rng.uniform(0.2, 0.7))
        _add(gel, dust, bend)
    return gel


def _bend(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """How far the front of the run lies lower at each column, in pixels: a tilt and a smile."""
    position = np.linspace(-1, 1, shape[1])
    return np.asarray(shape[0] * (rng.normal(0, 0.02) * position**2 + rng.normal(0, 0.015) * position), np.float64)


def _ladder(rng: np.random.Generator) -> list[_Band]:
    steps = int(rng.integers(6, 13))
    places = rng.uniform(0.1, 0.25) + rng.uniform(0.5, 0.65) * np.linspace(0, 1, steps) ** rng.uniform(1.2, 1.9)
    strengths = rng.uniform(0.35, 0.7) * (1 + 0.8 * (rng.random(steps) < 0.2))
    return [_Band(float(place), float(strength), 0.006) for place, strength in zip(places, strengths, strict=True)]


def _sample(rng: np.random.Generator, shared: FloatArray) -> list[_Band]:
    """Some of the products that the lanes share, now and then one of its own, and often primers near the lower edge."""
    bands = [_Band(float(place), rng.gamma(3.0, 0.2), rng.uniform(0.006, 0.014)) for place in shared if rng.random() < 0.7]
    if rng.random() < 0.5:
        bands.append(_Band(rng.uniform(0.86, 0.92), rng.uniform(0.15, 0.6), rng.uniform(0.012, 0.025)))
    if rng.random() < 0.2:
        bands.append(_Band(rng.uniform(0.15, 0.8), rng.uniform(0.1, 0.5), 0.009))
    return bands


def _smear(rng: np.random.Generator, shape: Shape, wells: float) -> FloatArray:
    """Brightness of a smear down a lane: float (height,)."""
    rows = (np.arange(shape[0]) - wells) / shape[0]
    hump = np.exp(-0.5 * ((rows - rng.uniform(0.1, 0.8)) / rng.uniform(0.08, 0.3)) ** 2)
    return np.asarray(rng.uniform(0.03, 0.25) * hump * np.clip(rows / 0.03, 0, 1), np.float64)


def _across(columns: FloatArray, centre: float, width: float) -> FloatArray:
    """Profile of a lane: flat in the middle, soft at its sides."""
    return np.asarray(np.exp(-((2 * np.abs(columns - centre) / width) ** 5)), np.float64)


def _add(gel: FloatArray, spot: _Spot, bend: FloatArray) -> None:
    """Add a spot in place: Gaussian down, with a tail towards the wells; flat across."""
    height, width = gel.shape
    left, right = max(int(spot.column - spot.width), 0), min(int(spot.column + spot.width) + 2, width)
    if left >= right:
        return
    front = spot.row + bend[left:right]
    top = max(int(front.min() - 6 * spot.thickness), 0)
    rows = np.arange(top, min(int(front.max() + 5 * spot.thickness) + 2, height), dtype=np.float64)
    below = rows[:, None] - front
    profile = np.exp(-0.5 * (below / np.where(below < 0, 1.4 * spot.thickness, spot.thickness)) ** 2)
    gel[top : top + len(rows), left:right] += (
        spot.strength * profile * _across(np.arange(left, right, dtype=np.float64), spot.column, spot.width)
    )


def _blurred(picture: Image.Image, sigma: float) -> FloatArray:
    return np.asarray(ndimage.gaussian_filter(np.asarray(picture, np.float64) / 255, sigma), np.float64)


def _page(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Printed text, in one or two columns."""
    height, width = shape
    paper = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(paper)
    size = int(rng.integers(9, 22))
    font = ImageFont.load_default(size)
    columns = int(rng.integers(1, 3))
    for column in range(columns):
        left, right = (column + 0.06) * width / columns, (column + 0.95) * width / columns
        for row in np.arange(0.05 * height, 0.95 * height, size * rng.uniform(1.2, 1.7)):
            x = left
            stop = left + (right - left) * (1.0 if rng.random() < 0.8 else rng.uniform(0.0, 0.9))
            while x < stop:
                word = "".join(rng.choice(LETTERS, int(rng.integers(2, 10))))
                extent = draw.textlength(word, font)
                if x + extent > stop:
                    break
                draw.text((x, row), word, fill=0, font=font)
                x += extent + size * 0.3
    return np.asarray(paper, np.float64) / 255


def _texture(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Clouds, wood, cloth: noise of several sizes, stretched one way."""
    stretch = np.exp(rng.uniform(-1.6, 1.6))
    texture = np.zeros(shape)
    fade = rng.uniform(0.45, 0.95)
    for octave in range(5):
        cells = 3 * 2**octave
        down, across = int(np.clip(cells * stretch, 1, 200)), int(np.clip(cells / stretch, 1, 200))
        texture += fade**octave * _cloud(rng, shape, (down, across))
    return np.asarray(np.tanh(texture * rng.uniform(0.2, 2.0)), np.float64)


def _cells(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Round cells with a rim and a nucleus."""
    height, width = shape
    field = Image.new("L", (width, height), 128)
    draw = ImageDraw.Draw(field)
    radius = rng.uniform(9, 30)
    body, rim, nucleus = (int(v) for v in rng.integers(0, 256, 3))
    for _ in range(int(rng.uniform(0.15, 0.6) * height * width / (np.pi * radius**2))):
        x, y, rx, ry = rng.uniform(0, width), rng.uniform(0, height), radius * rng.uniform(0.7, 1.3), radius * rng.uniform(0.7, 1.3)
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=body, outline=rim, width=2)
        draw.ellipse((x - rx * 0.4, y - ry * 0.45, x + rx * 0.4, y + ry * 0.35), fill=nucleus)
    return _blurred(field, rng.uniform(0.5, 2.5))


def _objects(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Things with a soft shading before a gradient."""
    height, width = shape
    scene = 0.5 + 0.25 * _light(rng, shape)
    for _ in range(int(rng.integers(1, 9))):
        mask = Image.new("L", (width, height), 0)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        size = rng.uniform(0.06, 0.3) * min(height, width)
        corners = int(rng.integers(3, 24))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = size * rng.uniform(0.6, 1.0, corners)
        outline = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
        ImageDraw.Draw(mask).polygon(outline.ravel().tolist(), fill=255)
        cover = _blurred(mask, rng.uniform(0.5, 4.0))
        scene = scene * (1 - cover) + cover * (rng.uniform(0, 1) + 0.12 * _light(rng, shape))
    return scene


def _stripes(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """Blinds, fences, bar codes: bars that stand like lanes, without bands."""
    height, width = shape
    edges = np.cumsum(rng.gamma(rng.uniform(1.0, 8.0), 1.0, 60) * width / rng.uniform(30, 160))
    bars = rng.uniform(0, 1, 61)
    lean = rng.normal(0, 0.08)
    sideways = np.arange(width) + lean * np.arange(height)[:, None]
    scene = bars[np.searchsorted(edges, sideways + 0.2 * width)]
    scene = ndimage.gaussian_filter1d(scene, rng.uniform(0.5, 4.0), axis=1)
    scene = scene if rng.random() < 0.75 else np.tile(scene.mean(axis=1, keepdims=True), (1, width)) + 0.4 * scene[::-1]
    return np.asarray(scene + rng.uniform(0, 0.15) * _light(rng, shape), np.float64)


def _windows(rng: np.random.Generator, shape: Shape) -> FloatArray:
    """A house at night: lit windows in rows and columns, like bands in lanes, but with hard corners and no wells."""
    height, width = shape
    wall = Image.new("L", (width, height), int(rng.integers(10, 60)))
    draw = ImageDraw.Draw(wall)
    columns, rows = int(rng.integers(4, 15)), int(rng.integers(4, 16))
    pitch_x, pitch_y = width / columns, height / rows
    wide, high = pitch_x * rng.uniform(0.4, 0.85), pitch_y * rng.uniform(0.25, 0.7)
    share = rng.uniform(0.25, 0.8)
    for row in range(rows):
        for column in range(columns):
            x, y = (column + 0.12) * pitch_x, (row + 0.15) * pitch_y
            light = int(rng.integers(120, 256)) if rng.random() < share else int(rng.integers(0, 50))
            draw.rectangle((x, y, x + wide, y + high), fill=light)
    turned = wall.rotate(rng.normal(0, 3), resample=Image.Resampling.BILINEAR, fillcolor=30)
    return _blurred(turned, rng.uniform(0.3, 2.0))


NOT_GELS: tuple[Scene, ...] = (_page, _texture, _cells, _objects, _stripes, _windows)
