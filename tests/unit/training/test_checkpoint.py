import math
from pathlib import Path
from typing import Any

import pytest
import torch

from coverslip.errors import RunFolderError
from coverslip.training.checkpoint import load_checkpoint, save_checkpoint


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(type(first) is type(second) and (first == second or (first != first and second != second)))


def nested() -> dict[str, Any]:
    shared = torch.randn(3, 4)
    return {
        "step": 7,
        "tensors": {
            "float": shared,
            "the same": shared,
            "half": torch.randn(2).bfloat16(),
            "int": torch.tensor(5),
            "empty": torch.zeros(0, 3),
        },
        "layout": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "slice": torch.arange(10.0)[::2],
        "list": [(0, {"exp_avg": torch.ones(2)}), (1, {"exp_avg": torch.zeros(2), "step": torch.tensor(3.0)})],
        "numbers": {0: "an integer key", "text": "µ", "none": None, "flag": True, "tiny": 1e-300, "third": 1 / 3},
        "limits": [math.inf, -math.inf, math.nan],
        "keys": {"keys": [1], "values": [torch.ones(1)], "__tensor__": "t0"},
        "nothing": {},
    }


def test_a_nested_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state = nested()
    save_checkpoint(tmp_path / "a.ckpt", state)
    found = load_checkpoint(tmp_path / "a.ckpt")
    assert found is not None
    assert same(state, found)
    assert not same({**state, "step": 8}, found)


def test_a_state_without_tensors(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.ckpt", {"history": [{"loss": 0.1}]})
    assert load_checkpoint(tmp_path / "a.ckpt") == {"history": [{"loss": 0.1}]}


def test_what_is_saved_is_not_changed_and_what_is_loaded_is_a_copy(tmp_path: Path) -> None:
    weight = torch.zeros(2)
    save_checkpoint(tmp_path / "a.ckpt", {"w": weight})
    weight += 1
    found = load_checkpoint(tmp_path / "a.ckpt")
    assert found is not None
    assert found["w"].tolist() == [0, 0]


def test_the_file_holds_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "a.ckpt", nested())
    data = (tmp_path / "a.ckpt").read_bytes()
    assert int.from_bytes(data[:8], "little") < len(data)
    assert data[8:9] == b"{"  # the header of safetensors
    for name in ("pickle.load", "pickle.loads", "torch.load"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("unpickled"))
    assert load_checkpoint(tmp_path / "a.ckpt") is not None


def test_no_file_is_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none.ckpt") is None


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "no state", "bad state"])
def test_what_is_no_checkpoint_is_an_error_that_helps(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save

    path = tmp_path / "a.ckpt"
    save_checkpoint(path, nested())
    whole = path.read_bytes()
    contents = {
        "empty": b"",
        "cut": whole[:-10],
        "text": b"hello, I am a file",
        "no state": save({"w": torch.ones(1)}),
        "bad state": save({"w": torch.ones(1)}, metadata={"state": "{"}),
    }
    path.write_bytes(contents[damage])
    with pytest.raises(RunFolderError, match=r"a\.ckpt is not a checkpoint.*--resume"):
        load_checkpoint(path)


def test_an_error_while_writing_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.ckpt", {"step": 1})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "a.ckpt", {"step": object()})
    assert load_checkpoint(tmp_path / "a.ckpt") == {"step": 1}
