"""Under which licence the weights stand that a model started from."""

from __future__ import annotations

from pathlib import Path

from coverslip.errors import WeightsError
from coverslip.models.backbones import BackboneSpec
from coverslip.models.weights import read_header, stated_licence

KNOWN = (
    "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-SA-4.0", "CC-BY-NC-SA-4.0", "CC0-1.0",
)  # fmt: skip
SPDX = {name.casefold(): name for name in KNOWN}
"""Identifiers as SPDX writes them, by their lower case."""


def weights_licence(spec: BackboneSpec) -> str | None:
    """The SPDX identifier, or the words of the file; empty where the file does not say; None for weights that nobody else made."""
    if spec.source == "none":
        return None
    file = Path(spec.source)
    if not file.is_file():
        return ""
    try:
        said = stated_licence(read_header(file), spec.architecture)
    except WeightsError:
        return ""
    return SPDX.get(said.casefold(), said)
