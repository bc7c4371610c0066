"""Real four-channel fields: four files an image and one 16-bit OME-TIFF an image give the network the same input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from coverslip.config import RunConfig, load_config
from coverslip.preparing import Prepared, prepare
from coverslip.training.recipes import load_recipe

CHANNELS = ("red", "green", "blue", "yellow")


def inputs(config: RunConfig) -> tuple[Prepared, np.ndarray]:
    """The data of a run, and float32 (n, 4, h, w), what its network sees."""
    import torch

    from coverslip.fitting import choose_normalisation
    from coverslip.models.classifier import build_classifier

    data = prepare(config)
    classifier = build_classifier(data.config.model, channels=4, classes=28, size=data.geometry.size, seed=0)
    normalisation = choose_normalisation(data.config, data.geometry, data.depth, data.pixels, classifier, data.split.rows("train"))
    return data, normalisation.apply(torch.from_numpy(np.array(data.pixels.read(np.arange(len(data.table)))))).numpy()


@pytest.mark.parametrize("side", [512, 200])
@pytest.mark.parametrize("range_", ["full", "dataset", "image"])
def test_png_files_and_ome_tiff_files_give_one_input(data_folder: Path, tmp_path: Path, side: int, range_: str) -> None:
    cells = data_folder / "cells"
    table = pd.read_csv(cells / "train.csv")
    table.to_csv(tmp_path / "train.csv", index=False)
    for name in table["Id"]:
        planes = np.stack([np.asarray(Image.open(cells / "images" / f"{name}_{channel}.png")) for channel in CHANNELS])
        metadata = {"axes": "CYX", "Channel": {"Name": list(CHANNELS)}}
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", planes.astype(np.uint16) * 257, photometric="minisblack", metadata=metadata)
    own = {"model": {"backbone": "small_30k", "weights": "none"}, "pixels": {"height": side, "width": side, "range": range_}}
    recipe = load_recipe("hpa-28")
    files = inputs(load_config(recipe, own, {"split": {"group": "Field"}, "data": {"path": str(cells / "train.csv")}}))
    stacks = inputs(
        load_config(recipe, own, {"split": {"group": "Field"}, "data": {"path": str(tmp_path / "train.csv"), "image": "{Id}.ome.tif"}})
    )
    assert files[1].shape == (32, 4, side, side)
    assert files[0].depth == 8
    assert stacks[0].depth == 16
    assert np.abs(files[1] - stacks[1]).max() <= 1e-6
