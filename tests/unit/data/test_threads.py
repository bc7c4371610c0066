"""Threads for images: each computes alone, and nobody else is told to."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from coverslip.data.threads import image_threads


def threads_of_torch(pool: ThreadPoolExecutor) -> set[int]:
    """How many threads torch takes in each of two threads of a pool."""
    both = threading.Barrier(2, timeout=60)

    def ask() -> int:
        both.wait()
        return torch.get_num_threads()

    with pool:
        return {future.result() for future in [pool.submit(ask), pool.submit(ask)]}


def test_each_thread_computes_alone_and_others_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert threads_of_torch(image_threads(2)) == {1}
        assert torch.get_num_threads() == 2
        assert threads_of_torch(ThreadPoolExecutor(2)) == {2}
    finally:
        torch.set_num_threads(before)


def test_a_thread_says_what_it_is_for() -> None:
    with image_threads(1, "decode") as pool:
        assert pool.submit(lambda: threading.current_thread().name).result().startswith("decode")


def test_an_audit_needs_no_torch() -> None:
    asked = "import sys, coverslip.data.audit, coverslip.data.split; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", asked], check=True, timeout=120)
