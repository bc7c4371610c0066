"""What one client, and all of them together, may ask of a server."""

from __future__ import annotations

from dataclasses import dataclass

from coverslip.errors import ConfigError

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds on what is accepted. Beyond them a request is refused with a status that says which one it was.

    Attributes:
        body_bytes: largest body of a request, in bytes (413).
        uploads_bytes: bytes of all bodies that are held at one time (429).
        images: most samples of a request (413).
        pixels: largest image that is decoded, in pixels: height x width (x channels x planes, in a stack) (422 for that image).
        queue: most samples of all clients that wait or are worked on (429).
        connections: most connections at one time (503).
        upload_seconds: within how many seconds a whole request must have arrived (408).
        seconds: for how long a request may be worked on (503).
    """

    body_bytes: int = 64 * MEGABYTE
    uploads_bytes: int = 256 * MEGABYTE
    images: int = 256
    pixels: int = 40_000_000
    queue: int = 512
    connections: int = 256
    upload_seconds: float = 60.0
    seconds: float = 60.0

    def check(self) -> None:
        """Refuse bounds that contradict each other.

        Raises:
            ConfigError: one is not above zero, or a single request could never be taken.
        """
        problems = [f"{name.replace('_', '-')} = {value}: expected more than 0" for name, value in vars(self).items() if value <= 0]
        if self.uploads_bytes < self.body_bytes:
            problems.append(f"uploads = {self.uploads_bytes} bytes is less than one body may have ({self.body_bytes} bytes)")
        if self.queue < self.images:
            problems.append(f"the queue holds {self.queue} images, but one request may bring {self.images}")
        if problems:
            raise ConfigError(problems)
