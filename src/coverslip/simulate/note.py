"""What every simulated image says of itself."""

from __future__ import annotations

from PIL.PngImagePlugin import PngInfo

NOTE = "Simulated by coverslip: drawn, not measured"


def png_note() -> PngInfo:
    """The text chunk `Description` that a simulated PNG carries."""
    note = PngInfo()
    note.add_text("Description", NOTE)
    return note
