"""Weights that lie at a URL or in a repository of the hub: copied to this machine once for each content."""

from __future__ import annotations

from pathlib import Path

from coverslip.errors import WeightsError
from coverslip.repositories import fetch_bundle, is_address
from coverslip.runtime import cache_folder, hash_text, writing
from coverslip.storage import URL, download, is_url, place, read, stat

FILE, DESCRIPTION, TENSORS, FIRST_TENSORS = ".safetensors", "model.json", "model.safetensors", "model-1.safetensors"


def is_far(where: str) -> bool:
    """Whether `model.weights` names something that is not on this machine.

    >>> is_far("s3://bucket/resnet18.safetensors"), is_far("hf://lab/gels"), is_far("file:///home/a"), is_far("pretrained")
    (True, True, False, False)
    """
    return is_address(where) or (is_url(where) and isinstance(place(where), URL))


def fetch_weights_at(where: str) -> Path:
    """The local copy of a .safetensors file, or a folder with the weights and the description of a bundle.

    Args:
        where: URL of a file, of a bundle or of a run, or `hf://owner/name` of a bundle or of weights of timm.

    Raises:
        WeightsError: there are no weights.
        MissingInputError: there is no such repository.
        UnreachableError: the store, or the hub, does not answer.
    """
    if is_address(where):
        return _of_repository(where, fetch_bundle(where))
    url = place(where)
    assert isinstance(url, URL)
    if url.suffix == FILE:
        return _copy_of_file(url)
    folder = next((one for one in (url, url / "bundle") if stat(one / DESCRIPTION) is not None), None)
    if folder is None:
        raise WeightsError(f"model.weights = {where!r}: neither a {FILE} file, nor a bundle or run with {DESCRIPTION} in it")
    return _copy_of_bundle(folder)


def _of_repository(where: str, folder: Path) -> Path:
    if (folder / DESCRIPTION).is_file():
        return folder
    if (folder / TENSORS).is_file():
        return folder / TENSORS
    raise WeightsError(f"model.weights = {where!r}: the repository holds neither a bundle ({DESCRIPTION}) nor {TENSORS}")


def _copy_of_file(url: URL) -> Path:
    known = stat(url)
    if known is None:
        raise WeightsError(f"model.weights = '{url}': there is nothing at this address")
    file = cache_folder() / "fetched" / hash_text(str(url), str(known.size), known.version)[:32] / url.name
    if not file.is_file():
        download(url, file)
    return file


def _copy_of_bundle(url: URL) -> Path:
    description = read(url / DESCRIPTION)
    folder = cache_folder() / "fetched" / hash_text(str(url), description.decode("utf-8", "replace"))[:32]
    if not folder.is_dir():
        with writing(folder) as temporary:
            for name in (DESCRIPTION, FIRST_TENSORS if stat(url / FIRST_TENSORS) is not None else TENSORS):
                if stat(url / name) is None:
                    raise WeightsError(f"model.weights = '{url}' is a bundle without {name}")
                download(url / name, temporary / name)
    return folder
