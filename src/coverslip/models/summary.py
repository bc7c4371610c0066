"""What a model is made of and what it costs: layers, shapes, weights, multiply-adds, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from coverslip.models.networks import Size, count_weights

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One row of a summary.

    Attributes:
        name: where it stands in the model.
        kind: its class.
        output: shape of its output for one image, without the batch.
        weights: number of parameters in it.
        trainable: `trainable`, `frozen`, `partly`, or the empty string without parameters.
        multiply_adds: of convolutions, matrix products and attention in it, for one image.
    """

    name: str
    kind: str
    output: Shape
    weights: int
    trainable: str
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """What a model is made of and what it costs.

    Attributes:
        input: (channels, height, width).
        layers: at most `summarise`'s `rows` of them; their weights add up to `weights`.
        weights: number of parameters.
        trainable_weights: of them, how many learn.
        multiply_adds: for one image, forward.
        weight_bytes: parameters and buffers in memory.
        activation_bytes: what the layers that learn keep of one image for the backward pass, in float32.
        training_bytes: estimate for `batch_size` images: weights, gradients, two moments of Adam, activations.
        batch_size: images of that estimate.
    """

    input: Shape
    layers: tuple[Layer, ...]
    weights: int
    trainable_weights: int
    multiply_adds: int
    weight_bytes: int
    activation_bytes: int
    training_bytes: int
    batch_size: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @property
    def sentence(self) -> str:
        """Size and cost in one line."""
        learning = "all" if self.trainable_weights == self.weights else f"{self.trainable_weights:,}"
        return (
            f"{self.weights:,} weights ({learning} learn), {self.multiply_adds / 1e6:,.0f} million multiply-adds an image, "
            f"{self.weight_bytes / 1e6:,.1f} MB, about {self.training_bytes / 1e6:,.0f} MB to train {self.batch_size} images a step"
        )


def summarise(model: nn.Module, size: Size, channels: int, *, batch_size: int = 32, rows: int = 24) -> Summary:
    """Run one empty image through a model and note what comes by. Weights, mode and buffers stay as they were.

    Args:
        model: from (n, channels, height, width) to anything.
        size: (height, width) of the input, in pixels.
        channels: planes of the input.
        batch_size: images that training memory is estimated for.
        rows: layers are shown as deep as fits into this many rows.
    """
    shapes, multiply_adds, activation_bytes = _watch(model, size, channels)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    return Summary(
        input=(channels, *size),
        layers=tuple(
            Layer(
                name, kind, shapes.get(path, ()), sum(p.numel() for p in own), _trainable(own), multiply_adds.get(path, 0) if whole else 0
            )
            for path, name, kind, own, whole in _rows(model, shapes, rows)
        ),
        weights=count_weights(model),
        trainable_weights=trainable,
        multiply_adds=multiply_adds.get("", 0),
        weight_bytes=weight_bytes,
        activation_bytes=activation_bytes,
        training_bytes=weight_bytes + 3 * 4 * trainable + batch_size * activation_bytes,
        batch_size=batch_size,
    )


def _watch(model: nn.Module, size: Size, channels: int) -> tuple[dict[str, Shape], dict[str, int], int]:
    """Of one image: output shape and multiply-adds of every module that ran, by its path; bytes kept for the backward pass."""
    shapes: dict[str, Shape] = {}
    kept: dict[int, int] = {}
    held = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def note(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[path] = tuple(output.shape[1:])

        return hook

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    image = torch.zeros(1, channels, *size, device=device)
    with ExitStack() as stack, FlopCounterMode(display=False) as counter:
        for path, module in model.named_modules():
            stack.callback(setattr, module, "training", module.training)
            stack.callback(module.register_forward_hook(note(path)).remove)
        model.eval()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(image)
    counts = {str(path): sum(operations.values()) // 2 for path, operations in counter.get_flop_counts().items()}
    prefix = f"{type(model).__name__}."
    return shapes, {path.removeprefix(prefix) if path != "Global" else "": count for path, count in counts.items()}, sum(kept.values())


Row = tuple[str, str, str, list[nn.Parameter], bool]


def _rows(model: nn.Module, shapes: dict[str, Shape], most: int) -> list[Row]:
    """(path, name, kind, parameters, whether the whole module) at the greatest depth that fits into `most` rows."""
    found: list[Row] = []
    for depth in range(1, 12):
        deeper = list(_at_depth(model, "", depth, shapes))
        if found and (len(deeper) > most or deeper == found):
            break
        found = deeper
    return found


def _at_depth(module: nn.Module, path: str, depth: int, shapes: dict[str, Shape]) -> Iterator[Row]:
    kind = type(module).__name__
    name = path.replace("backbone.network", "backbone")
    expandable = any(True for child in module.children() for _ in child.parameters())
    if depth == 0 or not expandable:
        shown = path in shapes and not isinstance(module, nn.Identity)
        if shown or any(True for _ in module.parameters()):
            yield path, name or kind, kind, list(module.parameters()), True
        return
    own = list(module.parameters(recurse=False))
    if own:
        yield path, f"{name or kind} (its own)", kind, own, False
    for child_name, child in module.named_children():
        yield from _at_depth(child, f"{path}.{child_name}" if path else child_name, depth - 1, shapes)


def weight_groups(model: nn.Module, most: int) -> list[tuple[str, list[nn.Parameter]]]:
    """(name, parameters) of the parts of a model at the greatest depth that fits into so many groups; together they are all of it."""
    return [(name, own) for _, name, _, own, _ in _rows(model, {}, most) if own]


def _trainable(parameters: list[nn.Parameter]) -> str:
    if not parameters:
        return ""
    learning = {parameter.requires_grad for parameter in parameters}
    return "partly" if len(learning) == 2 else "trainable" if True in learning else "frozen"
