"""The networks that are ours, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from coverslip.models.curves import curve_network
from coverslip.models.small import AlexNet, sized

OWN_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "small_30k": partial(sized, (16, 16, 16, 24), 64),
    "small_200k": partial(sized, (16, 32, 48, 64), 128),
    "small_600k": partial(sized, (24, 48, 80, 128), 192),
    "curve_160k": partial(curve_network, 16),
    "curve_630k": partial(curve_network, 32),
    "alexnet_grey": AlexNet,
}
"""Constructors by name; each takes the number of channels and the (height, width) of the input, then its arguments by name."""

SMALL_ARGUMENTS = {"width": (1, 512), "depth": (1, 16)}
"""Smallest and largest value of each argument of the small networks: planes after the stem, and residual blocks a stage."""

OWN_ARGUMENTS = {name: {} if name == "alexnet_grey" else SMALL_ARGUMENTS for name in OWN_NETWORKS}
"""What each takes as `model.arguments`: whole numbers in these ranges."""

OWN_SIZES = dict.fromkeys(OWN_NETWORKS, (128, 128)) | dict.fromkeys(("curve_160k", "curve_630k"), (512, 768)) | {"alexnet_grey": (224, 224)}
"""(height, width) of the input where the config names none, in pixels."""

OWN_SMALLEST = dict.fromkeys(OWN_NETWORKS, 8) | {"alexnet_grey": 63}
"""Smallest side of the input, in pixels; the small ones are meant for 16 and more, those of curves for charts at about their full size."""
