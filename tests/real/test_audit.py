"""The audit on real images: numbers measured once, held within bounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coverslip.config import DataConfig, SplitConfig
from coverslip.data.audit import Audit, audit
from coverslip.data.duplicates import duplicate_groups
from coverslip.data.reading import Reading
from coverslip.data.scan import scan_images, usable_rows
from coverslip.data.sources import load_table

ROOT = Path(os.environ.get("COVERSLIP_TEST_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")


def look(name: str, group: str | None = None) -> Audit:
    if not (ROOT / name).is_dir():
        pytest.skip(f"no real images at {ROOT / name}; set COVERSLIP_TEST_DATA")
    config = DataConfig(path=str(ROOT / name))
    table = load_table(config, SplitConfig(group=group))
    reading = Reading.of(config)
    table, scan, bad = usable_rows(table, scan_images(table, reading), "stop")
    found = audit(table, scan, fit="crop", height=224, width=224, bad=bad, reading=reading)
    groups = duplicate_groups(len(table), found.duplicates.exact, found.duplicates.confirmed)
    assert (groups >= 0).sum() >= len(found.duplicates.exact) + len(found.duplicates.confirmed)
    return found


def test_gel_has_its_known_shortcut_and_versions_of_the_same_photograph():
    found = look("gel")
    shortcuts = {shortcut.name: shortcut for shortcut in found.shortcuts}
    assert shortcuts["mode"].balanced_accuracy == 1
    assert shortcuts["mode"].alarming
    assert any("gel: RGBA 29, RGB 17; not_gel: L 46" in finding.message for finding in found.findings)
    assert found.duplicates.exact == []
    assert 7 <= len(found.duplicates.confirmed) <= 18
    assert all(set(pair["labels"]) == {"gel"} for pair in found.duplicate_pairs)


def test_charts_look_alike_and_are_not_duplicates():
    found = look("charts", "regex:^([^_]+)_")
    assert len(found.duplicates.exact) == 4
    assert sum(pair["kind"] == "exact" and set(pair["labels"]) == {"chimeric", "repeat"} for pair in found.duplicate_pairs) == 4
    assert 2_000 <= found.duplicates.candidates <= 40_000
    assert found.duplicates.confirmed == []
    assert found.fit["discarded"]["mean"] == pytest.approx(1 / 3)
    assert not any(shortcut.alarming for shortcut in found.shortcuts)


def test_nuclei_hold_a_few_cells_twice():
    found = look("nuclei")
    assert found.duplicates.exact == []
    assert 50 <= found.duplicates.candidates <= 2_000
    assert 2 <= len(found.duplicates.confirmed) <= 8
    assert not any(shortcut.alarming for shortcut in found.shortcuts)
