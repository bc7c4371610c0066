import ctypes
import platform
import subprocess
import sys

import pytest
import torch

from coverslip.errors import ConfigError
from coverslip.models.hardware import (
    autocast,
    choose_device,
    choose_memory_format,
    choose_precision,
    hardware_name,
    processor_vendor,
    repeatable,
)

CPU = torch.device("cpu")


def machine(patch: pytest.MonkeyPatch, *, cuda: bool = False, mps: bool = False, bf16: bool = False) -> None:
    patch.setattr("torch.cuda.is_available", lambda: cuda)
    patch.setattr("torch.backends.mps.is_available", lambda: mps)
    patch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: bf16)
    patch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    patch.setattr("coverslip.models.hardware.processor_vendor", lambda: "GenuineIntel")
    patch.setattr("torch.cpu._is_amx_tile_supported", lambda: bf16)


@pytest.mark.parametrize(
    ("wanted", "cuda", "mps", "found"),
    [("auto", False, False, "cpu"), ("auto", True, True, "cuda"), ("auto", False, True, "mps"),
     ("gpu", True, False, "cuda"), ("gpu", False, True, "mps"),
     ("cpu", True, True, "cpu")],
)  # fmt: skip
def test_the_device(monkeypatch: pytest.MonkeyPatch, wanted: str, cuda: bool, mps: bool, found: str) -> None:
    machine(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device(wanted).type == found


def test_a_gpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    with pytest.raises(ConfigError, match=r'training\.device = "gpu".*"auto" or "cpu"'):
        choose_device("gpu")


@pytest.mark.parametrize(
    ("device", "bf16", "found"),
    [("cpu", True, "bf16"), ("cpu", False, "32"), ("cuda", True, "bf16"), ("cuda", False, "32"), ("mps", True, "32")],
)
def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch, device: str, bf16: bool, found: str) -> None:
    machine(monkeypatch, bf16=bf16)
    assert choose_precision("auto", torch.device(device)) == found


@pytest.mark.parametrize(
    ("vendor", "dot_product", "found"),
    [("AuthenticAMD", True, "bf16"), ("AuthenticAMD", False, "32"), ("GenuineIntel", True, "32"), ("", True, "32")],
)
def test_the_dot_product_in_bfloat16_is_taken_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, vendor: str, dot_product: bool, found: str
) -> None:
    machine(monkeypatch)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: dot_product)
    monkeypatch.setattr("coverslip.models.hardware.processor_vendor", lambda: vendor)
    assert choose_precision("auto", CPU) == found


def test_the_maker_of_the_processor_is_known() -> None:
    if platform.machine() in ("x86_64", "AMD64"):
        assert processor_vendor() in ("GenuineIntel", "AuthenticAMD")
    else:
        assert processor_vendor() == ""


@pytest.mark.parametrize("wanted", ["32", "bf16"])
@pytest.mark.parametrize("bf16", [True, False])
def test_a_precision_that_was_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch, wanted: str, bf16: bool) -> None:
    machine(monkeypatch, bf16=bf16)
    assert choose_precision(wanted, CPU) == wanted


def test_multiplications_run_in_the_precision_that_is_named() -> None:
    x = torch.ones(2, 2)
    with autocast(CPU, "bf16"):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(CPU, "32"):
        assert (x @ x).dtype == torch.float32


def test_the_name_of_the_cpu() -> None:
    assert hardware_name(CPU) == "cpu"


def test_planes_stand_apart_where_cuda_meets_depthwise_convolutions() -> None:
    dense, depthwise = torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 4, 3, groups=4)
    both, cuda = torch.nn.Sequential(dense, depthwise), torch.device("cuda")
    assert choose_memory_format(dense, cuda) == torch.channels_last
    assert choose_memory_format(both, cuda) == torch.contiguous_format
    assert choose_memory_format(both, CPU) == torch.channels_last


def test_cudnn_gives_the_same_numbers_each_time_inside_the_block() -> None:
    with repeatable(torch.device("cuda")):
        assert torch.backends.cudnn.deterministic
        with repeatable(CPU):
            assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.deterministic


FAULTS = """
import resource, torch
from coverslip.models.hardware import keeping_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
with keeping_memory(torch.device("cpu")):
    for _ in range(8):  # blocks that fit are there after a few
        faults()
    with keeping_memory(torch.device("cpu")):
        print(faults())
    print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's memory")
def test_memory_that_is_freed_is_kept_inside_the_block() -> None:
    said = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True).stdout  # a heap of its own
    plain, inner, outer = map(int, said.split())
    assert plain > 10_000
    assert inner < plain / 2
    assert outer < plain / 2
