import numpy as np
import pytest
import torch
from torch.nn import functional

from coverslip.config import TrainingConfig
from coverslip.training.losses import MARGIN, build_loss

CPU = torch.device("cpu")
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.0, 1.0]])
SEVERAL = torch.tensor([[1, 0, 1], [0, 1, 0]])
ONES = np.ones(3)


def test_one_label_is_weighted_cross_entropy() -> None:
    weights = np.array([0.5, 1.0, 2.0])
    targets = torch.tensor([0, 2])
    found = build_loss(TrainingConfig(), weights, CPU, several=False)(LOGITS, targets)
    expected = functional.cross_entropy(LOGITS, targets, weight=torch.tensor(weights, dtype=torch.float32))
    assert found.mean() == pytest.approx(float(expected))


def test_several_labels_are_binary_cross_entropy_with_positive_weights() -> None:
    weights = np.array([1.0, 3.0, 0.5])
    found = build_loss(TrainingConfig(), weights, CPU, several=True)(LOGITS, SEVERAL)
    expected = functional.binary_cross_entropy_with_logits(
        LOGITS, SEVERAL.float(), pos_weight=torch.tensor(weights, dtype=torch.float32), reduction="none"
    ).mean(dim=1)
    torch.testing.assert_close(found, expected)


def test_focal_loss_in_closed_form() -> None:
    found = build_loss(TrainingConfig(loss="focal"), ONES, CPU, several=True)(LOGITS, SEVERAL)
    score = torch.where(SEVERAL == 1, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    torch.testing.assert_close(found, (-((1 - score) ** 2) * score.log()).mean(dim=1))


def test_asymmetric_loss_in_closed_form() -> None:
    found = build_loss(TrainingConfig(loss="asymmetric"), ONES, CPU, several=True)(LOGITS, SEVERAL)
    score = LOGITS.sigmoid()
    shifted = (score - MARGIN).clamp_min(0)
    expected = torch.where(SEVERAL == 1, -score.log(), -(shifted**4) * (1 - shifted).log()).mean(dim=1)
    torch.testing.assert_close(found, expected)
    easy = build_loss(TrainingConfig(loss="asymmetric"), np.ones(1), CPU, several=True)(torch.tensor([[-4.0]]), torch.tensor([[0]]))
    assert float(easy) == 0.0


@pytest.mark.parametrize("loss", ["entropy", "focal", "asymmetric"])
def test_gradients_point_towards_the_labels(loss: str) -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    build_loss(TrainingConfig(loss=loss), ONES, CPU, several=True)(logits, SEVERAL).mean().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.equal(logits.grad < 0, SEVERAL == 1)


def test_label_smoothing_of_several_labels_pulls_towards_one_half() -> None:
    found = build_loss(TrainingConfig(label_smoothing=0.2), ONES, CPU, several=True)(LOGITS, SEVERAL)
    expected = functional.binary_cross_entropy_with_logits(LOGITS, SEVERAL.float() * 0.8 + 0.1, reduction="none").mean(dim=1)
    torch.testing.assert_close(found, expected)
