"""A classifier: a backbone and a head, and how to build the pair again from a few plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coverslip.config import ModelConfig
from coverslip.errors import BundleError
from coverslip.models.backbones import Backbone, BackboneSpec, assemble_backbone, empty_backbone
from coverslip.models.heads import build_head
from coverslip.models.networks import Size, State, misfits
from coverslip.models.weights import Weights, find_weights

HeadKind = Literal["single", "multi"] | list[int]


class Classifier(nn.Module):
    """From images to one score a class.

    Attributes:
        backbone: images to vectors.
        head: vectors to scores.
        head_kind: `single`, `multi`, or the sizes of hidden layers.
        classes: number of scores.
        notes: sentences on where the weights come from.
    """

    def __init__(self, backbone: Backbone, head_kind: HeadKind, classes: int, notes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = build_head(head_kind, backbone.features, classes)
        self.head_kind: HeadKind = head_kind
        self.classes = classes
        self.notes = notes

    def forward(self, images: Tensor) -> Tensor:
        """float (n, channels, height, width) -> float32 (n, classes), logits."""
        logits: Tensor = self.head(self.backbone(images))
        return logits.float()


def build_classifier(config: ModelConfig, *, channels: int, classes: int, size: Size, seed: int, names: Sequence[str] = ()) -> Classifier:
    """The classifier that a config asks for, in training mode on the CPU.

    What is not learned yet is random from `seed`; torch's global generator is left as it was. Going on from a bundle
    takes its backbone, and its head: class by class where their names are known, else when all shapes agree; `notes` says which.

    Args:
        config: backbone, weights, head.
        channels: planes of the input, 1 or more.
        classes: number of scores, 1 or more.
        size: (height, width) of the input, in pixels.
        seed: of the random weights.
        names: of the classes, in the order of the scores.

    Raises:
        ConfigError: an unknown backbone, or one that cannot take these arguments or this size.
        WeightsError: the weights are missing or do not fit.
    """
    return _with_head(_build_backbone(config, channels, size, seed), config, channels, classes, names)


@dataclass(frozen=True)
class _Built:
    """A backbone, the weights it came from (without its tensors), and torch's generator as it stood when it was built."""

    backbone: Backbone
    weights: Weights | None
    generator: Tensor


def _build_backbone(config: ModelConfig, channels: int, size: Size, seed: int) -> _Built:
    weights = find_weights(config.backbone, config.weights)
    with seeded(seed):
        backbone = assemble_backbone(config, weights, channels, size)
        return _Built(backbone, replace(weights, state={}) if weights else None, torch.get_rng_state())


def _with_head(built: _Built, config: ModelConfig, channels: int, classes: int, names: Sequence[str]) -> Classifier:
    with seeded(0):
        torch.set_rng_state(built.generator)
        classifier = Classifier(built.backbone, config.head, classes)
    notes = (
        f"backbone weights: {built.backbone.weights}",
        *_first_layer_note(config, built.weights, channels),
        *_go_on(classifier.head, built.weights, names),
    )
    classifier.notes = notes
    return classifier


class FrozenBackbones:
    """Frozen backbones that neighbouring runs of a process share, so that each is read or drawn once.

    Attributes:
        every_row: whether these runs look at different rows of the same images, so that features are best computed of all.
        seconds: that frozen backbones take for the images that judge, by backbone and images (see `Fitted.time_scores`).
    """

    def __init__(self, kept: int = 2, *, every_row: bool = False) -> None:
        self.kept = kept
        self.every_row = every_row
        self.seconds: dict[str, float] = {}
        self._built: dict[str, _Built] = {}

    def classifier(
        self, config: ModelConfig, *, channels: int, classes: int, size: Size, seed: int, names: Sequence[str] = ()
    ) -> Classifier:
        """What `build_classifier` gives, with a backbone that may be that of an earlier call: it must not be changed.

        The head is where the backbone is by now, which may be a GPU.
        """
        asked = config.model_copy(update={"head": "single", "class_groups": None})
        key = f"{asked.model_dump_json()} {channels} {size} {seed}"
        if key not in self._built:
            while len(self._built) >= self.kept:
                self._built.pop(next(iter(self._built)))
            self._built[key] = _build_backbone(config, channels, size, seed)
        built = self._built[key]
        classifier = _with_head(built, config, channels, classes, names)
        return classifier.to(next(built.backbone.parameters()).device)


def _first_layer_note(config: ModelConfig, weights: Weights | None, channels: int) -> tuple[str, ...]:
    """A sentence where filters learned on one number of channels look at another."""
    planes = weights.input_size[0] if weights else channels
    if planes == channels:
        return ()
    if channels == 1:
        how = "averaged over them" if config.first_layer == "mean" else "summed over them"
    elif config.first_layer == "repeat" or channels < planes:
        how = f"taken in turn and scaled by {planes}/{channels}"
    else:
        how = f"kept, those beyond {'get their mean' if config.first_layer == 'mean' else 'start at zero'}"
    return (f"first layer: {channels} channel{'s' if channels > 1 else ''}, filters learned on {planes} are {how}",)


def _go_on(head: nn.Module, weights: Weights | None, names: Sequence[str]) -> tuple[str, ...]:
    """Load the head of a bundle where it fits; a sentence on it, or nothing when there is no bundle."""
    if weights is None or not weights.head:
        return ()
    state, known = dict(weights.head), weights.classes
    shared = [name for name in names if name in known]
    if names and known:
        if not shared:
            return (f"head: random, for {weights.source} told other classes apart: {', '.join(known)}",)
        state = _by_class(state, known, head.state_dict(), names)
    problems = misfits(state, head.state_dict())
    if problems:
        return (f"head: random, for that of {weights.source} is another one: {'; '.join(problems)}",)
    head.load_state_dict(state)
    if not names or not known:
        named = f", which told {', '.join(known)} apart, in this order" if known else ""
        return (f"head: from {weights.source}{named}",)
    new, gone = [name for name in names if name not in known], [name for name in known if name not in names]
    more = (f"; new, and random: {', '.join(new)}" if new else "") + (f"; not asked for any more: {', '.join(gone)}" if gone else "")
    return (f"head: from {weights.source}, class by class: {', '.join(shared)}{more}",)


def _by_class(state: State, known: Sequence[str], own: State, names: Sequence[str]) -> State:
    """A head's weights with the rows of its last layer put in the order of other names; new classes keep the rows of `own`.

    A head of another form is given back as it is: it will not fit.
    """
    last = list(own)[-2:]  # weight and bias
    if any(name not in state or len(state[name]) != len(known) or state[name].shape[1:] != own[name].shape[1:] for name in last):
        return state
    to = [place for place, name in enumerate(names) if name in known]
    rows = [list(known).index(names[place]) for place in to]
    moved = {name: own[name].clone() for name in last}
    for name in last:
        moved[name][to] = state[name][rows].to(moved[name].dtype)
    return {**state, **moved}


def architecture_json(classifier: Classifier) -> dict[str, Any]:
    """Plain JSON values from which `from_architecture` builds the same module; kept as `architecture` in a bundle."""
    return {"backbone": classifier.backbone.spec.to_json(), "head": classifier.head_kind, "classes": classifier.classes}


def from_architecture(value: Mapping[str, Any], state: State | None = None) -> Classifier:
    """Build a classifier again, without looking for pretrained weights; torch's global generator is left as it was.

    Args:
        value: what `architecture_json` gave.
        state: tensors for it, e.g. of `model.safetensors`; random weights when not given.

    Raises:
        BundleError: keys are missing, or `state` does not fit; some tensors are named.
        ConfigError: this installation does not know the architecture.
    """
    try:
        spec = BackboneSpec.from_json(value["backbone"])
        head, classes = value["head"], int(value["classes"])
    except (KeyError, TypeError) as error:
        raise BundleError(f"the architecture of the bundle is incomplete: {type(error).__name__}: {error}") from error
    with seeded(0):
        classifier = Classifier(empty_backbone(spec), head, classes)
    if state is not None:
        problems = misfits(state, classifier.state_dict())
        if problems:
            raise BundleError(f"the weights do not fit the architecture of the bundle: {'; '.join(problems)}")
        classifier.load_state_dict(state, strict=False)
    return classifier


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` on the CPU inside the block; the global generator goes on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
