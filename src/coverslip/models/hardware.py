"""Which device, and in which precision."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from coverslip.errors import ConfigError

NO_GPU = 'training.device = "gpu", but torch sees no GPU here'
"""How the error begins where a GPU is asked for and there is none."""


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
    """`bf16` or `32`; `auto` is bf16 where the hardware multiplies bfloat16 matrices natively."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "32"
    return "32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Forward passes in bfloat16 where `precision` says so."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def hardware_name(device: torch.device) -> str:
    """The name of a device for the record: a GPU's model, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
