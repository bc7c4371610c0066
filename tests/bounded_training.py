"""A training in a process of its own that reports what it took: `bounded_training.py DATA RUN SETTING...` prints JSON."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any


def main() -> None:
    from coverslip.experiment import run
    from coverslip.runtime import cache_folder, peak_memory, used_memory
    from coverslip.start import begin

    told: dict[str, Any] = {"disk": 0}
    over = threading.Event()

    def watch_disk() -> None:
        while not over.wait(0.02):
            sizes = []
            for file in cache_folder().rglob("*"):
                try:
                    sizes.append(file.stat().st_blocks * 512 if file.is_file() else 0)
                except FileNotFoundError:
                    continue
            told["disk"] = max(told["disk"], sum(sizes))

    def announced(line: str) -> None:
        told.setdefault("after_model", used_memory())

    watcher = threading.Thread(target=watch_disk)
    watcher.start()
    try:
        start = begin(sys.argv[1], recipe="quick", settings=sys.argv[3:], out=Path(sys.argv[2]), resume=False)
        result = run(start.config, start.folder, recipe="quick", announce=announced, pictures=False)
    finally:
        over.set()
        watcher.join()
    told |= {"peak": peak_memory(), "accuracy": result.metrics["test"]["accuracy"]["value"], "notes": list(result.notes)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
