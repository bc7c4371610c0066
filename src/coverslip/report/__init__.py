"""A run folder in, one self-contained HTML page out. Reads files only, never objects; no torch.

The order to read in: `page` (the story of the page), `files` (what a run wrote), `numbers` (values as text), `curves`
and `figures` (pure: data in, `Figure` out), `pictures` (images as data URIs), `methods` (the paragraph for a paper).
"""

from coverslip.report.page import write_report

__all__ = ["write_report"]
