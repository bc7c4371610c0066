"""A classifier cut in two: first layers that stay as they are, for they are frozen or have no weights, and the rest, which learns from
what they give; or all that looks at single images, and wide last layers that had better look at many at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from coverslip.errors import ConfigError
from coverslip.models.classifier import Classifier

TOLERANCE = 1e-4
"""Largest difference between the two parts in turn and the whole, as a share of the largest output."""
LEAST = 0.5
"""Of the share that was asked for, the least that a cut may come to."""
WIDE = 10_000_000
"""Weights of a layer from which reading them from memory for each image takes longer than multiplying by them."""


@dataclass(frozen=True)
class Cut:
    """The two parts of a classifier, which share their weights with it.

    Attributes:
        lower: float (n, channels, height, width) -> maps, float (n, ...); in evaluation mode, its weights need no gradient.
        upper: maps -> logits, float32 (n, classes).
        name: the last layer or block of the lower part.
        share: of the multiply-adds of one image, what the lower part takes.
        shape: of the maps of one image.
    """

    lower: nn.Module
    upper: Classifier
    name: str
    share: float
    shape: tuple[int, ...]

    @property
    def sentence(self) -> str:
        """What stays as it is, in words."""
        if not any(True for _ in self.lower.parameters()):
            return f"{self.name} has no weights: what it reads of an image ({' × '.join(map(str, self.shape))} numbers) is computed once"
        return f"the layers up to {self.name} ({self.share:.0%} of the multiply-adds) stay as they are; what they give is computed once"


@dataclass(frozen=True)
class _Block:
    """A layer or block as it came by: multiply-adds up to its end, and the shape of what it gives for one image."""

    name: str
    module: nn.Module
    multiply_adds: int
    shape: tuple[int, ...]


def cut(classifier: Classifier, share: float) -> Cut:
    """Cut a classifier behind as many of its first layers and blocks as take no more than a share of the multiply-adds.

    Blocks are what a network keeps in its `nn.Sequential`s; a cut is made between two of them only, and proven on random
    images: the upper part of what the lower part gives has to be what the whole gives.

    Args:
        classifier: left as it was but for the lower part, which is frozen and put into evaluation mode.
        share: of the multiply-adds of the backbone, above 0 and below 1.

    Raises:
        ConfigError: the network cannot be cut there, for example because its blocks are not one behind the other.
    """
    network, spec, training = classifier.backbone.network, classifier.backbone.spec, classifier.training
    image = torch.zeros(1, spec.channels, *spec.size, device=next(classifier.parameters()).device)
    classifier.eval()
    blocks, total = _blocks_in_turn(network, image)
    behind = [number for number, block in enumerate(blocks, start=1) if LEAST * share * total <= block.multiply_adds <= share * total]
    found = next((made for number in reversed(behind) if (made := _cut_behind(classifier, blocks, number, total, image))), None)
    classifier.train(training)
    if found is None:
        raise ConfigError(
            f"training.frozen_share = {share}: {spec.architecture} cannot be cut in two behind {LEAST * share:.0%} to {share:.0%} of its "
            f"multiply-adds; expected a network of blocks one behind the other. Say training.frozen_share = 0, or try another share"
        )
    found.lower.requires_grad_(False)
    found.lower.eval()
    return found


def cut_unlearned(classifier: Classifier) -> Cut | None:
    """Cut a classifier behind first blocks that have no weights and give fewer numbers than an image has; None where there are none.

    Args:
        classifier: left as it was.
    """
    network, spec, training = classifier.backbone.network, classifier.backbone.spec, classifier.training
    if any(True for _ in next(network.children()).parameters()):
        return None
    image = torch.zeros(1, spec.channels, *spec.size, device=next(classifier.parameters()).device)
    classifier.eval()
    blocks, total = _blocks_in_turn(network, image)
    learning = next((number for number, block in enumerate(blocks) if any(True for _ in block.module.parameters())), 0)
    made = _cut_behind(classifier, blocks, learning, total, image) if learning else None
    classifier.train(training)
    return made if made and prod(made.shape) < image.numel() else None


def cut_before_wide(classifier: Classifier) -> Cut | None:
    """Cut a classifier before the first layer that is `WIDE` and uses each weight but once an image; None where there is none.

    Those are the fully connected layers of VGG and AlexNet: 120 million weights, which one image after the other reads anew.

    Args:
        classifier: left as it was.
    """
    network, spec, training = classifier.backbone.network, classifier.backbone.spec, classifier.training
    if all(tensor.numel() < WIDE for tensor in network.parameters()):
        return None
    image = torch.zeros(1, spec.channels, *spec.size, device=next(classifier.parameters()).device)
    classifier.eval()
    blocks, total = _blocks_in_turn(network, image)
    wide = next((number for number in range(1, len(blocks)) if _is_wide(blocks[number], blocks[number - 1])), None)
    made = _cut_behind(classifier, blocks, wide, total, image) if wide else None
    classifier.train(training)
    return made


def _is_wide(block: _Block, before: _Block) -> bool:
    weights = sum(tensor.numel() for tensor in block.module.parameters())
    return weights >= WIDE and block.multiply_adds - before.multiply_adds < 2 * weights


def _cut_behind(classifier: Classifier, blocks: list[_Block], number: int, total: int, image: Tensor) -> Cut | None:
    """The cut behind so many blocks; None where the two parts in turn are not the whole."""
    last = blocks[number - 1]
    made = Cut(
        lower=nn.Sequential(*(block.module for block in blocks[:number])),
        upper=_without(classifier, {block.module for block in blocks[:number]}),
        name=last.name,
        share=last.multiply_adds / total,
        shape=last.shape,
    )
    return made if last.shape and _agrees(classifier, made, image) else None


@torch.no_grad()
def _agrees(classifier: Classifier, made: Cut, image: Tensor) -> bool:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, *image.shape[1:]), generator=generator).to(image)
    try:
        parts = made.upper.backbone(made.lower(images))
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError, AttributeError):  # not made to be run without the rest
        return False
    whole = classifier.backbone(images)
    return parts.shape == whole.shape and bool((parts - whole).abs().max() <= TOLERANCE * whole.abs().max().clamp_min(1e-12))


def _without(classifier: Classifier, gone: set[nn.Module]) -> Classifier:
    """The classifier with nothing in the place of some of its modules; all else is shared with it."""
    kept: dict[int, object] = {id(module): nn.Identity() for module in gone}
    kept |= {id(tensor): tensor for tensor in (*classifier.parameters(), *classifier.buffers())}
    kept |= {id(module): module for module in classifier.modules() if module not in gone and not _holds_any(module, gone)}
    return copy.deepcopy(classifier, kept)


def _holds_any(module: nn.Module, others: set[nn.Module]) -> bool:
    return any(inner in others for inner in module.modules())


def _blocks_in_turn(network: nn.Module, image: Tensor) -> tuple[list[_Block], int]:
    """The layers and blocks that an image goes through, in that order, up to the first that runs twice; and all multiply-adds."""
    counted, came_by = [0], list[_Block]()

    def count(module: nn.Module, inputs: object, output: Tensor) -> None:
        counted[0] += output.numel() * module.weight[0].numel()  # type: ignore[index]

    def note(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
            came_by.append(_Block(name, module, counted[0], shape))

        return hook

    handles = [one.register_forward_hook(count) for one in network.modules() if isinstance(one, (nn.Conv2d, nn.Linear))]
    handles += [module.register_forward_hook(note(name)) for name, module in _layers(network)]  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    twice = (number for number, block in enumerate(came_by) if block.module in {one.module for one in came_by[:number]})
    return came_by[: next(twice, None)], counted[0]


def _layers(module: nn.Module, above: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            yield from _layers(child, f"{above}{name}.")
        else:
            yield f"{above}{name}", child
