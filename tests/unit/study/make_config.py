"""The config of a run that takes a second."""

from __future__ import annotations

from pathlib import Path

from coverslip.config import RunConfig, load_config
from coverslip.simulate import simulate


def tiny_config(folder: Path) -> RunConfig:
    """A small network on 24 simulated gel photographs, which are drawn into a folder."""
    images = simulate("gels", folder / "gels", images=24, seed=3)
    tiny = {
        "data": {"path": str(images)},
        "pixels": {"height": 32, "width": 32},
        "model": {"backbone": "small_30k", "weights": "none"},
        "training": {"regime": "scratch", "epochs": 1, "batch_size": 8},
        "intervals": {"resamples": 100},
    }
    return load_config(tiny)
