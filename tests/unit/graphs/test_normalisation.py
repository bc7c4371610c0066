from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from coverslip.data.normalisation import Normalisation
from coverslip.graphs.builder import GraphBuilder
from coverslip.graphs.normalisation import normalised

from .running import outputs_of

PLAIN = Normalisation((3.0, 10.0), (200.0, 255.0), mean=(0.3, 0.5), deviation=(0.2, 0.25))
KINDS = {
    "plain": PLAIN,
    "alike": replace(PLAIN, low=(0.0,), high=(255.0,), mean=(0.5,), deviation=(0.25,)),
    "clipped and inverted": replace(PLAIN, clip=True, invert=True),
    "together": replace(PLAIN, per_image="together"),
    "each": replace(PLAIN, per_image="each", invert=True),
    "percentiles": replace(PLAIN, percentiles=(0.5, 99.3), clip=True),
    "percentiles of few": replace(PLAIN, percentiles=(0.0, 100.0)),
}


@pytest.mark.parametrize("size", [(20, 31), (150, 220)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_is_that_of_torch(kind: str, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, *size, 2)).astype(np.uint8)
    pixels[2] = 17  # an even image has no range and no deviation
    expected = KINDS[kind].apply(torch.from_numpy(pixels)).numpy()
    graph = GraphBuilder()
    found = outputs_of(graph, normalised(graph, "x", KINDS[kind], size), {"x": pixels.transpose(0, 3, 1, 2).astype(np.float32)})
    np.testing.assert_allclose(found[:2], expected[:2], atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(found[2], expected[2], atol=2e-2)  # rounding over nothing
