"""The recommendation, on rows whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coverslip.study.advice import ROOM, Circumstances, advise, smoothed

AROUND = Circumstances(images=1000, training=700, measured=256, image_bytes=50_000, free_bytes=10_000_000_000)


def row(strategy: str, size: int, computing: float, waiting: float, *, model: str = "net", memory: float = 1000.0) -> dict[str, Any]:
    """A measurement, from the milliseconds of a step in which it computes and in which it waits."""
    step = computing + waiting
    return {
        "model": model, "strategy": strategy, "batch_size": size, "images_per_second": 1000 * size / step, "waiting_share": waiting / step,
        "step_milliseconds": step, "peak_memory_megabytes": memory, "status": "ok", "error": "",
    }  # fmt: skip


def chosen(rows: list[dict[str, Any]], around: Circumstances = AROUND) -> tuple[int | None, str]:
    (choice,) = advise(rows, around).choices
    return choice.batch_size, choice.strategy


def test_the_smallest_batch_within_five_percent_of_the_fastest() -> None:
    rows = [row("disk", 8, 100, 0), row("disk", 32, 320, 0), row("disk", 128, 1240, 0)]  # 80, 100 and 103 images a second
    assert chosen(rows) == (32, "disk")
    assert chosen([*rows[:2], row("disk", 128, 1000, 0)]) == (128, "disk")  # 128 images a second


def test_of_equally_fast_strategies_the_one_that_training_uses_and_a_faster_one_before_it() -> None:
    cached = [row("none", 32, 300, 10), row("memory", 32, 300, 0), row("disk", 32, 300, 5)]
    assert chosen(cached) == (32, "disk")
    slow_disk = [row("none", 32, 300, 200), row("memory", 32, 300, 0), row("disk", 32, 300, 90)]
    assert chosen(slow_disk) == (32, "memory")
    only_files = [row("none", 32, 300, 10), row("disk", 32, 300, 90)]
    assert chosen(only_files) == (32, "none")


def test_noise_in_computing_does_not_choose_a_strategy() -> None:
    noisy = [row("disk", 32, 400, 10), row("memory", 32, 380, 8), row("none", 32, 300, 60)]
    assert max(noisy, key=lambda one: one["images_per_second"])["strategy"] == "none"
    assert chosen(noisy) == (32, "disk")
    assert smoothed(noisy) == pytest.approx([32000 / 390, 32000 / 388, 32000 / 440])


def test_pixels_in_memory_have_to_fit_with_the_whole_data_set() -> None:
    rows = [row("disk", 32, 300, 90), row("memory", 32, 300, 0)]
    assert chosen(rows) == (32, "memory")
    many = Circumstances(images=1_000_000, training=700_000, measured=256, image_bytes=50_000, free_bytes=10_000_000_000)
    assert chosen(rows, many) == (32, "disk")


def test_what_fills_the_memory_is_left_out() -> None:
    limit = ROOM * AROUND.free_bytes / 1e6
    rows = [row("disk", 8, 100, 0, memory=limit - 1), row("disk", 32, 200, 0, memory=limit + 1)]
    assert chosen(rows) == (8, "disk")
    (choice,) = advise(rows[1:], AROUND).choices
    assert choice.batch_size is None
    assert "of the memory" in choice.reason


def test_a_batch_larger_than_the_training_part_is_recommended_only_where_nothing_smaller_was_measured() -> None:
    few = Circumstances(images=92, training=60, measured=92, image_bytes=50_000, free_bytes=10_000_000_000)
    rows = [row("disk", 32, 320, 0), row("disk", 128, 500, 0)]
    assert chosen(rows, few) == (32, "disk")
    assert chosen(rows[1:], few) == (128, "disk")


def test_features_are_another_kind_of_training() -> None:
    rows = [row("disk", 32, 300, 5), row("features", 32, 2, 0)]
    assert chosen(rows) == (32, "disk")
    assert chosen(rows[1:]) == (32, "features")


def test_what_failed_has_no_part_in_it_and_says_why() -> None:
    failed = {"model": "huge", "strategy": "disk", "batch_size": 8, "status": "too large", "error": "needs about 99 GB"}
    advice = advise([failed, row("disk", 8, 100, 0)], AROUND)
    assert [choice.reason for choice in advice.choices] == ["needs about 99 GB", ""]
    assert "for net" in advice.headline
    assert "huge" not in advice.headline
    assert advise([failed], AROUND).headline == "Nothing could be measured: huge: needs about 99 GB."


def test_the_headline_is_one_plain_sentence() -> None:
    one = advise([row("disk", 32, 300, 20)], AROUND).headline
    assert one == (
        "Take batches of 32 from the pixel cache on disk for net: 100 images a second, within 5 % of the fastest; "
        "waiting for data takes 6 % of the time, and the memory needed is 1.0 GB."
    )
    few = replace(AROUND, training=28)
    small = advise([row("disk", 8, 100, 0), row("disk", 32, 200, 0)], few).headline
    assert "batches of 8 " in small
    assert "80 images a second, within 5 % of the fastest (batches of more than the 28 training images left aside);" in small
    assert "left aside" not in advise([row("disk", 32, 200, 0)], few).headline
    alike = advise([row("disk", 32, 300, 20), row("disk", 32, 600, 40, model="other", memory=2500)], AROUND).headline
    assert alike.startswith("Take batches of 32 from the pixel cache on disk for all 2 models: 100 and 50 images a second")
    assert "at most 2.5 GB" in alike
    unlike = advise([row("disk", 32, 300, 20), row("disk", 8, 600, 40, model="other")], AROUND).headline
    assert unlike.startswith("Take batches of 32 for net and 8 for other, from the pixel cache on disk: 100 and 12 images")
    apart = advise([row("disk", 32, 300, 20), row("none", 8, 4000, 40, model="other")], AROUND).headline
    assert "32 from the pixel cache on disk for net and 8 decoded from the files each time for other: 100 and 2.0 images" in apart
