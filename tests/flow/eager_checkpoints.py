"""`coverslip` with a checkpoint after every epoch, each of which takes a while."""

from __future__ import annotations

import time
from typing import Any

from coverslip.cli import main
from coverslip.training import loop

saved = loop.save_checkpoint


def save_and_rest(*arguments: Any) -> None:
    """Leave time to be killed in."""
    saved(*arguments)
    time.sleep(1.0)


if __name__ == "__main__":
    loop.SHORT_EPOCH_SECONDS = 0.0
    loop.save_checkpoint = save_and_rest
    main()
