"""Bundles in repositories of the Hugging Face hub, `hf://owner/name` or `hf://owner/name@revision`.

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the login of huggingface_hub are honoured. Only the files of a bundle are fetched,
never one that would have to be unpickled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from coverslip.errors import InputError, MissingInputError, UnreachableError

FILES = ("model.json", "model*.safetensors", "trained_on.txt", "exports.json", "README.md", "sample/*", "neighbours/*")
"""What a bundle consists of."""
_ADDRESS = re.compile(r"hf:[/\\]{1,2}")  # a `Path` keeps one slash of two
_REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?/?")
SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True)
class Repository:
    """A repository of models.

    Attributes:
        name: owner and name.
        revision: a branch, tag or commit; the newest state of `main` when None.
    """

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.name}" + (f"@{self.revision}" if self.revision else "")


def is_address(path: object) -> bool:
    """Whether a path, or a URL, is the address of a repository.

    >>> is_address("hf://lab/gels"), is_address(Path("hf://lab/gels")), is_address("runs/gels")
    (True, True, False)
    """
    return _ADDRESS.match(str(path)) is not None


def parse_address(path: str | Path) -> Repository:
    """The repository of an address.

    Raises:
        InputError: it has another form.

    >>> parse_address("hf://lab/gels@v2")
    Repository(name='lab/gels', revision='v2')
    """
    found = _REPOSITORY.fullmatch(_ADDRESS.sub("", str(path), count=1).replace("\\", "/"))
    if not is_address(path) or found is None:
        raise InputError(f"{path} is not the address of a repository; expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    return Repository(found["name"], found["revision"])


def fetch_bundle(address: str | Path) -> Path:
    """The folder into which huggingface_hub has put the bundle; what is there already is not fetched again.

    Where the hub does not answer, the copy in its cache serves.

    Raises:
        InputError: not an address.
        MissingInputError: there is no such repository, or the token does not open it.
        UnreachableError: the hub does not answer, and there is no copy.
    """
    from huggingface_hub import constants, errors, snapshot_download

    repository = parse_address(address)
    transport_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # of the hub's own HTTP client
    try:
        return Path(
            snapshot_download(
                repository.name, revision=repository.revision, allow_patterns=list(FILES), endpoint=constants.ENDPOINT,
                etag_timeout=SECONDS_TO_ANSWER, local_files_only=constants.HF_HUB_OFFLINE,
            )
        )  # fmt: skip
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise MissingInputError(f"no bundle at {repository}: {constants.ENDPOINT} has no such repository, or asks for a login") from error
    except (errors.LocalEntryNotFoundError, transport_error, OSError) as error:
        reason = _first_line(error)
        raise UnreachableError(f"{repository} cannot be fetched from {constants.ENDPOINT}: {reason}; no copy is in the cache") from error


def push_bundle(folder: Path, address: str, *, public: bool = False) -> str:
    """Put a bundle into a repository, which is made where there is none, and give the page of the commit.

    Args:
        folder: the bundle.
        address: `hf://OWNER/NAME`, with a branch behind `@` when it is not `main`.
        public: whether a repository that is made here may be read by everybody. The sample images of the bundle go with it.

    Raises:
        InputError: not an address.
        UnreachableError: the hub does not answer, or refuses; a token needs the right to write.
    """
    from huggingface_hub import HfApi, constants, errors

    repository = parse_address(address)
    api = HfApi(endpoint=constants.ENDPOINT)
    transport_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # of the hub's own HTTP client
    try:
        api.create_repo(repository.name, private=not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository.name, folder_path=folder, revision=repository.revision, allow_patterns=list(FILES),
            delete_patterns=list(FILES), commit_message="A coverslip bundle",
        )  # fmt: skip
    except (transport_error, OSError, ValueError) as error:
        raise UnreachableError(
            f"{repository} cannot be written at {constants.ENDPOINT}: {_first_line(error)}; log in with a token that may write (HF_TOKEN)"
        ) from error
    return str(done.commit_url)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
