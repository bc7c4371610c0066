"""Threads that decode and resize images: as many as are wanted, each of which computes alone.

Torch would split each small step of every one of them among all cores, where the threads wait for each other: resizing a 256x256 image
took three times as long.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits


def image_threads(count: int, name: str = "coverslip-images") -> ThreadPoolExecutor:
    """A pool of threads for work on images.

    Args:
        count: how many threads.
        name: what they are called, for whoever looks at the process.
    """
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=_compute_alone)


def _compute_alone() -> None:
    """One OpenMP thread for what this thread asks for. The number is each thread's own, and torch sets it when it is first asked there."""
    if "torch" in sys.modules:  # an audit needs none
        sys.modules["torch"].get_num_threads()
    threadpool_limits(1, user_api="openmp")
