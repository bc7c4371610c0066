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
    from coverslip.explain import Explainer as Explainer
    from coverslip.export import export_bundle as export
    from coverslip.judge import evaluate_bundle as evaluate
    from coverslip.predict import Model as Model
    from coverslip.predict import load as load
    from coverslip.start import audit_data as audit
    from coverslip.start import compare as compare
    from coverslip.start import train as train

_PLACES = {
    "Explainer": ("coverslip.explain", "Explainer"),
    "ImageClassifier": ("coverslip.estimator", "ImageClassifier"),
    "Model": ("coverslip.predict", "Model"),
    "audit": ("coverslip.start", "audit_data"),
    "compare": ("coverslip.start", "compare"),
    "evaluate": ("coverslip.judge", "evaluate_bundle"),
    "export": ("coverslip.export", "export_bundle"),
    "load": ("coverslip.predict", "load"),
    "run": ("coverslip.experiment", "run"),
    "train": ("coverslip.start", "train"),
}

__all__ = ["Explainer", "ImageClassifier", "Model", "__version__", "audit", "compare", "evaluate", "export", "load", "run", "train"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'coverslip' has no attribute {name!r}; it offers {', '.join(_PLACES)}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
