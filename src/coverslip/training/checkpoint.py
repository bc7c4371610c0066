"""Checkpoints without pickle: a nested state as one safetensors file, its plain values in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save
from torch import Tensor

from coverslip.errors import RunFolderError
from coverslip.runtime import write_file

State = dict[str, Any]
_TENSOR = "__tensor__"


def save_checkpoint(path: Path, state: State) -> None:
    """Write nested dicts and lists of tensors and plain JSON values, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    skeleton = _take_tensors(state, tensors)
    write_file(path, save(tensors, metadata={"state": json.dumps(skeleton)}))


def load_checkpoint(path: Path) -> State | None:
    """The state that `save_checkpoint` wrote; None when there is no such file.

    Raises:
        RunFolderError: the file is not a checkpoint.
    """
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            skeleton = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise RunFolderError(f"{path} is not a checkpoint ({error}); remove it, or start anew without --resume") from None
    state: State = _put_tensors(skeleton, tensors)
    return state


def _take_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {"keys": list(value), "values": [_take_tensors(item, tensors) for item in value.values()]}
    if isinstance(value, (list, tuple)):
        return [_take_tensors(item, tensors) for item in value]
    return value


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return dict(zip(value["keys"], (_put_tensors(item, tensors) for item in value["values"]), strict=True))
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    return value
