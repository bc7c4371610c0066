"""The page of a velocity study: speed, waiting, memory and latency by model, batch size and strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coverslip.errors import RunFolderError
from coverslip.report.files import items, within
from coverslip.report.numbers import count, finite, large, plural, size_text
from coverslip.report.sections import draw
from coverslip.report.study import velocity_figures
from coverslip.report.study.files import StudyFiles, read_study
from coverslip.report.study.page import Block, Card, Listing, Page

TITLES = {
    "disk": "pixels on disk",
    "memory": "pixels in memory",
    "stream": "decoded ahead",
    "none": "decoded each time",
    "features": "frozen features",
}
"""Strategies as the page calls them; one that is not here is called by its name."""
HALF = 0.5
"""Share of waiting from which data is the bottleneck."""
RESTLESS = 0.25
"""Middle half of the times of a step, as a share of their median, beyond which something else was running."""


def page(folder: Path) -> Page:
    """The page of a velocity study.

    Raises:
        RunFolderError: the folder is no study, or nothing was measured yet.
    """
    files = read_study(folder)
    if files.results is None:
        raise RunFolderError(f"{folder} holds no measurement yet: results.csv is missing or empty; let `coverslip velocity` finish")
    rows = files.results
    done, verdict = rows[rows["status"] == "ok"], files.mapping("verdict.json")
    choices = [choice for choice in items(verdict, "choices") if isinstance(choice, Mapping)]
    return Page(
        name=folder.absolute().name,
        kind="velocity",
        headline=str(verdict.get("headline") or "This study was stopped before it was finished."),
        cards=[card for choice in choices[:4] if (card := _card(choice)) is not None],
        warnings=_warnings(rows),
        blocks=_blocks(rows, done, choices, within(files.mapping("environment.json"), "data")) if len(done) else [_table(rows, choices)],
        facts=_facts(files),
        command=str(files.study.get("command") or ""),
        config=files.study_text,
    )


def _card(choice: Mapping[str, Any]) -> Card | None:
    speed, memory = finite(choice.get("images_per_second")), finite(choice.get("peak_memory_megabytes"))
    if speed is None or memory is None:
        return None
    how = f"batches of {choice.get('batch_size')}, {TITLES.get(str(choice.get('strategy')), choice.get('strategy'))}"
    return Card(str(choice.get("model")), f"{_speed(speed)} images/s", f"{how}; {size_text(1e6 * memory)}")


def _warnings(rows: pd.DataFrame) -> list[tuple[str, str]]:
    found = []
    missing = rows[rows["status"] != "ok"]
    if len(missing):
        found.append(("warning", f"{plural(len(missing), 'measurement')} of {len(rows)} could not be made; the table below says why."))
    spread = ((rows["step_high"] - rows["step_low"]) / rows["step_milliseconds"]).median()
    if spread > RESTLESS:
        text = f"The middle half of the steps differs by {100 * spread:.0f} % of their median"
        found.append(("warning", f"{text}: something else was running, or the machine is hot. Measure again when it is quiet."))
    return found


def _blocks(rows: pd.DataFrame, done: pd.DataFrame, choices: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> list[Block]:
    chosen = _at_choice(done, choices)
    blocks = [
        Block(
            "Speed",
            "Training images a second, by the median step, against the images in a step. Both axes are logarithmic. With frozen features "
            f"only the head learns: another kind of training, for which the backbone looks at each image once.{_repeated(rows, data)}",
            [draw(velocity_figures.speeds(done, TITLES), "Speed")],
        ),
        Block(
            "Where the time goes",
            "Share of the time of a step that goes by until its batch is read, normalised and augmented, at the recommended batch size.",
            [draw(velocity_figures.waiting(chosen, TITLES), "Where the time goes")],
            Listing(("Model", "Batch", "Bottleneck", "Decoding the files each time", "A head on frozen features"), why(chosen), right=(1,)),
        ),
        Block(
            "Memory",
            f"The most memory that the process of a measurement held, {_idle(done)} of it for Python and its libraries. Pages of files "
            "that are mapped into memory count, too, although the system can take them back.",
            [draw(velocity_figures.memory(done, TITLES), "Memory")],
        ),
    ]
    timed = done.dropna(subset=["latency_milliseconds", "batch_latency_milliseconds"])
    if len(timed):
        note = "Time from stored pixels to scores, of one image and of whole batches: median (number and dot) and 95th percentile (bar)."
        blocks.append(Block("Latency", note, [draw(velocity_figures.latencies(timed), "Latency")]))
    return [*blocks, _table(rows, choices)]


def _repeated(rows: pd.DataFrame, data: Mapping[str, Any]) -> str:
    measured, largest = finite(data.get("measured")), int(rows["batch_size"].max())
    if measured is None or measured >= largest:
        return ""
    return f" A batch of {largest} holds some of the {count(measured)} images twice."


def _at_choice(done: pd.DataFrame, choices: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows at the batch size that is recommended for their model; the largest one that was measured without a recommendation."""
    sizes = {str(choice.get("model")): choice.get("batch_size") for choice in choices}
    parts = []
    for model, rows in done.groupby("model", sort=False):
        measured = set(rows["batch_size"])
        size = sizes.get(str(model))
        parts.append(rows[rows["batch_size"] == (size if size in measured else max(measured))])
    return pd.concat(parts)


def why(chosen: pd.DataFrame) -> list[tuple[str, str, str, str, str]]:
    """What caching changes, a row a model: name, batch size, what is waited for from the cache, without one, on frozen features.

    Args:
        chosen: rows of results.csv, at one batch size a model.
    """
    found = []
    for model, rows in chosen.groupby("model", sort=False):
        shares = dict(zip(rows["strategy"], rows["waiting_share"], strict=True))
        images = float(rows["batch_size"].iloc[0])
        speeds = {name: images / step for name, step in _steps(rows).items()}
        cached: list[str] = [name for name in ("disk", "memory") if name in speeds] or [name for name in speeds if name != "features"]
        if not cached:
            continue
        best = max(cached, key=lambda name: speeds[name])
        bottleneck = "data" if shares[best] > HALF else "computing"
        slower = speeds[best] / speeds["none"] if "none" in speeds else None
        found.append(
            (
                str(model),
                count(images),
                f"{bottleneck}; {_share(shares[best])} waiting, {TITLES.get(best, best)}",
                "" if slower is None else f"{slower:.1f} times slower" if slower >= 1.1 else "hardly slower",
                f"{count(speeds['features'] / speeds[best])} times as many images" if "features" in speeds else "",
            )
        )
    return found


def _steps(rows: pd.DataFrame) -> dict[str, float]:
    """Milliseconds of a step by strategy: its own waiting, and the median computing of all that compute the same.

    Noise in computing is then not taken for what a strategy does.
    """
    waits = rows["step_milliseconds"] * rows["waiting_share"]
    computing = (rows["step_milliseconds"] - waits)[rows["strategy"] != "features"].median()
    alike = waits + computing
    steps = alike.where(rows["strategy"] != "features", rows["step_milliseconds"])
    return dict(zip(rows["strategy"], steps.astype(float), strict=True))


def _idle(done: pd.DataFrame) -> str:
    return size_text(1e6 * float(done["idle_memory_megabytes"].median()))


def _table(rows: pd.DataFrame, choices: Sequence[Mapping[str, Any]]) -> Block:
    picked = {(choice.get("model"), choice.get("strategy"), choice.get("batch_size")) for choice in choices}
    failed = bool((rows["status"] != "ok").any())
    head = ("Model", "Strategy", "Batch", "Images/s", "Waiting", "Step", "Steps", "Memory", *(["Note"] if failed else []))
    cells, strong = [], []
    for number, row in enumerate(rows.to_dict("records")):
        if (row["model"], row["strategy"], row["batch_size"]) in picked:
            strong.append(number)
        texts = (str(row["model"]), TITLES.get(row["strategy"], str(row["strategy"])), count(row["batch_size"]), *_numbers(row))
        cells.append(texts[: len(head)])
    note = "Bold: recommended. Step: the median time of a step, of as many steps as are counted, after two that are not."
    return Block("All measurements", note, table=Listing(head, cells, right=(2, 3, 4, 5, 6, 7), strong=strong))


def _numbers(row: Mapping[Any, Any]) -> tuple[str, ...]:
    if row["status"] != "ok":
        return ("", "", "", "", "", f"{row['status']}: {row['error']}")
    step = float(row["step_milliseconds"])
    return (
        _speed(row["images_per_second"]), _share(row["waiting_share"]), f"{step:.3g} ms" if step < 1000 else f"{step / 1000:.3g} s",
        count(row["steps"]), size_text(1e6 * row["peak_memory_megabytes"]), "",
    )  # fmt: skip


def _facts(files: StudyFiles) -> list[tuple[str, str]]:
    environment, rows = files.mapping("environment.json"), files.results
    data, machine = within(environment, "data"), within(environment, "machine")
    sizes = (
        {}
        if rows is None
        else rows.dropna(subset=["weights"]).drop_duplicates("model").set_index("model")[["weights", "multiply_adds"]].to_dict("index")
    )
    models = [
        f"{name} ({large(size['weights'])} weights, {large(size['multiply_adds'])} multiply-adds an image)" for name, size in sizes.items()
    ]
    free, image = finite(data.get("free_bytes")), finite(data.get("image_bytes"))
    images, measured = finite(data.get("images")), finite(data.get("measured"))
    whole = size_text(images * image) if images is not None and image is not None else ""
    facts = [
        ("Models", ", ".join(models)),
        ("Images", f"{count(images)}, of which {count(measured)} were measured on" if images is not None and measured is not None else ""),
        ("Input", " × ".join(str(side) for side in items(environment, "input"))),
        ("All pixels", f"{whole} as they are stored" if whole else ""),
        ("Free memory", size_text(free) if free is not None else ""),
        ("Device", ", ".join(str(environment[key]) for key in ("device", "precision") if environment.get(key))),
        ("Machine", ", ".join(f"{name} {value}" for name, value in machine.items())),
        ("Software", ", ".join(f"{name} {value}" for name, value in within(environment, "versions").items())),
    ]
    return [fact for fact in facts if fact[1]]


def _share(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.01 or value == 0 else "less than 1 %"


def _speed(value: float) -> str:
    return count(value) if value >= 10 else f"{value:.2g}"
