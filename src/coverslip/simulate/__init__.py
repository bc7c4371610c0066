"""Simulated images for tests and the demo: overlap charts, gel photographs, fluorescent cells. They are drawn, not measured.

Every pixel comes from a numpy generator: the same kind, seed and place in the class give the same bytes. What is not
the subject (file format, mode, size, brightness, contrast, tint, noise) is drawn from the same distributions for all
classes, so that only the subject tells them apart. Good for trying the software; no evidence about real images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from coverslip.errors import InputError, did_you_mean
from coverslip.runtime import Progress, derived_seed, no_progress, writing
from coverslip.simulate.cells import CELL_CLASSES, SMALLEST_SIDE, write_cells
from coverslip.simulate.charts import (
    BOTTOM,
    CHART_CLASSES,
    CHART_HEIGHT,
    CHART_WIDTH,
    GENOMES,
    LEFT,
    MIN_OVERLAP,
    TOP,
    save_chart,
)
from coverslip.simulate.gels import DARK_TINTS, GEL_CLASSES, LETTERS, NOT_GELS, Scene, Shape, save_photograph
from coverslip.simulate.note import NOTE

__all__ = [
    "BOTTOM", "CHART_HEIGHT", "CHART_WIDTH", "CLASSES", "DARK_TINTS", "GENOMES", "KINDS", "LEFT", "LETTERS", "MIN_OVERLAP", "NOTE",
    "NOT_GELS", "TOP", "Kind", "Scene", "Shape", "simulate",
]  # fmt: skip

Kind = Literal["charts", "gels", "cells"]
KINDS: tuple[str, ...] = get_args(Kind)
CLASSES: dict[str, tuple[str, ...]] = {"charts": CHART_CLASSES, "gels": GEL_CLASSES, "cells": CELL_CLASSES}


def simulate(kind: Kind, destination: Path, *, images: int = 240, seed: int = 0, side: int = 128, progress: Progress = no_progress) -> Path:
    """Write a folder of simulated images, whole or not at all.

    `charts`: 750x500 RGBA PNG of the coverage along a read, in class folders `regular`, `repeat`, `chimeric`, named
    `<genome>_<number>.png`; the genomes differ in depth and read length. `gels`: gel photographs and pictures that are
    none, in class folders `gel` and `not_gel`, mixed sizes, grey, RGB and RGBA, JPEG and PNG. `cells`: four-channel
    fluorescence microscopy of several labels an image, some classes rare: `images/<Id>_<channel>.png`, 16 bit grey, channels
    `red`, `green`, `blue`, `yellow`; `train.csv` with the columns `Id`, `Target` (class numbers with spaces between) and
    `Field` (images of one field share protein, staining, background and noise); `classes.txt` with the classes' names,
    a line each, number 0 first.

    Args:
        kind: `charts`, `gels` or `cells`.
        destination: a folder that does not exist yet, or is empty.
        images: how many in all. For charts and gels the classes get equal shares, the first ones one more where it does not
            divide. A sample of four channels is one image.
        seed: not negative; the same seed gives the same bytes.
        side: height and width of an image of cells, in pixels, at least 64; the cells grow with it. Charts and gels have
            sizes of their own.
        progress: called after each image.

    Returns:
        The destination.

    Raises:
        InputError: an unknown kind, too few images, a negative seed, a small side, or a destination that holds something.
        ResourceError: the disk is full or the folder cannot be written.
    """
    _check(kind, destination, images, seed, side)
    with writing(destination) as folder:
        folder.mkdir(parents=True)
        if kind == "cells":
            write_cells(folder, images, seed, side, progress)
        else:
            _write_class_folders(folder, kind, images, seed, progress)
    return destination


def _write_class_folders(folder: Path, kind: Literal["charts", "gels"], images: int, seed: int, progress: Progress) -> None:
    classes = CLASSES[kind]
    numbers = np.random.default_rng(derived_seed("simulate", kind, seed)).permutation(images) + 1
    for name in classes:
        (folder / name).mkdir()
    for place in range(images):
        index, name = place // len(classes), classes[place % len(classes)]
        rng = np.random.default_rng(derived_seed("simulate", kind, seed, name, index))
        number = f"{numbers[place]:06d}"
        if kind == "charts":
            save_chart(folder / name, name, seed, index, number, rng)
        else:
            save_photograph(folder / name, name, number, rng)
        progress("simulate", place + 1, images, {})


def _check(kind: str, destination: Path, images: int, seed: int, side: int) -> None:
    if kind not in KINDS:
        raise InputError(f"{kind!r} cannot be simulated.{did_you_mean(kind, KINDS)} Known kinds: {', '.join(KINDS)}")
    if images < len(CLASSES[kind]):
        raise InputError(f"images = {images}, but {kind} have {len(CLASSES[kind])} classes; ask for at least one image a class")
    if seed < 0:
        raise InputError(f"seed = {seed}; expected 0 or a positive number")
    if side < SMALLEST_SIDE:
        raise InputError(f"side = {side}; below {SMALLEST_SIDE} pixels the patterns of cells cannot be told apart")
    if destination.exists() and not destination.is_dir():
        raise InputError(f"{destination} is a file; name a folder that does not exist yet")
    if destination.is_dir() and any(destination.iterdir()):
        raise InputError(f"{destination} is not empty; name a new folder, or remove this one first")
