"""Simulated images for tests and the demo: overlap charts and gel photographs. They are drawn, not measured.

Every pixel comes from a numpy generator: the same kind, seed and place in the class give the same bytes. What is not
the subject (file format, mode, size, brightness, contrast, tint, noise) is drawn from the same distributions for all
classes, so that only the subject tells them apart. Good for trying the software; no evidence about real images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

from coverslip.errors import InputError, did_you_mean
from coverslip.runtime import Progress, derived_seed, no_progress, writing
from coverslip.structures import FloatArray

Kind = Literal["charts", "gels"]
KINDS: tuple[str, ...] = get_args(Kind)
CLASSES = {"charts": ("regular", "repeat", "chimeric"), "gels": ("gel", "not_gel")}
NOTE = "Simulated by coverslip: drawn, not measured"

Shape = tuple[int, int]
Scene = Callable[[np.random.Generator, Shape], FloatArray]


def simulate(kind: Kind, destination: Path, *, images: int = 240, seed: int = 0, progress: Progress = no_progress) -> Path:
    """Write a folder of class folders of simulated images, whole or not at all.

    `charts`: 750x500 RGBA PNG of the coverage along a read, classes `regular`, `repeat`, `chimeric`, named
    `<genome>_<number>.png`; the genomes differ in depth and read length. `gels`: gel photographs and pictures that are
    none, classes `gel` and `not_gel`, mixed sizes, grey, RGB and RGBA, JPEG and PNG.

    Args:
        kind: `charts` or `gels`.
        destination: a folder that does not exist yet, or is empty.
        images: how many in all; the classes get equal shares, the first ones one more where it does not divide.
        seed: not negative; the same seed gives the same bytes.
        progress: called after each image.

    Returns:
        The destination.

    Raises:
        InputError: an unknown kind, too few images, a negative seed, or a destination that holds something.
        ResourceError: the disk is full or the folder cannot be written.
    """
    _check(kind, destination, images, seed)
    classes = CLASSES[kind]
    numbers = np.random.default_rng(derived_seed("simulate", kind, seed)).permutation(images) + 1
    with writing(destination) as folder:
        for name in classes:
            (folder / name).mkdir(parents=True)
        for place in range(images):
            index, name = place // len(classes), classes[place % len(classes)]
            rng = np.random.default_rng(derived_seed("simulate", kind, seed, name, index))
            number = f"{numbers[place]:06d}"
            if kind == "charts":
                _save_chart(folder / name, name, _genome(seed, index % GENOMES), number, rng)
            else:
                _save_photograph(folder / name, name, number, rng)
            progress("simulate", place + 1, images, {})
    return destination


def _check(kind: str, destination: Path, images: int, seed: int) -> None:
    if kind not in KINDS:
        raise InputError(f"{kind!r} cannot be simulated.{did_you_mean(kind, KINDS)} Known kinds: {', '.join(KINDS)}")
    if images < len(CLASSES[kind]):
        raise InputError(f"images = {images}, but {kind} have {len(CLASSES[kind])} classes; ask for at least one image a class")
    if seed < 0:
        raise InputError(f"seed = {seed}; expected 0 or a positive number")
    if destination.exists() and not destination.is_dir():
        raise InputError(f"{destination} is a file; name a folder that does not exist yet")
    if destination.is_dir() and any(destination.iterdir()):
        raise InputError(f"{destination} is not empty; name a new folder, or remove this one first")


# Overlap charts -------------------------------------------------------------------------------------------------------

CHART_WIDTH, CHART_HEIGHT = 750, 500
LEFT, TOP, BOTTOM = 94, 50, 450
"""Where the axes of a chart lie, in pixels; what rises above them is cut off."""
GENOMES = 6
MIN_OVERLAP = 1_000.0
"""Shortest overlap between two reads that an assembler would keep, in bases."""


@dataclass(frozen=True)
class _Genome:
    """What the charts of one genome share. Lengths in bases, depth and ceiling in reads."""

    name: str
    depth: float
    read_length: float
    end_loss: float
    ceiling: float


@dataclass(frozen=True)
class _Overlaps:
    """Where other reads lie on the read that is charted, in bases from its start."""

    starts: FloatArray
    ends: FloatArray


def _genome(seed: int, index: int) -> _Genome:
    rng = np.random.default_rng(derived_seed("simulate", "genome", seed, index))
    depth = float(np.exp(rng.uniform(np.log(6), np.log(60))))
    read_length = rng.uniform(8_000, 14_000)
    return _Genome(f"sim{index + 1}", depth, read_length, read_length * rng.uniform(0.012, 0.04), depth * rng.uniform(1.9, 2.6))


def _save_chart(folder: Path, label: str, genome: _Genome, number: str, rng: np.random.Generator) -> None:
    length = max(4 * MIN_OVERLAP, genome.read_length * rng.gamma(6.0, 0.2))
    pile = {"regular": _regular, "repeat": _repeat, "chimeric": _chimeric}[label](rng, genome, length)
    picture = _draw_chart(rng, pile, length, genome.ceiling)
    note = PngInfo()
    note.add_text("Description", NOTE)
    picture.save(folder / f"{genome.name}_{number}.png", pnginfo=note, compress_level=4)


def _reads(rng: np.random.Generator, genome: _Genome, depth: float, span: tuple[float, float]) -> _Overlaps:
    """Overlaps with reads that fall on a stretch at random; what hangs over the stretch is cut, the ends lose a little."""
    low, high = span
    longest = genome.read_length * 4
    count = rng.poisson(depth / genome.read_length * (high - low + longest))
    lengths = np.minimum(genome.read_length * rng.gamma(3.0, 1 / 3.0, count), longest)
    begins = rng.uniform(low - longest, high, count)
    starts = np.maximum(begins, low) + rng.exponential(genome.end_loss, count)
    ends = np.minimum(begins + lengths, high) - rng.exponential(genome.end_loss, count)
    kept = ends - starts >= min(MIN_OVERLAP, (high - low) / 3)
    return _Overlaps(starts[kept], ends[kept])


def _together(*piles: _Overlaps) -> _Overlaps:
    return _Overlaps(np.concatenate([p.starts for p in piles]), np.concatenate([p.ends for p in piles]))


def _local_depth(rng: np.random.Generator, genome: _Genome) -> float:
    return float(genome.depth * np.exp(rng.normal(0.0, 0.45)))


def _uneven(rng: np.random.Generator, genome: _Genome, depth: float, length: float) -> _Overlaps:
    """Reads over the whole length; on some charts a part is sequenced less, so that a shallow sag is no sign of a chimera."""
    pile = _reads(rng, genome, depth, (0.0, length))
    if rng.random() < 0.65:
        return pile
    centre, width, loss = rng.uniform(0, length), rng.uniform(0.1, 0.35) * length, rng.uniform(0.2, 0.6)
    middle = (pile.starts + pile.ends) / 2
    kept = rng.random(len(middle)) > loss * np.exp(-0.5 * ((middle - centre) / width) ** 2)
    return _Overlaps(pile.starts[kept], pile.ends[kept])


def _regular(rng: np.random.Generator, genome: _Genome, length: float) -> _Overlaps:
    return _uneven(rng, genome, _local_depth(rng, genome), length)


def _repeat(rng: np.random.Generator, genome: _Genome, length: float) -> _Overlaps:
    """A stretch that stands elsewhere in the genome too also collects the reads of its copies."""
    depth = _local_depth(rng, genome)
    place = rng.choice(["start", "end", "middle", "all"], p=[0.31, 0.31, 0.3, 0.08])
    width = length * (rng.uniform(0.06, 0.3) if place == "middle" else rng.uniform(0.12, 0.5))
    low = {"start": 0.0, "end": length - width, "middle": rng.uniform(0.12, 0.82) * (length - width), "all": 0.0}[str(place)]
    span = (0.0, length) if place == "all" else (low, low + width)
    copies = 1.5 + rng.exponential(1.0) if place == "all" else 0.6 + rng.exponential(0.9)
    return _together(_uneven(rng, genome, depth, length), _reads(rng, genome, depth * copies, span))


def _chimeric(rng: np.random.Generator, genome: _Genome, length: float) -> _Overlaps:
    """Two pieces of the genome joined by mistake: other reads stop on either side of the joint, few cross it."""
    joint = length * rng.uniform(0.15, 0.85)
    depths = [_local_depth(rng, genome) for _ in range(2)]
    if rng.random() < 0.2:
        depths[rng.integers(2)] *= rng.uniform(1.5, 3.0)
    gap = genome.end_loss * rng.exponential(0.6)
    left = _reads(rng, genome, depths[0], (0.0, max(joint - gap, 0.1 * length)))
    right = _reads(rng, genome, depths[1], (min(joint + gap, 0.9 * length), length))
    crossing = _reads(rng, genome, min(depths) * rng.beta(1.0, 3.0), (0.0, length))
    return _together(left, right, crossing)


def _draw_chart(rng: np.random.Generator, pile: _Overlaps, length: float, ceiling: float) -> Image.Image:
    """Coverage as a thin blue line on white, drawn at twice the size and reduced. The ends of some reads match nothing."""
    columns = np.arange(int(2 * rng.uniform(512, 578)))
    silent = length * rng.exponential(0.06, 2) * (rng.random(2) < 0.4)
    places = (columns + 0.5) / len(columns) * (length + silent[0] + silent[1]) - silent[0]
    begun = np.searchsorted(np.sort(pile.starts), places, side="right")
    ended = np.searchsorted(np.sort(pile.ends), places, side="right")
    heights = 2 * BOTTOM - 1 - (begun - ended) / ceiling * 2 * (BOTTOM - TOP)
    canvas = Image.new("L", (2 * CHART_WIDTH, 2 * CHART_HEIGHT), 255)
    points = np.stack([columns + 2.0 * LEFT, np.maximum(heights, -10.0)], axis=1)
    ImageDraw.Draw(canvas).line(points.ravel().tolist(), fill=0, width=3)
    paper = np.array(canvas.reduce(2))
    paper[:TOP] = 255
    paper[BOTTOM:] = 255
    pixels = np.full((CHART_HEIGHT, CHART_WIDTH, 4), 255, np.uint8)
    pixels[..., 0] = pixels[..., 1] = paper
    return Image.fromarray(pixels)


# Gel photographs, and pictures that are none ---------------------------------------------------------------------------

DARK_TINTS = ((1.0, 1.0, 1.0), (0.93, 0.97, 1.06), (1.05, 1.0, 0.93), (0.97, 1.03, 0.98))
LETTERS = np.array(list("aaabcdeeeefghiiklmnnooprrsstttuvwy"))


def _save_photograph(folder: Path, label: str, number: str, rng: np.random.Generator) -> None:
    """Draw a scene, photograph it, and save it in a format, mode and size that say nothing about the class."""
    shape = int(rng.integers(200, 520)), int(rng.integers(220, 620))
    scene = _gel if label == "gel" else NOT_GELS[rng.integers(len(NOT_GELS))]
    grey = _photograph(rng, scene(rng, shape))
    mode = str(rng.choice(["L", "RGB", "RGBA"], p=[0.4, 0.4, 0.2]))
    tint = DARK_TINTS[rng.integers(len(DARK_TINTS))] if mode != "L" else (1.0, 1.0, 1.0)
    colours = np.clip(grey[..., None] * np.asarray(tint) * 255, 0, 255).round().astype(np.uint8)
    picture = Image.fromarray(colours[..., 0] if mode == "L" else colours).convert(mode)
    if mode == "RGBA" or rng.random() < 0.5:
        note = PngInfo()
        note.add_text("Description", NOTE)
        picture.save(folder / f"{number}.png", pnginfo=note, compress_level=2)
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
