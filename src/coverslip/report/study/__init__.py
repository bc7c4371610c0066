"""A study folder in, one self-contained HTML page out: the same look as the page of a run."""

from coverslip.report.study.page import Block, Card, Listing, Page, Shot, is_study, render, write_study_report

__all__ = ["Block", "Card", "Listing", "Page", "Shot", "is_study", "render", "write_study_report"]
