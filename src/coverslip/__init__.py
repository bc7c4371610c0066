"""Scientific images to classifiers that can be trusted, explained and deployed.

    run = coverslip.train("gels/", recipe="gel-probe")
    model = coverslip.load("runs/gels")
    model.predict(["a.png", "b.png"])

Names are imported on first use, so that `import coverslip` stays fast and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from coverslip.estimator import ImageClassifier as ImageClassifier
    from coverslip.experiment import run as run
    from coverslip.predict import Model as Model
    from coverslip.predict import load as load
    from coverslip.start import train as train

_PLACES = {
    "ImageClassifier": "coverslip.estimator",
    "Model": "coverslip.predict",
    "load": "coverslip.predict",
    "run": "coverslip.experiment",
    "train": "coverslip.start",
}

__all__ = ["ImageClassifier", "Model", "__version__", "load", "run", "train"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'coverslip' has no attribute {name!r}; it offers {', '.join(_PLACES)}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
