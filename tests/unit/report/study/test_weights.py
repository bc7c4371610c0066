"""With and without regularisation: which runs belong together, and what is shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coverslip.config import dump_toml, load_config
from coverslip.report.files import RunFiles, read_run
from coverslip.report.study.weights import weight_block
from coverslip.report.weights import groups_of, weights
from coverslip.runtime import write_json
from unit.report.make_run import make_weights

DECAYS = (0.0, 0.05)


def make_run(folder: Path, decay: float, deviation: float = 0.02, **sections: Any) -> RunFiles:
    folder.mkdir()
    training = {"weight_decay": decay, **sections.pop("training", {})}
    (folder / "config.toml").write_text(dump_toml(load_config({"data": {"path": "gel"}, "training": training, **sections})))
    write_json(folder / "weights.json", make_weights(deviation))
    write_json(folder / "metrics.json", {})
    return read_run(folder)


def test_runs_that_differ_in_their_decay_alone_are_drawn_together(tmp_path: Path) -> None:
    pair = [make_run(tmp_path / str(decay), decay, deviation) for decay, deviation in zip(DECAYS, (0.03, 0.01), strict=True)]
    block = weight_block(pair)
    assert block is not None
    assert block.title == "Weights"
    assert "0.0, 0.05" in block.note
    (drawing,) = block.figures
    assert ">weight decay 0<" in drawing.svg
    assert ">weight decay 0.05<" in drawing.svg
    assert block.table is not None
    assert block.table.head == ["Layers", "Deviation, 0", "near zero", "Deviation, 0.05", "near zero"]
    assert len(block.table.rows) == 10
    assert [cell.replace("\u00a0", " ") for cell in block.table.rows[0]] == ["all layers", "0.03", "4 %", "0.01", "4 %"]
    assert block.table.rows[1][0] == "conv_stem"


def test_no_pair_no_section(tmp_path: Path) -> None:
    alone = make_run(tmp_path / "alone", 0.0)
    other = make_run(tmp_path / "other", 0.05, training={"learning_rate": 0.5})
    again = make_run(tmp_path / "again", 0.0)
    assert weight_block([]) is None
    assert weight_block([alone]) is None
    assert weight_block([alone, other, again]) is None


def test_of_several_families_the_first_with_a_pair_is_shown(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"{optimizer}-{decay}", decay, training={"optimizer": optimizer})
        for optimizer, decay in (("sgd", 0.1), ("adamw", 0.05), ("adamw", 0.0), ("sgd", 0.2))
    ]
    block = weight_block(runs)
    assert block is not None
    assert "sgd-0.1, sgd-0.2" in block.note


def test_a_runs_own_section(tmp_path: Path) -> None:
    section = weights(make_run(tmp_path / "run", 0.0))
    assert section is not None
    assert section["rows"][0] == ("all layers", "5,000", "\u22120.0002", "0.02", "4\u00a0%")
    assert [row[0] for row in section["rows"][1:3]] == ["conv_stem", "blocks.0"]
    assert section["note"].endswith("Near zero: smaller than 0.001, without the sign.")


@pytest.mark.parametrize("content", [{}, {"groups": []}, {"groups": [{"name": "all"}]}, {"groups": "none"}, [1]], ids=str)
def test_a_file_that_holds_nothing_to_draw_is_no_section(tmp_path: Path, content: Any) -> None:
    run = make_run(tmp_path / "run", 0.0)
    write_json(run.folder / "weights.json", content)
    found = read_run(run.folder)
    assert groups_of(found) == []
    assert weights(found) is None
    assert weight_block([found, found]) is None
