"""What a GPU computes: the same each time, and what the CPU computes. Only where torch sees a CUDA device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from coverslip.experiment import run
from coverslip.predict import Model
from coverslip.start import begin

from .conftest import TINY, Cli, images_of
from .test_compare import GRID
from .test_ranks import curve, finished, torchrun

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

SETTINGS = [text for text in TINY if text != "-s"]
DEPTHWISE = ["model.backbone=mobilenetv2_035", "pixels.height=64", "pixels.width=96", "augment.random_crop=0.1", "training.ema=0.9"]

Trained = Callable[..., Path]


@pytest.fixture
def trained(gels: Path, tmp_path: Path) -> Trained:
    def train(name: str, *settings: str) -> Path:
        start = begin(str(gels), recipe="quick", settings=[*SETTINGS, "training.device=gpu", *settings], out=tmp_path / name, resume=False)
        run(start.config, start.folder, recipe=start.recipe)
        return start.folder

    return train


@pytest.mark.parametrize("more", [[], DEPTHWISE], ids=["small", "depthwise"])
def test_a_run_gives_the_same_numbers_again(trained: Trained, more: list[str]) -> None:
    first, second = trained("first", *more), trained("second", *more)
    pd.testing.assert_frame_equal(curve(first), curve(second), check_exact=True)
    assert torch.cuda.get_device_name() in (first / "environment.json").read_text()


def test_the_model_scores_on_the_cpu_as_on_the_gpu(trained: Trained, gels: Path) -> None:
    bundle = trained("run", *DEPTHWISE) / "bundle"
    images = images_of(gels)[:12]
    there, here = (Model(bundle, device=device, runtime="torch").predict(images) for device in ("gpu", "cpu"))
    columns = [name for name in there.columns if name.startswith("p_")]
    assert columns
    np.testing.assert_allclose(there[columns].to_numpy(), here[columns].to_numpy(), atol=1e-3)


def test_the_upper_half_of_a_network_learns_from_maps_that_the_gpu_made(trained: Trained, weights_of_nothing: Path) -> None:
    settings = ("training.regime=finetune", f"model.weights={weights_of_nothing}", "training.frozen_share=0.5", "training.views=2")
    made = trained("upper", *DEPTHWISE, *settings)
    assert np.isfinite(curve(made)["train_loss"].dropna()).all()
    summary = json.loads((made / "summary.json").read_text())
    assert 0 < summary["trainable_weights"] < summary["weights"]


def test_runs_on_cpu_and_gpu_share_a_frozen_backbone(cli: Cli, gels: Path, tmp_path: Path) -> None:
    grid = tmp_path / "tiny.toml"
    grid.write_text(GRID)
    done = cli("compare", gels, "--grid", grid, "--out", tmp_path / "study")
    assert done.status == 0, done.err
    table = pd.read_csv(tmp_path / "study" / "results.csv")
    assert table["hardware_type"].nunique() == 2
    assert table["error"].isna().all(), table["error"].tolist()


@pytest.fixture
def weights_of_nothing(tmp_path: Path) -> Path:
    """Weights as a file: those of a network that has learned nothing."""
    import timm
    from safetensors.torch import save_model

    save_model(timm.create_model("mobilenetv2_035"), str(tmp_path / "mobilenetv2_035.safetensors"))
    return tmp_path / "mobilenetv2_035.safetensors"


def test_torchrun_trains_over_nccl(gels: Path, tmp_path: Path) -> None:
    settings = [part for text in (*SETTINGS, "training.device=gpu") for part in ("-s", text)]
    where = ["--standalone", "--nproc-per-node", "1"]
    status, _, said = finished(torchrun(where, "train", gels, "--recipe", "quick", *settings, "--out", tmp_path / "run"))
    assert status == 0, said
    assert (tmp_path / "run" / "bundle" / "model.safetensors").is_file()
