"""Why a model says what it says: where it looked, which channel carried the decision, what the image looks like.

`Explainer` explains one image at a time and needs a bundle only; `folder.py` writes down the explanations of many. Nothing here trains.
"""

from coverslip.explain.explainer import Explainer, Explanation
from coverslip.explain.hiding import Hiding

__all__ = ["Explainer", "Explanation", "Hiding"]
