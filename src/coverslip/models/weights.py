"""Finding, reading, checking and fetching learned weights. Only safetensors: a pickled file can run code when opened.

A file of weights is `<architecture>.safetensors`. Its header says, as strings: `architecture`, `library`, `arguments` (of
the constructor, JSON), `mean` and `std` (JSON lists, pixels in [0, 1]), `input_size` (JSON, channels, height, width) and
`interpolation`; it may say `license`. A file without that header is taken for one that timm's authors published.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from coverslip.errors import BundleError, WeightsError, did_you_mean
from coverslip.models import hub
from coverslip.models.far_weights import DESCRIPTION, FIRST_TENSORS, TENSORS, fetch_weights_at, is_far
from coverslip.models.networks import InputFacts, State, check_architecture, input_facts, misfits, on_meta
from coverslip.models.own import OWN_NETWORKS
from coverslip.runtime import cache_folder, hash_file, writing
from coverslip.storage import place

BACKBONE_PREFIX = "backbone.network."
HEAD_PREFIX = "head."


@dataclass(frozen=True)
class Weights:
    """Learned weights of a backbone, and what is known of them.

    Attributes:
        architecture: the name that they belong to.
        source: the file that they were read from.
        sha256: of that file, 64 hexadecimal digits.
        arguments: of the constructor.
        mean, std: of each input channel, pixels in [0, 1].
        input_size: (channels, height, width) that they were trained on.
        interpolation: the name of the resize that they were trained on.
        state: float32 tensors by name, without the classifier.
        head: float32 tensors of the head, when they come from a bundle.
        classes: class names of that head.
        licence: what the file says of it, or timm of a file that its authors published; empty where nothing is said.
    """

    architecture: str
    source: str
    sha256: str
    arguments: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int, int]
    interpolation: str
    state: State
    head: State = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    licence: str = ""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights as it lies in a folder; `problem` is empty when nothing is known to be wrong with it.

    Attributes:
        name: the architecture, from the file's name.
        path: the file.
        size: in bytes.
        sha256: 64 hexadecimal digits.
        input_size: (channels, height, width), or None where the header does not say.
        problem: one sentence.
    """

    name: str
    path: Path
    size: int
    sha256: str
    input_size: tuple[int, int, int] | None
    problem: str = ""


def find_weights(architecture: str, where: str) -> Weights | None:
    """The weights that a config asks for.

    `pretrained` looks for `<architecture>.safetensors` in the folders of `COVERSLIP_WEIGHTS` (several are separated as in
    PATH), then in coverslip's, Hugging Face's and torch's local caches, then on the hub.

    Args:
        architecture: a name of ours or of timm.
        where: `pretrained`, `none`, a .safetensors file, a bundle or run folder, or the URL of one of these.

    Returns:
        The weights; None for `none`. Never random ones, never those of another architecture.

    Raises:
        ConfigError: an unknown architecture.
        WeightsError: nothing is found, or it does not belong to the architecture.
    """
    check_architecture(architecture)
    if where == "none":
        return None
    path = local_weights(architecture, where)
    if path is not None:
        found = _read_bundle(path, architecture) if path.is_dir() else read_weights(path, architecture)
        return replace(found, source=where) if is_far(where) else found
    try:
        downloaded = hub.download(architecture)
    except WeightsError as error:
        _nothing_found(architecture, str(error))
    return read_weights(downloaded, architecture)


def local_weights(architecture: str, where: str = "pretrained") -> Path | None:
    """The file, or the bundle folder, that `find_weights` would read without asking the hub; None when there is none.

    What `where` names at a URL is copied to this machine first.

    Raises:
        WeightsError: `where` names a path at which no weights are.
    """
    if where == "none":
        return None
    if where == "pretrained":
        files = (folder / f"{architecture}.safetensors" for folder in weight_folders())
        return next((file for file in files if file.is_file()), None) or hub.cached_file(architecture)
    path = fetch_weights_at(where) if is_far(where) else Path(str(place(where)))
    if path.is_dir():
        return _bundle_folder(path)
    if not path.is_file():
        raise WeightsError(f"model.weights = {where!r}: no such file or folder.{did_you_mean(where, ['pretrained', 'none'])} {_WAYS}")
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"model.weights = {where!r}: expected a .safetensors file; pickled files (.pt, .pth, .bin) can run code and are not opened"
        )
    return path


def weight_folders() -> list[Path]:
    """The folders of `COVERSLIP_WEIGHTS` in their order, then coverslip's own cache."""
    named = [Path(folder).expanduser() for folder in os.environ.get("COVERSLIP_WEIGHTS", "").split(os.pathsep) if folder]
    return [*named, cache_folder() / "weights"]


def read_weights(path: Path, architecture: str) -> Weights:
    """Read one file of weights, as float32.

    Raises:
        WeightsError: the file cannot be opened, or belongs to another architecture.
    """
    header = read_header(path)
    named = header.get("architecture", architecture)
    if named != architecture:
        raise WeightsError(f"{path} holds weights of {named}, but model.backbone = {architecture!r}")
    arguments = dict(header.get("arguments", {}))
    facts = _facts(header, input_facts(architecture))
    if "architecture" in header or architecture in OWN_NETWORKS:
        state = _load(path)
    else:
        state, (height, width) = hub.publisher_state(architecture, path, arguments)
        facts = InputFacts(facts.mean, facts.std, (facts.input_size[0], height, width), facts.interpolation)
    return Weights(
        architecture=architecture,
        source=str(path),
        sha256=hash_file(path),
        arguments=arguments,
        mean=facts.mean,
        std=facts.std,
        input_size=facts.input_size,
        interpolation=facts.interpolation,
        state=_as_float32(state),
        licence=stated_licence(header, architecture),
    )


def stated_licence(header: Mapping[str, Any], architecture: str) -> str:
    """The licence of a file of weights, e.g. `apache-2.0`: from its header, or from timm for a file of its authors; or empty."""
    if "license" in header or "architecture" in header or architecture in OWN_NETWORKS:
        return str(header.get("license", ""))
    return hub.published_licence(architecture)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, its JSON values decoded; empty when the file carries none of ours.

    Raises:
        WeightsError: the file is not safetensors, is cut short, or its header is not as described above.
    """
    try:
        with safe_open(path, "pt") as file:
            texts = file.metadata() or {}
        decoded = {key: json.loads(texts[key]) for key in ("arguments", "mean", "std", "input_size") if key in texts}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors weights: {error}") from error
    return {**texts, **decoded}


def read_input_size(path: Path) -> tuple[int, int, int] | None:
    """(channels, height, width) of a file of weights or a bundle folder; None where the header does not say.

    Raises:
        WeightsError: the file cannot be opened.
        BundleError: the folder is not a bundle.
    """
    if path.is_dir():
        return _read_spec(path)[1].input_size
    size = read_header(path).get("input_size")
    return (int(size[0]), int(size[1]), int(size[2])) if size else None


def write_weights(path: Path, weights: Weights) -> None:
    """Write weights of a backbone with our header, whole or not at all.

    Raises:
        ResourceError: the place cannot be written.
    """
    header = {
        "architecture": weights.architecture,
        "library": "coverslip" if weights.architecture in OWN_NETWORKS else "timm",
        "arguments": json.dumps(weights.arguments),
        "mean": json.dumps(weights.mean),
        "std": json.dumps(weights.std),
        "input_size": json.dumps(weights.input_size),
        "interpolation": weights.interpolation,
        **({"license": weights.licence} if weights.licence else {}),
    }
    with writing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in weights.state.items()}, temporary, header)


def list_weights() -> list[WeightsFile]:
    """Every file in `weight_folders()`, in their order; the hub's own cache is not listed."""
    return [_describe(path) for folder in weight_folders() for path in sorted(folder.glob("*.safetensors"))]


def check_weights() -> list[WeightsFile]:
    """`list_weights()`, each file opened and compared with its architecture, name by name and shape by shape."""
    return [_describe(file.path, problem=file.problem or _problem(file.path)) for file in list_weights()]


def fetch_weights(architecture: str, folder: Path | None = None) -> Path:
    """Bring the weights of an architecture from the caches or the hub into a folder, with our header.

    Args:
        architecture: a name of timm.
        folder: the first of `weight_folders()` when not given.

    Returns:
        The file, `<folder>/<architecture>.safetensors`; one that is already there is checked and left as it is.

    Raises:
        ConfigError: an unknown architecture.
        WeightsError: the hub has none, or cannot be reached.
        ResourceError: the folder cannot be written.
    """
    check_architecture(architecture)
    path = (folder or weight_folders()[0]) / f"{architecture}.safetensors"
    if path.is_file():
        read_weights(path, architecture)
    else:
        write_weights(path, read_weights(hub.cached_file(architecture) or hub.download(architecture), architecture))
    return path


def _facts(header: Mapping[str, Any], default: InputFacts) -> InputFacts:
    channels, height, width = header.get("input_size", default.input_size)
    return InputFacts(
        tuple(map(float, header.get("mean", default.mean))),
        tuple(map(float, header.get("std", default.std))),
        (int(channels), int(height), int(width)),
        str(header.get("interpolation", default.interpolation)),
    )


def _load(path: Path) -> State:
    try:
        return _as_float32(load_file(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors weights: {error}") from error


def _as_float32(state: State) -> State:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _describe(path: Path, problem: str = "") -> WeightsFile:
    try:
        size = read_header(path).get("input_size")
    except WeightsError as error:
        size, problem = None, str(error)
    return WeightsFile(path.stem, path, path.stat().st_size, hash_file(path), tuple(size) if size else None, problem)


def _problem(path: Path) -> str:
    try:
        weights = read_weights(path, path.stem)
        channels, height, width = weights.input_size
        network = on_meta(path.stem, channels=channels, size=(height, width), arguments=weights.arguments)
    except (WeightsError, ValueError, TypeError) as error:
        return str(error)
    return "; ".join(misfits(weights.state, network.state_dict()))


def _bundle_folder(path: Path) -> Path:
    folder = path / "bundle" if (path / "bundle").is_dir() else path
    absent = [name for name in (DESCRIPTION, _tensors_of(folder).name) if not (folder / name).is_file()]
    if absent:
        raise WeightsError(f"model.weights = {str(path)!r} is a folder without {' and '.join(absent)}: neither a bundle nor a run. {_WAYS}")
    return folder


def _tensors_of(folder: Path) -> Path:
    """The weights of a bundle; those of the first model where several answer as one."""
    first = folder / FIRST_TENSORS
    return first if first.is_file() else folder / TENSORS


def _read_spec(folder: Path) -> tuple[dict[str, Any], InputFacts, tuple[str, ...]]:
    """A bundle's backbone as `BackboneSpec.to_json` wrote it, its numbers, its class names."""
    try:
        model = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        architecture, classes = model["architecture"], tuple(map(str, model.get("classes", ())))
        members = architecture.get("groups", ())
        if any(len(member["columns"]) != len(classes) for member in members):
            raise WeightsError(f"model.weights: {folder} holds a model for each of several class groups; name a bundle of a single model")
        backbone = dict((members[0] if members else architecture)["backbone"])
        size = (backbone["channels"], *backbone["size"])
        facts = _facts({**backbone, "input_size": size}, InputFacts((), (), (1, 1, 1)))
        return backbone, facts, classes
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder} cannot be read as a bundle: {type(error).__name__}: {error}") from error


def _read_bundle(folder: Path, architecture: str) -> Weights:
    backbone, facts, classes = _read_spec(folder)
    file = _tensors_of(folder)
    named = str(backbone["architecture"])
    if named != architecture:
        raise WeightsError(f"{folder} holds a {named}, but model.backbone = {architecture!r}; say the same, or name other weights")
    state = _load(file)
    return Weights(
        architecture=named,
        source=str(folder),
        sha256=hash_file(file),
        arguments=dict(backbone["arguments"]),
        mean=facts.mean,
        std=facts.std,
        input_size=facts.input_size,
        interpolation=facts.interpolation,
        state=_under(BACKBONE_PREFIX, state),
        head=_under(HEAD_PREFIX, state),
        classes=classes,
    )


def _under(prefix: str, state: State) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


_WAYS = 'model.weights takes "pretrained", "none", a .safetensors file, a bundle or run folder, or the URL of one of these.'


def _nothing_found(architecture: str, reason: str) -> NoReturn:
    folders = "".join(
        f"\n  - {folder / architecture}.safetensors: {'no such file' if folder.is_dir() else 'no such folder'}"
        for folder in weight_folders()
    )
    address = hub.hub_address(architecture)
    caches = f"\n  - the local caches: no {address} of Hugging Face, no {hub.torch_hub_file(architecture)}" if address else ""
    raise WeightsError(
        f'no pretrained weights for {architecture} (model.weights = "pretrained"). Looked at:{folders}{caches}\n  - the hub: {reason}\n'
        f"Three ways out: put {architecture}.safetensors into a folder that COVERSLIP_WEIGHTS names; "
        f'give a path, model.weights = "/path/to/weights.safetensors" (or a bundle or run); '
        f'or start from random weights, model.weights = "none" with training.regime = "scratch".'
    )
