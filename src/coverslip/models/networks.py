"""Bare networks by name, ours or timm's, and how a file of weights is fitted into one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coverslip.errors import ConfigError, WeightsError, did_you_mean
from coverslip.models.own import OWN_ARGUMENTS, OWN_NETWORKS, OWN_SIZES, OWN_SMALLEST

Size = tuple[int, int]
State = dict[str, Tensor]
LOADING_ARGUMENTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Arguments by which timm would load, or download, weights of its own choice: a bundle of unknown origin could name a pickle."""
FirstLayer = Literal["repeat", "mean", "zero"]


@dataclass(frozen=True)
class InputFacts:
    """What a network was, or would be, trained on.

    Attributes:
        mean: of each channel, in units of a pixel scaled to [0, 1].
        std: of each channel, in the same units.
        input_size: (channels, height, width).
        interpolation: the name of the resize, as timm writes it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int, int]
    interpolation: str = "bilinear"


def check_architecture(architecture: str) -> None:
    """Refuse a name that is neither ours nor timm's.

    Raises:
        ConfigError: with the near name, and how to list them all.
    """
    if architecture in OWN_NETWORKS:
        return
    import timm

    if architecture in timm.list_models() or architecture in timm.list_pretrained():
        return
    known = [*OWN_NETWORKS, *timm.list_models()]
    near = did_you_mean(architecture, known)
    raise ConfigError(
        f"model.backbone = {architecture!r} is not a known architecture.{near} "
        f'Known: {", ".join(OWN_NETWORKS)}, and the {len(known) - len(OWN_NETWORKS)} names of timm, e.g. timm.list_models("*resnet*")'
    )


def input_facts(architecture: str) -> InputFacts:
    """The numbers that belong to an architecture's name: timm's for its networks; mean 0, deviation 1 for ours.

    Raises:
        ConfigError: an unknown architecture.
    """
    check_architecture(architecture)
    if architecture in OWN_NETWORKS:
        return InputFacts((0.0,), (1.0,), (1, *OWN_SIZES[architecture]))
    import timm

    known = timm.get_pretrained_cfg(architecture)
    if known is None:
        return InputFacts((0.5,) * 3, (0.5,) * 3, (3, 224, 224))
    channels, height, width = known.input_size
    return InputFacts(tuple(map(float, known.mean)), tuple(map(float, known.std)), (channels, height, width), known.interpolation)


def create_network(architecture: str, *, channels: int, size: Size, arguments: Mapping[str, Any]) -> nn.Module:
    """A network without its classifier and with random weights, in training mode.

    Args:
        architecture: a name of ours or of timm.
        channels: planes of the input.
        size: (height, width) of the input, in pixels; handed to networks whose weights depend on it (as `img_size`).
        arguments: further arguments of timm's constructor, or of our own networks; see `check_arguments`.

    Raises:
        ConfigError: an unknown architecture, or arguments or a size that its constructor refuses.
    """
    facts = input_facts(architecture)
    if architecture in OWN_NETWORKS:
        return _own_network(architecture, channels, size, arguments)
    import timm

    from coverslip.models.depthwise import speed_up_strided_depthwise

    loading = [name for name in LOADING_ARGUMENTS if name in arguments]
    if loading:
        raise ConfigError(f"model.arguments.{loading[0]}: weights come from model.weights, not from the constructor of {architecture}")
    wanted = dict(arguments)
    if getattr(timm.get_pretrained_cfg(architecture), "fixed_input_size", False) and size != facts.input_size[1:]:
        wanted.setdefault("img_size", size)
    try:
        network: nn.Module = timm.create_model(architecture, num_classes=0, in_chans=channels, **wanted)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{architecture} cannot be built for {size[0]}x{size[1]} pixels with model.arguments = {dict(arguments)}: {error}"
        ) from error
    speed_up_strided_depthwise(network)
    return network


def check_arguments(architecture: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that one of our own networks does not take; those of timm's networks show when they are built.

    Raises:
        ConfigError: an unknown argument, with the near name, or one that is no whole number in its range.
    """
    if architecture not in OWN_NETWORKS:
        return
    known = OWN_ARGUMENTS[architecture]
    problems = []
    for name, value in arguments.items():
        if name not in known:
            taken = f"{architecture} takes {', '.join(known) or 'no arguments'}"
            problems.append(f"model.arguments.{name} = {value!r}: {taken}.{did_you_mean(name, known)}")
        elif isinstance(value, bool) or not isinstance(value, int) or not known[name][0] <= value <= known[name][1]:
            low, high = known[name]
            problems.append(f"model.arguments.{name} = {value!r}: {architecture} takes a whole number from {low} to {high}")
    if problems:
        raise ConfigError(problems)


def _own_network(architecture: str, channels: int, size: Size, arguments: Mapping[str, Any]) -> nn.Module:
    check_arguments(architecture, arguments)
    smallest = OWN_SMALLEST[architecture]
    if min(size) < smallest:
        raise ConfigError(f"{architecture} needs {smallest} pixels a side, not {size[0]}x{size[1]} (pixels.height, pixels.width)")
    return OWN_NETWORKS[architecture](channels, size, **arguments)


def adapt_filters(filters: Tensor, channels: int, how: FirstLayer = "repeat") -> Tensor:
    """Filters of a first layer for another number of channels.

    `repeat`: for one channel the filters are summed over their planes, so that a grey image gives what the copy of it in every
    plane gives; for other numbers the planes are repeated in turn and scaled by old / new, so that the response to equal planes
    stays about the same (timm's convention). `mean`: one channel gets the mean of the planes; of more, those beyond the planes
    do. `zero`: those beyond the planes start at zero and leave the network's answer as it was; for one channel as `repeat`.

    Args:
        filters: float (filters, planes, height, width).
        channels: planes wanted, at least 1.
        how: `repeat`, `mean` or `zero`.

    Returns:
        float (filters, channels, height, width).

    >>> adapt_filters(torch.ones(8, 3, 5, 5), 1).unique(), adapt_filters(torch.ones(8, 3, 5, 5), 4).unique()
    (tensor([3.]), tensor([0.7500]))
    """
    planes = filters.shape[1]
    if channels == planes:
        return filters
    mean = filters.mean(1, keepdim=True)
    if channels == 1:
        return mean if how == "mean" else filters.sum(1, keepdim=True)
    if how == "repeat" or channels < planes:
        return filters[:, [plane % planes for plane in range(channels)]] * (planes / channels)
    beyond = mean if how == "mean" else torch.zeros_like(mean)
    return torch.cat([filters, beyond.expand(-1, channels - planes, -1, -1)], dim=1)


def adapt_numbers(numbers: tuple[float, ...], channels: int, how: FirstLayer = "repeat") -> tuple[float, ...]:
    """Means or deviations for another number of channels: the average for one, else as `adapt_filters` treats the filters.

    >>> adapt_numbers((0.25, 0.5, 0.75), 1), adapt_numbers((0.25, 0.5, 0.75), 4), adapt_numbers((0.25, 0.5, 0.75), 4, "mean")
    ((0.5,), (0.25, 0.5, 0.75, 0.25), (0.25, 0.5, 0.75, 0.5))
    """
    average = sum(numbers) / len(numbers)
    if channels == 1:
        return (average,)
    return tuple(average if how != "repeat" and plane >= len(numbers) else numbers[plane % len(numbers)] for plane in range(channels))


def load_state(
    network: nn.Module, state: State, *, planes: int, channels: int, how: FirstLayer = "repeat", source: str = "the weights"
) -> None:
    """Put weights into a network of the same architecture, adapted to its channels and input size.

    Filters of the first layer go through `adapt_filters`; position embeddings are resampled by timm. Every tensor of the
    network must be given, and nothing else but the classifier that was left off.

    Args:
        network: without its classifier.
        state: tensors by name.
        planes: channels that `state` was trained with.
        channels: channels of `network`.
        how: what another number of channels does to the filters.
        source: where the weights come from, for the error.

    Raises:
        WeightsError: tensors are missing, unexpected, or of another shape; some are named.
    """
    own = network.state_dict()
    left_off = _classifier_prefixes(network)
    fitted = {name: tensor for name, tensor in state.items() if name in own or not name.startswith(left_off)}
    for name, tensor in fitted.items():
        if _is_first_layer(tensor, own.get(name), planes, channels):
            fitted[name] = adapt_filters(tensor, channels, how)
    if misfits(fitted, own):
        fitted = _resampled(fitted, network)
    problems = misfits(fitted, own)
    if problems:
        raise WeightsError(f"{source} does not fit the architecture: {'; '.join(problems)}. Check model.backbone and model.arguments")
    network.load_state_dict(fitted, strict=False)


def misfits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from being loaded into a network whose own state is `own`; empty when all fits.

    Counters of batch norm may be missing, as in old files.
    """
    groups = {
        "missing": [name for name in own if name not in state and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
            for name, tensor in state.items()
            if name in own and tensor.shape != own[name].shape
        ],
    }
    return [f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if names[3:] else ''})" for what, names in groups.items() if names]


def _is_first_layer(tensor: Tensor, own: Tensor | None, planes: int, channels: int) -> bool:
    if own is None or tensor.ndim != 4 or own.ndim != 4 or planes == channels:
        return False
    others_agree = tensor.shape[0] == own.shape[0] and tensor.shape[2:] == own.shape[2:]
    return others_agree and tensor.shape[1] == planes and own.shape[1] == channels


def _resampled(state: State, network: nn.Module) -> State:
    """The state after the filter that timm keeps beside an architecture, which resamples position embeddings."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(state, network))
    except (KeyError, RuntimeError, ValueError, AttributeError):  # not this architecture's weights: `misfits` will say so
        return state


def _classifier_prefixes(network: nn.Module) -> tuple[str, ...]:
    """How the names of the classifier's weights begin, e.g. `("fc.",)`."""
    named = getattr(network, "default_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))


def count_weights(module: nn.Module) -> int:
    """Trainable and frozen parameters, without buffers."""
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(architecture: str, *, channels: int, size: Size, arguments: Mapping[str, Any]) -> nn.Module:
    """The network with shapes only, without memory for its weights."""
    with torch.device("meta"):
        return create_network(architecture, channels=channels, size=size, arguments=arguments)
