"""A training in a process of its own that reports what it took: `bounded_training.py DATA RUN SETTING...` prints JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any


def main() -> None:
    from coverslip.experiment import run
    from coverslip.runtime import cache_folder, peak_memory, used_memory
    from coverslip.start import begin

    told: dict[str, Any] = {"disk": 0, "steps": []}
    over = threading.Event()

    def watch_disk() -> None:
        while not over.wait(0.02):
            total = 0
            for folder, _, names in os.walk(cache_folder()):  # which passes over what is removed meanwhile
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        total += (Path(folder) / name).stat().st_blocks * 512
            told["disk"] = max(told["disk"], total)

    def announced(line: str) -> None:
        if "after_model" not in told:
            told["before"] = peak_memory()
            Path("/proc/self/clear_refs").write_text("5")  # the mark of the peak begins anew
            told["after_model"] = used_memory()

    def progressed(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if stage == "training":
            told["steps"].append(used_memory())

    watcher = threading.Thread(target=watch_disk)
    watcher.start()
    try:
        start = begin(sys.argv[1], recipe="quick", settings=sys.argv[3:], out=Path(sys.argv[2]), resume=False)
        result = run(start.config, start.folder, recipe="quick", announce=announced, progress=progressed, pictures=False)
    finally:
        over.set()
        watcher.join()
    told |= {"peak": peak_memory(), "accuracy": result.metrics["test"]["accuracy"]["value"], "notes": list(result.notes)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
