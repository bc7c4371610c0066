"""Where simulated cells lie, and the patterns of their organelles: outlines, fibres, meshes, spots. Free of noise.

Lengths are in pixels and grow with the side of the image, rows down and columns to the right, angles in radians from the columns'
direction towards higher rows. A pattern is float (side, side), not negative, about 1 where it is bright and up to 2 in small spots: how
much of a stain is there, before optics and camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from coverslip.structures import FloatArray

IntArray = npt.NDArray[np.int64]

REFERENCE_SIDE = 128
"""The side of an image, in pixels, at which the lengths in this file are meant."""
HARMONICS = (2, 3, 4, 5)
ANGLES = 512


@dataclass(frozen=True)
class Outlines:
    """Closed curves around centres, one an entry: ellipses with a slow wobble.

    `rows`, `columns`: centres, (count,). `reaches`: distance from centre to curve at `ANGLES` angles, (count, ANGLES).
    """

    rows: FloatArray
    columns: FloatArray
    reaches: FloatArray

    def reach(self, which: IntArray, angles: FloatArray) -> FloatArray:
        """Distance from centre to curve of the outlines `which` at these angles, which broadcast together."""
        steps = np.floor(angles * (ANGLES / (2 * np.pi))).astype(np.int64) % ANGLES
        return np.asarray(self.reaches[which, steps])

    def relative(self, which: IntArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
        """Distance of points from the centre as a share of the outline's distance in their direction: 1 on the curve."""
        down, right = rows - self.rows[which], columns - self.columns[which]
        return np.asarray(np.hypot(down, right) / self.reach(which, np.arctan2(down, right)))

    def place(self, which: IntArray, angles: FloatArray, shares: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Rows and columns of points in a direction, at a share of the way from the centre to the curve."""
        distances = shares * self.reach(which, angles)
        return self.rows[which] + distances * np.sin(angles), self.columns[which] + distances * np.cos(angles)


@dataclass(frozen=True)
class Layout:
    """Cells of one image and the maps that follow from them; maps are (side, side), entries of cells (count,).

    Attributes:
        scale: pixels per pixel of the reference side.
        cells, nuclei: outlines of each cell and its nucleus.
        centrosomes: angle, seen from the nucleus, at which the centrosome and the Golgi apparatus lie.
        owner: which cell a pixel belongs to, also outside of all cells (the nearest).
        depth: distance to the membrane of the own cell, positive inside.
        nuclear_depth: distance to the membrane of the own cell's nucleus, positive inside; at most `depth`.
        cell, nucleus, cytoplasm: soft masks in [0, 1]; `cytoplasm` is the cell without the nucleus.
        nucleoli, fibres, mesh: shared structures: dark holes of the nuclear stain, microtubules, endoplasmic reticulum.
    """

    scale: float
    cells: Outlines
    nuclei: Outlines
    centrosomes: FloatArray
    owner: IntArray
    depth: FloatArray
    nuclear_depth: FloatArray
    cell: FloatArray
    nucleus: FloatArray
    cytoplasm: FloatArray
    nucleoli: FloatArray
    fibres: FloatArray
    mesh: FloatArray

    @property
    def side(self) -> int:
        """Height and width, in pixels."""
        return len(self.owner)

    @property
    def count(self) -> int:
        """Number of cells, those at the border included."""
        return len(self.centrosomes)


def lay_out(rng: np.random.Generator, side: int, *, radius: float, crowding: float) -> Layout:
    """Place cells on a jittered, turned grid and draw what all channels share.

    The cell nearest to the middle is always there, so that no image is empty. Where cells meet, the border lies half way.

    Args:
        rng: draws everything.
        side: height and width of the image, in pixels.
        radius: mean radius of a cell as a share of the side.
        crowding: share of the places of the grid that hold a cell, in (0, 1].
    """
    scale = side / REFERENCE_SIDE
    rows, columns = _sites(rng, side, radius * side, crowding)
    count = len(rows)
    turns = rng.uniform(0, np.pi, count)
    sizes = radius * side * np.exp(rng.normal(0, 0.12, count))
    cells = _outlines(rng, (rows, columns), sizes, turns, (0.2, 0.07))
    shifts = rng.uniform(0, 0.22, count) * sizes
    ways = rng.uniform(0, 2 * np.pi, count)
    centres = rows + shifts * np.sin(ways), columns + shifts * np.cos(ways)
    nuclei = _outlines(rng, centres, sizes * rng.uniform(0.38, 0.48, count), turns + rng.normal(0, 0.4, count), (0.13, 0.02))
    owner, depth, nuclear_depth = _territories(cells, nuclei, side)
    cell, nucleus = _soft(depth), _soft(nuclear_depth)
    layout = Layout(
        scale=scale, cells=cells, nuclei=nuclei, centrosomes=rng.uniform(0, 2 * np.pi, count), owner=owner, depth=depth,
        nuclear_depth=nuclear_depth, cell=cell, nucleus=nucleus, cytoplasm=cell * (1 - nucleus),
        nucleoli=np.zeros_like(depth), fibres=np.zeros_like(depth), mesh=np.zeros_like(depth),
    )  # fmt: skip
    return replace(layout, nucleoli=_nucleoli(rng, layout), fibres=_fibres(rng, layout), mesh=_mesh(rng, layout))


def _sites(rng: np.random.Generator, side: int, radius: float, crowding: float) -> tuple[FloatArray, FloatArray]:
    """Centres of the cells that can be seen, at least one."""
    spacing = 1.7 * radius
    reach = int(np.ceil(side / spacing)) + 1
    down, right = (line.ravel() * spacing for line in np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64))
    down = down + rng.uniform(-0.28, 0.28, down.shape) * spacing + rng.uniform(-0.5, 0.5) * spacing
    right = right + rng.uniform(-0.28, 0.28, right.shape) * spacing + rng.uniform(-0.5, 0.5) * spacing
    turn = rng.uniform(0, 2 * np.pi)
    rows = side / 2 + np.cos(turn) * down - np.sin(turn) * right
    columns = side / 2 + np.sin(turn) * down + np.cos(turn) * right
    kept = rng.random(rows.shape) < crowding
    kept[np.argmin(np.hypot(rows - side / 2, columns - side / 2))] = True
    kept &= (np.minimum(rows, columns) > -radius) & (np.maximum(rows, columns) < side + radius)
    return rows[kept], columns[kept]


def _outlines(
    rng: np.random.Generator, centres: tuple[FloatArray, FloatArray], sizes: FloatArray, turns: FloatArray, spreads: tuple[float, float]
) -> Outlines:
    """Ellipses of these sizes and directions; `spreads`: deviations of the logarithm of the stretch and of the wobble."""
    angles = (np.arange(ANGLES) + 0.5) * (2 * np.pi / ANGLES)
    stretch = np.exp(rng.normal(0, spreads[0], len(sizes)))[:, None]
    turned = angles - turns[:, None]
    reaches = sizes[:, None] / np.hypot(np.cos(turned) / stretch, np.sin(turned) * stretch)
    for harmonic in HARMONICS:
        amplitude = rng.normal(0, spreads[1] * 2 / harmonic, (len(sizes), 1))
        reaches = reaches * (1 + amplitude * np.cos(harmonic * angles + rng.uniform(0, 2 * np.pi, (len(sizes), 1))))
    return Outlines(*centres, reaches)


def _territories(cells: Outlines, nuclei: Outlines, side: int) -> tuple[IntArray, FloatArray, FloatArray]:
    """Owner of each pixel, depth below its membrane and below its nuclear membrane."""
    rows, columns = np.mgrid[:side, :side].astype(np.float64)
    which = np.arange(len(cells.rows))[:, None, None]
    relative = cells.relative(which, rows, columns)
    owner = np.argmin(relative, axis=0)
    nearest = np.partition(relative, min(1, len(relative) - 1), axis=0)[:2]
    sizes = cells.reaches.mean(axis=1)[owner]
    margin = 1 - nearest[0] if len(relative) == 1 else np.minimum(1 - nearest[0], (nearest[1] - nearest[0]) / 2)
    depth = margin * sizes
    nuclear_depth = (1 - nuclei.relative(owner, rows, columns)) * nuclei.reaches.mean(axis=1)[owner]
    return owner, depth, np.minimum(nuclear_depth, depth - 1.5 * side / REFERENCE_SIDE)


def _soft(depth: FloatArray) -> FloatArray:
    return np.clip(depth + 0.5, 0.0, 1.0)


@lru_cache(maxsize=4)
def _textures(side: int) -> dict[str, FloatArray]:
    """Noise tiles of several grains, (4 side, 4 side), mean 0 and deviation 1; the same for every seed, cut at random places."""
    scale = side / REFERENCE_SIDE
    rng = np.random.default_rng(128)
    tiles = {}
    for name, grain in (("grain", 0.8), ("mesh", 1.5), ("speckles", 1.15), ("cloud", 12.0)):
        tile = ndimage.gaussian_filter(rng.normal(size=(4 * side, 4 * side)), grain * scale, mode="wrap")
        tiles[name] = (tile - tile.mean()) / tile.std()
    return tiles


def texture(rng: np.random.Generator, name: str, side: int) -> FloatArray:
    """A random cut of a noise tile (`grain`, `mesh`, `speckles`, `cloud`, from fine to slow): (side, side), near mean 0, deviation 1."""
    top, left = rng.integers(0, 3 * side, 2)
    cut = _textures(side)[name][top : top + side, left : left + side]
    return np.rot90(cut, int(rng.integers(4)))


def _spots(side: int, rows: FloatArray, columns: FloatArray, radii: FloatArray) -> FloatArray:
    """Sum of round Gaussian spots of height 1 with these deviations."""
    line = np.arange(side, dtype=np.float64)[:, None]
    down = np.exp(-0.5 * ((line - rows) / radii) ** 2)
    right = np.exp(-0.5 * ((line - columns) / radii) ** 2)
    return down @ right.T


def _each(rng: np.random.Generator, count: int, low: int, high: int) -> IntArray:
    """Numbers of cells, each repeated `low` to `high` times."""
    return np.repeat(np.arange(count), rng.integers(low, high + 1, count))


def _nucleoli(rng: np.random.Generator, layout: Layout) -> FloatArray:
    which = _each(rng, layout.count, 2, 4)
    rows, columns = layout.nuclei.place(which, rng.uniform(0, 2 * np.pi, len(which)), np.sqrt(rng.uniform(0, 0.4, len(which))))
    blobs = _spots(layout.side, rows, columns, rng.uniform(1.4, 2.3, len(which)) * layout.scale)
    return np.minimum(1.0, 1.6 * blobs) ** 1.5 * _soft(layout.nuclear_depth - 1.2 * layout.scale)


def _trace(
    rng: np.random.Generator,
    layout: Layout,
    which: IntArray,
    starts: tuple[FloatArray, FloatArray],
    headings: FloatArray,
    bends: FloatArray,
    steps: int,
) -> FloatArray:
    """Curves that begin at `starts` and end where they leave their cell, as a density of points.

    `headings`: directions at the start. `bends`: how much the direction changes in a step, on average. `steps`: how many, of 0.7
    reference pixels.
    """
    directions = headings[:, None] + np.cumsum(bends[:, None] + rng.normal(0, 0.06, (len(which), steps)), axis=1)
    rows = starts[0][:, None] + 0.7 * layout.scale * np.cumsum(np.sin(directions), axis=1)
    columns = starts[1][:, None] + 0.7 * layout.scale * np.cumsum(np.cos(directions), axis=1)
    nearest_row = np.clip(np.rint(rows), 0, layout.side - 1).astype(np.int64)
    nearest_column = np.clip(np.rint(columns), 0, layout.side - 1).astype(np.int64)
    inside = (layout.owner[nearest_row, nearest_column] == which[:, None]) & (layout.depth[nearest_row, nearest_column] > 0.5)
    return _splat(rows, columns, np.logical_and.accumulate(inside, axis=1), layout.side)


def _splat(rows: FloatArray, columns: FloatArray, weights: npt.NDArray[np.bool_], side: int) -> FloatArray:
    """Points shared out to the four pixels around them; those beyond the border are lost."""
    seen = weights & (rows >= 0) & (columns >= 0) & (rows < side - 1) & (columns < side - 1)
    rows, columns = rows[seen], columns[seen]
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    down, right = rows - top, columns - left
    corner = top * side + left
    places = np.concatenate([corner, corner + 1, corner + side, corner + side + 1])
    shares = np.concatenate([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
    return np.asarray(np.bincount(places, shares, side * side).reshape(side, side), np.float64)


def _fibres(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """Microtubules: long curves that wind around the nucleus and out to the membrane, faint where they cross the nucleus."""
    which = _each(rng, layout.count, 30, 42)
    angles = layout.centrosomes[which] + rng.normal(0, 1.6, len(which))
    starts = layout.nuclei.place(which, angles, rng.uniform(0.95, 1.7, len(which)))
    sense = rng.choice([-1.0, 1.0], len(which))
    headings = angles + sense * rng.uniform(0.4, 1.7, len(which))
    density = _trace(rng, layout, which, starts, headings, sense * rng.uniform(0.0, 0.04, len(which)), 70)
    return (1 - np.exp(-0.6 * density)) * (1 - 0.8 * layout.nucleus) * layout.cell


def _mesh(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """Endoplasmic reticulum: a net around the nucleus that thins out towards the membrane."""
    net = np.exp(-((texture(rng, "mesh", layout.side) / 0.45) ** 2))
    away = np.clip(-layout.nuclear_depth / (14 * layout.scale), 0, None)
    return (0.12 + 0.88 * net) * np.exp(-(away**1.5)) * layout.cytoplasm * _soft(layout.depth / 2 - 1)


def _nucleoplasm(rng: np.random.Generator, layout: Layout) -> FloatArray:
    return layout.nucleus * (0.55 + 0.08 * texture(rng, "grain", layout.side)) * (1 - 0.8 * layout.nucleoli)


def _nuclear_membrane(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """A thin rim around the nucleus, and a trace of stain in it."""
    rim = np.exp(-((layout.nuclear_depth / (0.9 * layout.scale)) ** 2))
    return (rim * (0.9 + 0.1 * texture(rng, "grain", layout.side)) + 0.12 * layout.nucleus) * layout.cell


def _nucleoli_stained(rng: np.random.Generator, layout: Layout) -> FloatArray:
    return 1.3 * layout.nucleoli + 0.08 * layout.nucleus


def _nuclear_speckles(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """Many ragged grains all over the nucleus, apart from the nucleoli."""
    grains = np.clip(1.3 * (texture(rng, "speckles", layout.side) - 0.35), 0, 1)
    return (grains + 0.06) * _soft(layout.nuclear_depth - 0.8 * layout.scale) * (1 - 0.9 * layout.nucleoli)


def _nuclear_bodies(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """Two to five small round dots in a nucleus."""
    which = _each(rng, layout.count, 2, 5)
    rows, columns = layout.nuclei.place(which, rng.uniform(0, 2 * np.pi, len(which)), np.sqrt(rng.uniform(0.1, 0.65, len(which))))
    dots = _spots(layout.side, rows, columns, rng.uniform(0.85, 1.1, len(which)) * layout.scale)
    return (1.8 * np.minimum(dots, 1.0) + 0.06) * layout.nucleus


def _endoplasmic_reticulum(rng: np.random.Generator, layout: Layout) -> FloatArray:
    return layout.mesh


def _golgi(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """A ribbon of stacks on the centrosome's side of the nucleus."""
    which = _each(rng, layout.count, 13, 20)
    angles = layout.centrosomes[which] + rng.normal(0, 0.45, len(which))
    rows, columns = layout.nuclei.place(which, angles, 1.15 + rng.gamma(2.0, 0.1, len(which)))
    stacks = _spots(layout.side, rows, columns, rng.uniform(0.8, 1.4, len(which)) * layout.scale)
    return np.minimum(stacks, 1.2) * layout.cytoplasm


def _microtubules(rng: np.random.Generator, layout: Layout) -> FloatArray:
    return layout.fibres


def _centrosome(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """One dot, or a pair, beside the nucleus, and a trace of stain in the cytoplasm."""
    which = _each(rng, layout.count, 1, 2)
    angles = layout.centrosomes[which] + rng.normal(0, 0.1, len(which))
    rows, columns = layout.nuclei.place(which, angles, 1.25 + rng.uniform(0, 0.12, len(which)))
    dots = _spots(layout.side, rows, columns, np.full(len(which), 1.05 * layout.scale))
    return (1.8 * np.minimum(dots, 1.0) + 0.06) * layout.cytoplasm


def _plasma_membrane(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """A rim around the cell, uneven along its length."""
    rim = np.exp(-(((layout.depth - 0.8 * layout.scale) / (1.0 * layout.scale)) ** 2))
    return rim * np.clip(0.85 + 0.2 * texture(rng, "cloud", layout.side), 0.4, 1.2) + 0.07 * layout.cell


def _mitochondria(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """Short thick threads in the cytoplasm."""
    which = _each(rng, layout.count, 40, 60)
    angles = rng.uniform(0, 2 * np.pi, len(which))
    rows, columns = layout.nuclei.place(which, angles, 1.15 + rng.gamma(1.6, 0.25, len(which)))
    headings = angles + rng.normal(0, 0.8, len(which))
    threads = _trace(rng, layout, which, (rows, columns), headings, rng.normal(0, 0.1, len(which)), 10)
    threads = ndimage.gaussian_filter(threads, 0.5 * layout.scale)
    return np.minimum(1.3 * threads, 1.0) * layout.cytoplasm


def _cytosol(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """A smooth haze, thick in the middle of the cell and thin at its edge."""
    thickness = np.sqrt(np.clip(layout.depth / (12 * layout.scale), 0, 1))
    return thickness * np.clip(0.45 + 0.05 * texture(rng, "cloud", layout.side), 0, 1) * (layout.cytoplasm + 0.15 * layout.nucleus)


PATTERNS: dict[str, Callable[[np.random.Generator, Layout], FloatArray]] = {
    "Nucleoplasm": _nucleoplasm,
    "Nuclear membrane": _nuclear_membrane,
    "Nucleoli": _nucleoli_stained,
    "Nuclear speckles": _nuclear_speckles,
    "Nuclear bodies": _nuclear_bodies,
    "Endoplasmic reticulum": _endoplasmic_reticulum,
    "Golgi apparatus": _golgi,
    "Microtubules": _microtubules,
    "Centrosome": _centrosome,
    "Plasma membrane": _plasma_membrane,
    "Mitochondria": _mitochondria,
    "Cytosol": _cytosol,
}
"""A drawing function for each class, in the order of the Human Protein Atlas: from a generator and a layout to a pattern."""
