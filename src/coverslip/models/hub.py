"""Weights that timm's authors published: in the local caches, on the hub, and in our own format. Never a pickle."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coverslip.errors import WeightsError
from coverslip.models.networks import Size, State
from coverslip.models.own import OWN_NETWORKS

SAFE_NAME = "model.safetensors"
SECONDS_TO_ANSWER = 5.0


@dataclass(frozen=True)
class HubAddress:
    """One file on the Hugging Face hub."""

    repository: str
    file: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repository}/{self.file}" + (f"@{self.revision}" if self.revision else "")


def hub_address(architecture: str) -> HubAddress | None:
    """Where timm publishes the weights of an architecture; None where it does not, and for our own networks."""
    if architecture in OWN_NETWORKS:
        return None
    import timm

    known = timm.get_pretrained_cfg(architecture)
    if known is None or not known.hf_hub_id:
        return None
    repository, _, revision = known.hf_hub_id.partition("@")
    file = known.hf_hub_filename or SAFE_NAME
    return HubAddress(repository, file if file.endswith(".safetensors") else SAFE_NAME, revision or None)


def published_licence(architecture: str) -> str:
    """The licence under which timm says that the weights are published, e.g. `apache-2.0`; empty where it does not say."""
    import timm

    known = timm.get_pretrained_cfg(architecture)
    return str(getattr(known, "license", None) or "")


def cached_file(architecture: str) -> Path | None:
    """The weights in a local cache: Hugging Face's by timm's address, then `checkpoints` of torch.hub by name."""
    from huggingface_hub import try_to_load_from_cache

    address = hub_address(architecture)
    if address is not None:
        found = try_to_load_from_cache(address.repository, address.file, revision=address.revision)
        if isinstance(found, str):
            return Path(found)
    named = torch_hub_file(architecture)
    return named if named.is_file() else None


def torch_hub_file(architecture: str) -> Path:
    """Where torch.hub's cache would hold the weights as safetensors."""
    return Path(torch.hub.get_dir()) / "checkpoints" / f"{architecture}.safetensors"


def hub_answers() -> bool:
    """Whether the hub can be reached; asked once, for at most some seconds, and never when `HF_HUB_OFFLINE` is set."""
    from huggingface_hub import constants, errors, get_session

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    transport_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # of the hub's own HTTP client
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS_TO_ANSWER)
    except (OSError, transport_error):
        return False
    return True


def download(architecture: str) -> Path:
    """Fetch the weights into Hugging Face's cache. `HF_ENDPOINT`, `HF_HUB_OFFLINE` and the like are honoured.

    Raises:
        WeightsError: timm publishes none, the hub cannot be reached, or it has no such file as safetensors.
    """
    from huggingface_hub import constants, errors, get_session, hf_hub_download

    address = hub_address(architecture)
    if address is None:
        raise WeightsError(f"timm publishes no weights for {architecture}")
    transport_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # of the hub's own HTTP client
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS_TO_ANSWER)  # the download would retry for half a minute
        return Path(hf_hub_download(address.repository, address.file, revision=address.revision))
    except (OSError, errors.EntryNotFoundError, transport_error) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{address} at {constants.ENDPOINT}: {reason}") from error


def publisher_state(architecture: str, file: Path, arguments: dict[str, Any]) -> tuple[State, Size]:
    """A published file as the state of the network without its classifier, and the size that it is for.

    timm renames and reshapes on the way in, and refuses a file that does not fill the whole network.

    Args:
        architecture: a name of timm.
        file: safetensors, with the classifier.
        arguments: further arguments of timm's constructor.

    Raises:
        WeightsError: the file does not fit.
    """
    import timm

    if file.suffix != ".safetensors":
        raise WeightsError(f"{file} is not a .safetensors file; pickled files can run code and are not opened")
    try:
        network = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **arguments)
    except (RuntimeError, KeyError, TypeError, ValueError, OSError) as error:
        raise WeightsError(f"{file} does not fit {architecture}: {str(error)[:400]}") from error
    network.reset_classifier(0)
    return network.state_dict(), tuple(network.default_cfg["input_size"][1:])
