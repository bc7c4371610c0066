import numpy as np
import pytest
import torch
from torch import nn

from coverslip.training.averaging import RunningAverage


def module_with(value: float) -> nn.Module:
    module = nn.BatchNorm1d(2)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.fill_(int(value) if name == "num_batches_tracked" else value)
    return module


def weight_of(module: nn.Module) -> float:
    return float(module.state_dict()["weight"][0])


def averaged(values: list[float], decay: float) -> float:
    average = RunningAverage(decay)
    for value in values:
        average.update(module_with(value))
    return float(average.values["weight"][0])


def in_closed_form(values: list[float], decay: float) -> float:
    """Starts at the first value; then sum of each value times its share times the decays after it."""
    decays = [min(decay, (1 + t) / (10 + t)) for t in range(1, len(values) + 1)]
    total = values[0] * float(np.prod(decays))
    for place, value in enumerate(values):
        total += value * (1 - decays[place]) * float(np.prod(decays[place + 1 :]))
    return total


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.9, 0.999])
def test_the_average_in_closed_form(decay: float) -> None:
    values = np.random.default_rng(0).normal(size=40).tolist()
    for n in (1, 2, 5, 40):
        assert averaged(values[:n], decay) == pytest.approx(in_closed_form(values[:n], decay), abs=1e-5)


def test_the_first_steps_do_not_linger() -> None:
    assert averaged([100.0] + [0.0] * 30, 0.999) < 1
    assert averaged([5.0] * 20, 0.999) == pytest.approx(5)


def test_weights_and_buffers_are_averaged_and_counters_are_not() -> None:
    average = RunningAverage(0.5)
    average.update(module_with(1))
    average.update(module_with(2))
    assert set(average.values) == {"weight", "bias", "running_mean", "running_var"}
    assert all(1 < float(tensor[0]) < 2 for tensor in average.values.values())


def test_the_average_is_put_in_and_taken_out_again() -> None:
    average, module = RunningAverage(0.5), module_with(1)
    average.update(module)
    with torch.no_grad():
        module.weight.fill_(9)
    average.update(module)
    inside = float(average.values["weight"][0])
    before = average.swapped(module)
    assert weight_of(module) == inside != 9
    average.swapped_back(module, before)
    assert weight_of(module) == 9
    assert float(average.values["weight"][0]) == inside


def test_an_average_that_has_seen_nothing_changes_nothing() -> None:
    module = module_with(3)
    RunningAverage(0.5).swapped(module)
    assert weight_of(module) == 3


def test_the_average_does_not_follow_the_module_by_itself() -> None:
    average, module = RunningAverage(0.5), module_with(1)
    average.update(module)
    with torch.no_grad():
        module.weight.fill_(9)
    assert float(average.values["weight"][0]) == 1


def test_it_goes_on_where_it_was_saved() -> None:
    whole, second = RunningAverage(0.9), RunningAverage(0.9)
    for value in (1.0, 5.0, 2.0):
        whole.update(module_with(value))
    second.restore({name: dict(kept) if isinstance(kept, dict) else kept for name, kept in whole.state().items()})
    second.values = {name: tensor.clone() for name, tensor in second.values.items()}
    for value in (4.0, 8.0):
        whole.update(module_with(value))
        second.update(module_with(value))
    assert all(torch.equal(tensor, second.values[name]) for name, tensor in whole.values.items())
