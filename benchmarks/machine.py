"""A short name for the machine that a benchmark ran on."""

from __future__ import annotations

import os
import platform

import torch

from coverslip.models.hardware import gains_from_bfloat16


def machine_name() -> str:
    """For example `linux-x86_64-2cores-amx`, `linux-x86_64-2cores-amd-bf16` or `linux-x86_64-16cores-nvidia-h200`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [platform.system().lower(), platform.machine().lower(), f"{cores}cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name().lower().replace(" ", "-"))
    elif torch.cpu._is_amx_tile_supported():
        parts.append("amx")
    elif gains_from_bfloat16():
        parts.append("amd-bf16")
    return "-".join(parts)
