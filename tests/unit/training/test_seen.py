"""The numbers of training steps are those that scikit-learn gives for all their batches together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from coverslip.data.transforms import Mixing
from coverslip.training.batches import Batch
from coverslip.training.seen import Seen


def batches(several: bool) -> list[tuple[torch.Tensor, Batch]]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for _ in range(3):
        logits = torch.randn(40, 4, generator=generator)
        targets = (torch.rand(40, 4, generator=generator) < 0.3).long() if several else torch.randint(0, 3, (40,), generator=generator)
        made.append((logits, Batch(torch.zeros(40, 1, 1, 1), targets)))
    return made


@pytest.mark.parametrize("several", [False, True])
def test_macro_f1_of_many_steps_is_that_of_all_their_images(several: bool) -> None:
    seen, made = Seen.nothing(4), batches(several)
    assert np.isnan(seen.macro_f1)
    for number, (logits, batch) in enumerate(made):
        seen.add(torch.tensor(float(number)), logits, batch)
    targets = torch.cat([batch.targets for _, batch in made]).numpy()
    chosen = torch.cat([(logits > 0).long() if several else logits.argmax(dim=1) for logits, _ in made]).numpy()
    known = [0, 1, 2, 3] if several else [0, 1, 2]  # class 3 has no images
    assert seen.macro_f1 == pytest.approx(f1_score(targets, chosen, average="macro", labels=known))
    assert seen.losses == [0, 1, 2]


@pytest.mark.parametrize("several", [False, True])
def test_a_blend_counts_as_the_image_that_it_shows_more_of(several: bool) -> None:
    _, batch = batches(several)[0]
    share = torch.linspace(0, 1, 40)
    partner = torch.arange(40).flip(0)
    shown = Batch(batch.images, batch.targets, Mixing(share, partner)).shown
    expected = [batch.targets[row if share[row] >= 0.5 else partner[row]] for row in range(40)]
    assert torch.equal(shown, torch.stack(expected))
