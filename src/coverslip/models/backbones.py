"""A backbone: a network without its classifier, with learned or random weights, that turns images into vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coverslip.config import ModelConfig
from coverslip.errors import ConfigError
from coverslip.models.networks import Size, adapt_numbers, create_network, input_facts, load_state
from coverslip.models.own import OWN_NETWORKS
from coverslip.models.weights import Weights, find_weights, local_weights, read_input_size

Pooling = Literal["average", "max", "both"]


@dataclass(frozen=True)
class BackboneSpec:
    """All that is needed to build a backbone again without its weights.

    Attributes:
        architecture: a name of ours or of timm.
        arguments: of its constructor.
        channels: planes of the input.
        size: (height, width) of the input, in pixels.
        pooling: how the last feature map becomes a vector.
        features: length of that vector.
        mean, std: of each channel, in units of a pixel scaled to [0, 1].
        source: where the weights came from, or `none`.
        sha256: of that file, or the empty string.
    """

    architecture: str
    arguments: dict[str, Any]
    channels: int
    size: Size
    pooling: Pooling
    features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str = "none"
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for `from_json`."""
        return {**asdict(self), "library": "coverslip" if self.architecture in OWN_NETWORKS else "timm"}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BackboneSpec:
        """The spec that `to_json` wrote, also after a way through text."""
        known = {field.name: value[field.name] for field in fields(cls)}
        lists = {name: tuple(known[name]) for name in ("size", "mean", "std")}
        return cls(**{**known, **lists})


class Backbone(nn.Module):
    """A network that ends in one vector an image.

    `average` pooling is the network's own ending, as timm's forward without a classifier gives it: the average over the
    last map, with the layers that some families keep behind it (vgg, mobilenetv3), and the class token of a vision
    transformer. `max` and `both` (average and maximum, in that order) pool the last map itself, or the patch tokens of a
    transformer. A network that ends in a vector (alexnet_grey) is not pooled.
    """

    def __init__(self, network: nn.Module, spec: BackboneSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    @property
    def features(self) -> int:
        """Length of the vector."""
        return self.spec.features

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean that the weights expect to be subtracted, one a channel, pixels in [0, 1]."""
        return self.spec.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Deviation that the weights expect to be divided by, one a channel, pixels in [0, 1]."""
        return self.spec.std

    @property
    def input_size(self) -> Size:
        """(height, width) of the input, in pixels."""
        return self.spec.size

    @property
    def weights(self) -> str:
        """Where the weights came from, with their hash; or `none`."""
        return f"{self.spec.source} (sha256 {self.spec.sha256})" if self.spec.sha256 else "none"

    def forward(self, images: Tensor) -> Tensor:
        """float (n, channels, height, width) -> float (n, features)."""
        return features_of(self.network, images, self.spec.pooling)


def features_of(network: nn.Module, images: Tensor, pooling: Pooling) -> Tensor:
    """One vector an image from a network without classifier; see `Backbone` for what each pooling does."""
    if pooling == "average":
        vectors: Tensor = network(images)
        return vectors
    last = network.forward_features(images)  # type: ignore[operator]
    if not isinstance(last, Tensor):
        name = type(network).__name__
        raise ConfigError(f'{name} ends in several maps, so that there is no last one to pool: model.pooling = "average" is its own ending')
    if last.ndim == 2:
        return last
    if last.ndim == 3:
        last = last[:, getattr(network, "num_prefix_tokens", 0) :].transpose(1, 2)
    elif getattr(network, "output_fmt", "NCHW") == "NHWC":
        last = last.permute(0, 3, 1, 2)
    flat = last.flatten(2)
    highest = flat.amax(dim=2)
    return highest if pooling == "max" else torch.cat([flat.mean(dim=2), highest], dim=1)


def build_backbone(config: ModelConfig, channels: int, size: Size) -> Backbone:
    """The backbone that a config asks for, with its weights, in training mode.

    Pretrained filters are kept for any number of channels (see `networks.adapt_filters`). For grey under `first_layer =
    "repeat"` the result equals that of the RGB copy, up to rounding, whenever all channels are normalised alike: by the data
    set, by the image, or by a backbone whose numbers are equal for all channels (0.5). ImageNet's numbers differ by
    channel while grey has but their average: there the normalised RGB copy is off by less than 0.2 deviations a channel,
    and the result is close, not equal. For four and more channels the numbers go the way of the filters.

    Args:
        config: backbone, weights, arguments, pooling, first layer.
        channels: planes of the input, 1 or more.
        size: (height, width) of the input, in pixels.

    Raises:
        ConfigError: an unknown backbone, or one that cannot take these arguments or this size.
        WeightsError: the weights are missing or do not fit.
    """
    return assemble_backbone(config, find_weights(config.backbone, config.weights), channels, size)


def assemble_backbone(config: ModelConfig, weights: Weights | None, channels: int, size: Size) -> Backbone:
    """`build_backbone` with weights that were found already."""
    arguments = {**(weights.arguments if weights else {}), **config.arguments}
    network = create_network(config.backbone, channels=channels, size=size, arguments=arguments)
    if weights:
        load_state(network, weights.state, planes=weights.input_size[0], channels=channels, how=config.first_layer, source=weights.source)
    numbers = weights or input_facts(config.backbone)
    spec = BackboneSpec(
        architecture=config.backbone,
        arguments=arguments,
        channels=channels,
        size=size,
        pooling=config.pooling,
        features=_try_once(network, config, channels, size),
        mean=adapt_numbers(numbers.mean, channels, config.first_layer),
        std=adapt_numbers(numbers.std, channels, config.first_layer),
        source=weights.source if weights else "none",
        sha256=weights.sha256 if weights else "",
    )
    return Backbone(network, spec)


def empty_backbone(spec: BackboneSpec) -> Backbone:
    """The backbone of a spec with random weights; looks for no weights."""
    return Backbone(create_network(spec.architecture, channels=spec.channels, size=spec.size, arguments=spec.arguments), spec)


def native_size(config: ModelConfig) -> Size:
    """(height, width) in pixels where the config names none: that of the local weights, else that of the architecture.

    Raises:
        ConfigError: an unknown backbone.
        WeightsError: `model.weights` names a path at which no weights are.
    """
    channels, height, width = input_facts(config.backbone).input_size
    found = local_weights(config.backbone, config.weights)
    _, height, width = (read_input_size(found) if found else None) or (channels, height, width)
    return height, width


@torch.no_grad()
def _try_once(network: nn.Module, config: ModelConfig, channels: int, size: Size) -> int:
    """Length of the vector that one empty image gives; an error where the image does not fit."""
    patch = _patch(network)
    if size[0] % patch[0] or size[1] % patch[1]:
        raise ConfigError(
            f"{config.backbone} cuts its input into patches of {patch[0]}x{patch[1]} pixels and would lose the rest of "
            f"{size[0]}x{size[1]}; choose multiples for pixels.height and pixels.width"
        )
    network.eval()
    try:
        return features_of(network, torch.zeros(1, channels, *size), config.pooling).shape[1]
    except ConfigError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"{config.backbone} cannot take {channels} channels of {size[0]}x{size[1]} pixels (pixels.height, pixels.width): {error}"
        ) from error
    finally:
        network.train()


def _patch(network: nn.Module) -> Size:
    """Size of the patches that an image is cut into side by side; (1, 1) where they overlap, or where there are none."""
    cut = getattr(getattr(network, "patch_embed", None), "proj", None)
    if not isinstance(cut, nn.Conv2d) or cut.kernel_size != cut.stride:
        return 1, 1
    height, width = cut.kernel_size
    return height, width
