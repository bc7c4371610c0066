"""Overlap charts: how many reads of a simulated genome lie over each place of a read, as a thin blue line on white."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from coverslip.runtime import derived_seed
from coverslip.simulate.note import png_note
from coverslip.structures import FloatArray

CHART_CLASSES = ("regular", "repeat", "chimeric")

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


def save_chart(folder: Path, label: str, seed: int, index: int, number: str, rng: np.random.Generator) -> None:
    """Write `<genome>_<number>.png`: the chart `index` of a class, whose genome follows from seed and index."""
    genome = _genome(seed, index % GENOMES)
    length = max(4 * MIN_OVERLAP, genome.read_length * rng.gamma(6.0, 0.2))
    pile = {"regular": _regular, "repeat": _repeat, "chimeric": _chimeric}[label](rng, genome, length)
    picture = _draw_chart(rng, pile, length, genome.ceiling)
    picture.save(folder / f"{genome.name}_{number}.png", pnginfo=png_note(), compress_level=4)


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
