"""A short name for the machine that a benchmark ran on."""

from __future__ import annotations

import os
import platform

import torch


def machine_name() -> str:
    """For example `linux-x86_64-2cores-amx` or `linux-x86_64-16cores-nvidia-h200`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [platform.system().lower(), platform.machine().lower(), f"{cores}cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name().lower().replace(" ", "-"))
    elif torch.cpu._is_amx_tile_supported():
        parts.append("amx")
    return "-".join(parts)
