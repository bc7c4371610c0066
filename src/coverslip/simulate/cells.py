"""Four-channel fluorescence microscopy: fields of simulated cells whose green channel shows one to three organelle patterns.

Names of classes and channels, file names and table follow the image classification data of the Human Protein Atlas (Ouyang et al. 2019,
Nature Methods 16, 1254): red microtubules, green the protein of interest, blue nucleus, yellow endoplasmic reticulum. The shares of the
classes are like theirs. Optics and camera are a Gaussian blur, background light, photon (Poisson) noise and read noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from coverslip.runtime import Progress, derived_seed
from coverslip.simulate.anatomy import PATTERNS, REFERENCE_SIDE, Layout, lay_out, texture
from coverslip.simulate.note import png_note
from coverslip.structures import FloatArray

CELL_CLASSES = tuple(PATTERNS)
CHANNELS = ("red", "green", "blue", "yellow")
SHARES = {
    "Nucleoplasm": 0.40, "Cytosol": 0.28, "Plasma membrane": 0.16, "Nucleoli": 0.14, "Mitochondria": 0.12, "Golgi apparatus": 0.10,
    "Nuclear bodies": 0.09, "Nuclear speckles": 0.07, "Centrosome": 0.055, "Nuclear membrane": 0.04, "Microtubules": 0.03,
    "Endoplasmic reticulum": 0.02,
}  # fmt: skip
"""Share of the fields that carry a class; the Human Protein Atlas's own shares, rounded, with a steeper end."""
FIELD_IMAGES = 4
"""Images of a field, where there are enough images for that."""
SMALLEST_SIDE = 64


@dataclass(frozen=True)
class Field:
    """What the images of one field of view share: protein, staining, culture, optics, exposure.

    Attributes:
        labels: classes of the protein, one to three.
        strengths: how strongly each of them is stained, in (0, 1].
        staining, background: brightness of stain and background light, one a channel, as a share of a full camera well.
        photons: photons of a full well.
        blur: deviation of the optics' point spread, in reference pixels.
        radius: mean radius of a cell as a share of the side.
        crowding: share of places that hold a cell.
    """

    name: str
    labels: tuple[str, ...]
    strengths: tuple[float, ...]
    staining: FloatArray
    background: FloatArray
    photons: float
    blur: float
    radius: float
    crowding: float


def write_cells(folder: Path, images: int, seed: int, side: int, progress: Progress) -> None:
    """Write `train.csv`, `classes.txt` and `images/<Id>_<channel>.png` into a folder that exists."""
    (folder / "images").mkdir()
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CELL_CLASSES), encoding="utf-8")
    fields = cell_fields(images, seed)
    lines = ["Id,Target,Field"]
    for place in range(images):
        index = place * len(fields) // images
        field, number = fields[index], place - -(-index * images // len(fields))
        identity = f"{field.name}-{number}"
        rng = np.random.default_rng(derived_seed("simulate", "cells", seed, field.name, number))
        for channel, pixels in zip(CHANNELS, draw_cells(rng, field, side), strict=True):
            Image.fromarray(pixels).save(folder / "images" / f"{identity}_{channel}.png", pnginfo=png_note(), compress_level=1)
        lines.append(f"{identity},{' '.join(str(CELL_CLASSES.index(label)) for label in field.labels)},{field.name}")
        progress("simulate", place + 1, images, {})
    (folder / "train.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")


def cell_fields(images: int, seed: int) -> list[Field]:
    """The fields of a simulation of so many images, in the order of the table.

    Each has `FIELD_IMAGES` images, or fewer where there are too few images for every class to be there.
    """
    count = max(-(-images // FIELD_IMAGES), min(images, len(CELL_CLASSES)))
    fields = []
    for index, labels in enumerate(label_sets(np.random.default_rng(derived_seed("simulate", "cells", seed)), count)):
        rng = np.random.default_rng(derived_seed("simulate", "cells", seed, "field", index))
        fields.append(
            Field(
                name=f"field{index + 1:05d}",
                labels=labels,
                strengths=tuple(rng.uniform(0.7, 1.0, len(labels)).tolist()),
                staining=np.clip(np.exp(rng.normal(np.log(0.45), 0.3, len(CHANNELS))), 0.2, 0.8),
                background=rng.uniform(0.005, 0.05, len(CHANNELS)),
                photons=float(np.exp(rng.uniform(np.log(300), np.log(1500)))),
                blur=rng.uniform(0.5, 0.8),
                radius=rng.uniform(0.19, 0.25),
                crowding=rng.uniform(0.6, 1.0),
            )
        )
    return fields


def label_sets(rng: np.random.Generator, count: int) -> list[tuple[str, ...]]:
    """One to three classes for each of so many fields, in the order of the classes; the numbers of fields follow `SHARES`.

    Of the fields 8 % carry three classes and 36 % two. Every class is there when there are at least as many fields as classes.
    """
    triples, pairs = round(0.08 * count), round(0.36 * count)
    sizes = [3] * triples + [2] * pairs + [1] * (count - triples - pairs)
    shares = np.array([SHARES[name] for name in CELL_CLASSES])
    left = np.maximum(np.rint(shares / shares.sum() * sum(sizes)), 1)
    left[np.argmax(left)] += sum(sizes) - left.sum()
    sets = []
    for size in sizes:
        chosen = np.sort(rng.choice(len(CELL_CLASSES), size, replace=False, p=left / left.sum()))
        left[chosen] -= 1
        sets.append(tuple(CELL_CLASSES[index] for index in chosen))
    return [sets[index] for index in rng.permutation(count)]


def draw_cells(rng: np.random.Generator, field: Field, side: int) -> tuple[npt.NDArray[np.uint16], ...]:
    """One image of a field: for each of `CHANNELS` a `uint16` array (side, side). The cells themselves do not depend on the labels."""
    layout = lay_out(rng, side, radius=field.radius, crowding=field.crowding)
    brightness = np.exp(rng.normal(0, 0.2, (len(CHANNELS), layout.count)))[:, layout.owner]
    red, blue, yellow = layout.fibres + 0.07 * layout.cytoplasm, _nuclear_stain(rng, layout), layout.mesh + 0.05 * layout.cell
    green = 0.05 * layout.cell
    for label, strength in zip(field.labels, field.strengths, strict=True):
        green = green + strength * PATTERNS[label](rng, layout)
    stains = (red, green, blue, yellow)
    return tuple(_photograph(rng, field, index, stain * brightness[index]) for index, stain in enumerate(stains))


def _nuclear_stain(rng: np.random.Generator, layout: Layout) -> FloatArray:
    return layout.nucleus * (0.75 + 0.1 * texture(rng, "grain", layout.side)) * (1 - 0.6 * layout.nucleoli)


def _photograph(rng: np.random.Generator, field: Field, channel: int, stain: FloatArray) -> npt.NDArray[np.uint16]:
    """Blur, background light, photons, and a camera of 16 bits with an offset."""
    side = stain.shape[0]
    sharp = ndimage.gaussian_filter(stain, field.blur * side / REFERENCE_SIDE)
    haze = field.background[channel] * np.clip(1 + 0.25 * texture(rng, "cloud", side), 0, None)
    photons = rng.poisson((field.staining[channel] * sharp + haze) * field.photons)
    counts = 500 + photons * (60_000 / field.photons) + rng.normal(0, 100, stain.shape)
    return np.asarray(np.clip(np.rint(counts), 0, 65_535), np.uint16)
