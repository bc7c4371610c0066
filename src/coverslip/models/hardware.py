"""Which device, and in which precision."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn

from coverslip.errors import ConfigError

NO_GPU = 'training.device = "gpu", but torch sees no GPU here'
"""How the error begins where a GPU is asked for and there is none."""
AMD = "AuthenticAMD"


def choose_device(wanted: str) -> torch.device:
    """The device for `auto`, `cpu` or `gpu`.

    Raises:
        ConfigError: `gpu` where there is none.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if wanted == "gpu":
        raise ConfigError(f'{NO_GPU}; say training.device = "auto" or "cpu"')
    return torch.device("cpu")


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return [name.strip() for name in named.split(",")][:count] if named else [str(number) for number in range(count)]


def choose_precision(wanted: str, device: torch.device) -> str:
    """`bf16` or `32`; `auto` is bf16 where the hardware multiplies it faster: GPUs, and CPUs where `gains_from_bfloat16`."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    if device.type == "cpu":
        return "bf16" if gains_from_bfloat16() else "32"
    return "32"


def gains_from_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32: one with AMX, or one of AMD (Zen 4 on) with AVX-512's dot product.

    By `benchmarks/precision.py` that dot product computes 1.3 to 2 times as many images a second as float32 on an EPYC of Zen 4;
    on a Xeon, which takes two turns for what it does in one, 0.5 to 1.06 times.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and processor_vendor() == AMD


@functools.cache
def processor_vendor() -> str:
    """What the processor calls its maker, such as `GenuineIntel` or `AuthenticAMD`; empty where the system does not tell."""
    told = Path("/proc/cpuinfo")
    text = told.read_text(encoding="utf-8", errors="replace") if told.is_file() else platform.processor()
    found = re.search("GenuineIntel|AuthenticAMD", text)
    return found[0] if found else ""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Forward passes in bfloat16 where `precision` says so; else in float32, on CUDA without the TF32 that cuDNN would take for it."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return _without_tf32() if device.type == "cuda" else nullcontext()


@contextmanager
def _without_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def choose_memory_format(module: nn.Module, device: torch.device) -> torch.memory_format:
    """How the numbers of images and weights lie in memory: `torch.channels_last`, but on CUDA planes where a network is depthwise.

    cuDNN prepares depthwise convolutions over channels-last images anew for each shape that it meets, 9 to 12 seconds on an
    H200 for a step of mobilenetv2_100, and computes them no faster afterwards.
    """
    layers = (layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    if device.type == "cuda" and any(1 < layer.groups == layer.in_channels for layer in layers):
        return torch.contiguous_format
    return torch.channels_last


TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt`."""


@contextmanager
def keeping_memory(device: torch.device) -> Iterator[None]:
    """On a CPU under Linux: memory that is freed inside the block stays with the process until its end.

    glibc gives large blocks back at once, and the system then hands them out again page by page, zeroed: at 320x416 pixels
    that takes a fifth of a training step. Where there is no glibc, nothing is changed. Blocks may be nested.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" and device.type == "cpu" else None
    if library is None or not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim") or _kept:
        yield
        return
    _kept.append(device)
    library.mallopt(MMAP_MAX, 0)
    library.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        library.mallopt(MMAP_MAX, 65_536)
        library.mallopt(MMAP_THRESHOLD, 32 * 1024**2)  # what glibc itself comes to in a process that frees large blocks
        library.mallopt(TRIM_THRESHOLD, 64 * 1024**2)
        library.malloc_trim(0)
        _kept.clear()


_kept: list[torch.device] = []


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On CUDA: cuDNN takes ways back through convolutions that give the same numbers each time; elsewhere they do so anyway."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic
    cudnn.deterministic = before or device.type == "cuda"
    try:
        yield
    finally:
        cudnn.deterministic = before


def wait_for(device: torch.device) -> None:
    """Return when a GPU has done what it was told to do; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def hardware_name(device: torch.device) -> str:
    """The name of a device for the record: a GPU's model, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
