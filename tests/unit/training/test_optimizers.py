import pytest
import torch
from torch import nn

from coverslip.config import TrainingConfig
from coverslip.training.optimizers import build_optimizer, set_rate


def parts() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, bias=False), nn.GroupNorm(2, 4), nn.LayerNorm(4))
    return body, nn.Linear(4, 2)


def config(**changes: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"learning_rate": 0.01, "weight_decay": 0.1, **changes})


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
def test_every_weight_is_learned_once_and_biases_and_norms_do_not_decay(name: str) -> None:
    body, head = parts()
    optimizer = build_optimizer([(body, 0.1), (head, 1.0)], config(optimizer=name))
    decay = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(decay) == 11
    for module in (body, head):
        for layer in module.modules():
            for kind, weight in layer.named_parameters(recurse=False):
                decays = isinstance(layer, (nn.Conv2d, nn.Linear)) and kind == "weight"
                assert decay[id(weight)] == (0.1 if decays else 0.0), (layer, kind)
                assert rates[id(weight)] == pytest.approx(0.001 if module is body else 0.01)


def test_frozen_weights_are_left_out() -> None:
    body, head = parts()
    body.requires_grad_(False)
    optimizer = build_optimizer([(body, 1.0), (head, 1.0)], config())
    assert {id(weight) for group in optimizer.param_groups for weight in group["params"]} == {id(weight) for weight in head.parameters()}


def test_the_rate_of_each_part_keeps_its_share() -> None:
    body, head = parts()
    optimizer = build_optimizer([(body, 0.25), (head, 1.0)], config())
    set_rate(optimizer, 0.4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.1, 0.4, 0.4])


def one_step(name: str, **changes: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight before, its gradient, and the weight after one step."""
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer([(layer, 1.0)], config(optimizer=name, **changes))
    layer(torch.tensor([[1.0, -2.0, 0.5]])).square().sum().backward()
    assert layer.weight.grad is not None
    gradient = layer.weight.grad.clone()
    optimizer.step()
    return before, gradient, layer.weight.detach()


def test_one_step_of_each_in_closed_form() -> None:
    torch.manual_seed(1)
    before, gradient, after = one_step("sgd", weight_decay=0.1)
    torch.testing.assert_close(after, before - 0.01 * (gradient + 0.1 * before))
    before, gradient, after = one_step("adamw", weight_decay=0.1)
    torch.testing.assert_close(after, before * (1 - 0.01 * 0.1) - 0.01 * gradient.sign(), atol=1e-5, rtol=1e-4)
    before, gradient, after = one_step("adam", weight_decay=0.0)
    torch.testing.assert_close(after, before - 0.01 * gradient.sign(), atol=1e-5, rtol=1e-4)
    before, gradient, after = one_step("rmsprop", weight_decay=0.0)
    torch.testing.assert_close(after, before - 0.01 * gradient.sign() / 0.1**0.5, atol=1e-5, rtol=1e-4)


def test_momentum_is_that_of_the_config() -> None:
    layer = nn.Linear(1, 1, bias=False)
    start = layer.weight.item()
    optimizer = build_optimizer([(layer, 1.0)], config(optimizer="sgd", momentum=0.5, weight_decay=0.0))
    for _ in range(3):
        layer.weight.grad = torch.ones(1, 1)
        optimizer.step()
    assert layer.weight.item() == pytest.approx(start - 0.01 * (1 + 1.5 + 1.75))
