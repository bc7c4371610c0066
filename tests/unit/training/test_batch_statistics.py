"""Joint batch norm of one process is batch norm: values, gradients, running statistics. That of several is in tests/flow/test_ranks.py."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, distributed, nn

from coverslip.training.batch_statistics import JointBatchNorm


@pytest.fixture(scope="module")
def group() -> Iterator[distributed.ProcessGroup]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed.group.WORLD  # type: ignore[misc]
    distributed.destroy_process_group()


def images(*shape: int) -> Tensor:
    return 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.BatchNorm2d(5), images(7, 5, 4, 6)),
        (nn.BatchNorm2d(5, affine=False, momentum=None), images(7, 5, 4, 6)),
        (nn.BatchNorm2d(5, track_running_stats=False), images(7, 5, 4, 6)),
        (nn.BatchNorm1d(5), images(9, 5)),
        (BatchNormAct2d(5, act_layer=nn.SiLU), images(7, 5, 4, 6).to(memory_format=torch.channels_last)),
    ],
    ids=["plain", "cumulative", "untracked", "vectors", "timm"],
)
def test_it_is_that_of_torch(group: distributed.ProcessGroup, module: nn.Module, x: Tensor) -> None:
    wanted, found = copy.deepcopy(module), copy.deepcopy(module)
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    for _ in range(2):
        expected = wanted(first)
        with JointBatchNorm(group):
            got = found(second)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (expected * weights).sum().backward()
    (got * weights).sum().backward()
    torch.testing.assert_close(second.grad, first.grad, rtol=1e-4, atol=1e-5)
    for (name, one), (_, other) in zip(wanted.state_dict().items(), found.state_dict().items(), strict=True):
        torch.testing.assert_close(other, one, msg=name)
    for one, other in zip(wanted.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-4)


def test_outside_training_the_running_statistics_are_used(group: distributed.ProcessGroup) -> None:
    module, x = nn.BatchNorm2d(5).eval(), images(7, 5, 4, 6)
    with JointBatchNorm(group):
        assert torch.equal(module(x), module(x))
        torch.testing.assert_close(module(x), x, rtol=1e-4, atol=1e-4)


def test_half_precision_stays_half(group: distributed.ProcessGroup) -> None:
    module, x = nn.BatchNorm2d(5), images(7, 5, 4, 6)
    with JointBatchNorm(group), torch.autocast("cpu", torch.bfloat16):
        found = module(x.to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), nn.BatchNorm2d(5)(x), rtol=0.05, atol=0.05)
