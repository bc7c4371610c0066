"""What the audit says of small sets made to be wrong in one way each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coverslip.config import DataConfig, SplitConfig
from coverslip.data.audit import Audit, audit, fit_effect, leaks
from coverslip.data.duplicates import Duplicates
from coverslip.data.reading import Reading
from coverslip.data.scan import Scan, scan_images
from coverslip.data.sources import load_table
from coverslip.structures import Table


def noise(seed: int, shape: tuple[int, ...] = (24, 36)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(root: Path, name: str, array: np.ndarray) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(root / name)


def look(root: Path, split: SplitConfig | None = None, **options: object) -> tuple[Audit, Table, Scan]:
    table = load_table(DataConfig(path=str(root)), split or SplitConfig())
    scan = scan_images(table, Reading())
    arguments = {"fit": "squash", "height": None, "width": None, "bad": {}, "reading": Reading()} | options
    return audit(table, scan, **arguments), table, scan


def kinds(found: Audit, level: str | None = None) -> list[str]:
    return [finding.kind for finding in found.findings if level in (None, finding.level)]


def fill(root: Path, count: int = 12, classes: str = "ab") -> Path:
    for number, name in enumerate(classes):
        for i in range(count):
            save(root, f"{name}/{i}.png", noise(100 * number + i))
    return root


def test_clean_set_has_no_findings(tmp_path):
    found, _, _ = look(fill(tmp_path))
    assert found.findings == ()
    assert found.counts == {"a": 12, "b": 12}
    assert found.sizes == {"24x36": 24}
    assert found.modes == {"L": 24}
    assert found.formats == {"PNG": 24}


def test_same_file_under_two_labels_is_a_problem(tmp_path):
    fill(tmp_path)
    save(tmp_path, "b/copy.png", noise(3))
    found, _, _ = look(tmp_path)
    assert kinds(found, "problem") == ["two labels"]
    assert "exact duplicates" in kinds(found, "warning")
    assert found.findings[0].images == ("a/3.png", "b/copy.png")
    pair = found.to_json()["duplicates"]["pairs"][0]
    assert pair == {"kind": "exact", "images": ["a/3.png", "b/copy.png"], "labels": ["a", "b"], "correlation": 1.0}


def test_recompressed_copy_is_a_near_duplicate(tmp_path):
    fill(tmp_path)
    image = Image.fromarray(noise(7, (12, 16))).resize((160, 120), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a" / "original.png")
    image.save(tmp_path / "b" / "copy.jpg", quality=80)
    found, table, _ = look(tmp_path)
    assert {"near duplicates", "two labels"} <= set(kinds(found, "warning"))
    rows = {table.images.index("a/original.png"), table.images.index("b/copy.jpg")}
    assert [{a, b} for a, b, _ in found.duplicates.confirmed] == [rows]


@pytest.mark.parametrize("groups", [False, True])
def test_mode_that_tells_the_classes_apart_is_a_shortcut(tmp_path, groups):
    for i in range(20):
        save(tmp_path, f"gel/p{i % 5}_{i}.png", noise(i, (24, 36, 3)))
        save(tmp_path, f"other/p{i % 5}_{i}.png", noise(50 + i))
    found, _, _ = look(tmp_path, SplitConfig(group="regex:^(p.)_" if groups else None))
    mode = next(shortcut for shortcut in found.shortcuts if shortcut.name == "mode")
    assert mode.balanced_accuracy == 1
    assert mode.chance == 0.5
    assert mode.alarming
    message = next(finding.message for finding in found.findings if finding.kind == "shortcut")
    assert "gel: RGB 20; other: L 20" in message
    assert not any(shortcut.name == "size" for shortcut in found.shortcuts)


def test_size_and_brightness_shortcuts(tmp_path):
    for i in range(15):
        save(tmp_path, f"a/{i}.png", noise(i, (24, 30 + i % 3)))
        save(tmp_path, f"b/{i}.png", noise(50 + i, (24, 50 + i % 3)) // 4)
    found, _, _ = look(tmp_path)
    assert {shortcut.name for shortcut in found.shortcuts if shortcut.alarming} == {"size", "brightness"}


def test_few_images_do_not_alarm_by_luck(tmp_path):
    for i in range(2):
        save(tmp_path, f"a/{i}.png", noise(i))
        save(tmp_path, f"b/{i}.png", noise(9 + i, (24, 40)))
    found, _, _ = look(tmp_path)
    assert not any(shortcut.alarming and shortcut.name == "brightness" for shortcut in found.shortcuts)
    assert kinds(found).count("tiny class") == 1


def test_class_of_one_image_is_fine(tmp_path):
    fill(tmp_path, 12, "ab")
    save(tmp_path, "c/only.png", noise(999, (24, 36, 3)))
    found, _, _ = look(tmp_path)
    assert {"tiny class", "imbalance"} <= set(kinds(found, "warning"))
    assert "c (1)" in next(finding.message for finding in found.findings if finding.kind == "tiny class")
    assert {"odd mode"} <= set(kinds(found, "info"))


def test_several_labels_have_balance_and_absent_classes_but_no_accuracy(tmp_path):
    lines = [f"{number}.png,{'a' if number < 22 else 'a|b'}" for number in range(24)]
    for number in range(24):
        save(tmp_path, f"{number}.png", noise(number))
    (tmp_path / "t.csv").write_text("image,label\n" + "\n".join(lines))
    table = load_table(DataConfig(path=str(tmp_path / "t.csv"), separator="|", classes=["a", "b", "c"]), SplitConfig())
    found = audit(table, scan_images(table, Reading()), fit="squash", height=32, width=32, bad={}, reading=Reading())
    assert found.counts == {"a": 24, "b": 2, "c": 0}
    messages = {finding.kind: finding.message for finding in found.findings}
    assert "no image of c" in messages["absent class"]
    assert messages["imbalance"].endswith("look at macro F1 and the numbers of each class")


def test_bad_images_small_range_and_flat(tmp_path):
    fill(tmp_path)
    save(tmp_path, "a/deep.png", (noise(500).astype(np.uint16) * 16))
    save(tmp_path, "b/flat.png", np.full((24, 36), 7, np.uint8))
    found, _, _ = look(tmp_path, bad={"a/broken.png": "the file is truncated"})
    assert {"unreadable", "flat"} <= set(kinds(found, "warning"))
    assert "small range" in kinds(found, "info")
    assert found.bad == {"a/broken.png": "the file is truncated"}


def test_dark_deep_images_beside_shallow_ones_are_a_warning(tmp_path):
    fill(tmp_path)
    for i in range(4):
        save(tmp_path, f"a/deep{i}.png", noise(500 + i).astype(np.uint16) * 16)
    found, _, _ = look(tmp_path)
    message = next(finding.message for finding in found.findings if finding.kind == "mixed depth")
    assert message.startswith("24 images of 8 bit beside 4 of 16 bit")
    for i in range(4):
        save(tmp_path, f"a/deep{i}.png", noise(500 + i).astype(np.uint16) * 257)
    assert "mixed depth" not in kinds(look(tmp_path)[0])


def test_many_tiny_classes_are_counted_not_listed(tmp_path):
    found, _, _ = look(fill(tmp_path, 2, "abcdefgh"))
    message = next(finding.message for finding in found.findings if finding.kind == "tiny class")
    assert "a (2), b (2), c (2), d (2), e (2) and 3 more: too few" in message


def test_a_sentence_counts_what_is_serious(tmp_path):
    found = look(fill(tmp_path))[0]
    assert found.sentence == ""
    save(tmp_path, "b/copy.png", noise(3))
    save(tmp_path, "c/only.png", noise(999))
    found = look(tmp_path)[0]
    assert found.sentence == "1 problem and 3 warnings (two labels, exact duplicates, tiny class, imbalance)"
    twice = replace(found, findings=found.findings * 2)
    assert twice.sentence == "2 problems and 6 warnings (two labels x2, exact duplicates x2, tiny class x2, imbalance x2)"


def test_crop_says_what_it_loses(tmp_path):
    for i in range(12):
        save(tmp_path, f"a/{i}.png", noise(i, (20, 60)))
        save(tmp_path, f"b/{i}.png", noise(50 + i, (20, 60)))
    cropped, _, scan = look(tmp_path, fit="crop", height=224)
    assert cropped.fit["discarded"]["mean"] == pytest.approx(2 / 3)
    assert "67%" in next(finding.message for finding in cropped.findings if finding.kind == "discarded")
    squashed = fit_effect(scan.facts, "squash", 100, 300)
    assert squashed["stretch"]["highest"] == pytest.approx(1)
    assert fit_effect(scan.facts, "squash", 224, 224)["stretch"]["median"] == pytest.approx(3)
    padded = fit_effect(scan.facts, "letterbox", 224, None)
    assert (padded["padded"]["mean"], padded["discarded"]["mean"]) == (pytest.approx(2 / 3), 0)


def test_json_is_complete_and_plain(tmp_path):
    found, _, _ = look(fill(tmp_path))
    content = json.loads(json.dumps(found.to_json()))
    assert set(content) == {
        "findings",
        "images",
        "counts",
        "formats",
        "modes",
        "sizes",
        "duplicates",
        "shortcuts",
        "fit",
        "bad",
        "ignored",
        "notes",
    }
    assert content["images"] == 24


def test_leaks(tmp_path):
    for i in range(4):
        save(tmp_path, f"a/g{i % 2}_{i}.png", noise(i))
        save(tmp_path, f"b/g{i % 2}_{i}.png", noise(10 + i))
    _, table, _ = look(tmp_path, SplitConfig(group="regex:^(g.)_"))
    duplicates = Duplicates(exact=[(0, 1), (2, 3)], candidates=5, confirmed=[(4, 5, 0.99), (4, 6, 0.98)])
    part = np.array(["train", "test", "train", "train", "test", "test", "train", "train"])
    found = {finding.kind: finding for finding in leaks(table, part, duplicates)}
    assert set(found) == {"leak of exact duplicates", "leak of near duplicates", "leak of groups"}
    assert found["leak of exact duplicates"].images == (table.images[0], table.images[1])
    assert found["leak of near duplicates"].images == (table.images[4], table.images[6])
    assert all(finding.level == "problem" for finding in found.values())
    assert leaks(table, np.full(8, "train"), duplicates) == []
