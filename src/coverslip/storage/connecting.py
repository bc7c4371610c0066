"""Stores: how one is reached, how often and how long it is asked again, and its errors in our words.

COVERSLIP_ENDPOINT            address of the store, where it is not the cloud's own (`--endpoint`)
COVERSLIP_STORAGE_TIMEOUT     seconds that one request may take, 20 when not set
COVERSLIP_STORAGE_PATIENCE    seconds from the first try of a request to the last, 60 when not set
"""

from __future__ import annotations

import configparser
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from coverslip.errors import ConfigError, InputError, MissingInputError, UnreachableError
from coverslip.runtime import require
from coverslip.storage.addresses import URL, WEB

T = TypeVar("T")

ENDPOINT, TIMEOUT, PATIENCE = "COVERSLIP_ENDPOINT", "COVERSLIP_STORAGE_TIMEOUT", "COVERSLIP_STORAGE_PATIENCE"
RETRIES = 8
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=0.1), timedelta(seconds=5)
AT_ONCE = 16
"""Requests that wait for answers at the same time."""
CHUNK = 8 << 20
"""Bytes of a large object that one request asks for or sends, so that each is done in time."""


KEYS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a key, or log in with gcloud auth application-default login, "
    "or set GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, "
    "or AZURE_SKIP_SIGNATURE=true for a public container",
}
"""What gives access to each kind of store."""
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
"""What S3 and Azure say of a bucket that they do not have."""
REFUSED = re.compile(r"status code: 4(?!08|29)\d\d")
"""An answer that asking again would not change."""
METADATA = ("169.254.169.254", "metadata.google.internal")
"""Where machines of a cloud find their keys."""


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if value <= 0:
        raise ConfigError(f"{name}={text}: expected a number of seconds above 0")
    return value


def surroundings() -> tuple[tuple[str, str], ...]:
    """What the environment says of how stores are reached: names and values."""
    names = ("AWS_", "AZURE_", "GOOGLE_", "COVERSLIP_")
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(names)))


def store_of(url: URL) -> tuple[Any, str]:
    """The obstore store of a URL's bucket or host, and the key in it."""
    scheme, bucket, key = url.parts
    try:
        store = _open_store(scheme, bucket, surroundings(), url.query)  # tokens that are renewed in the environment make a new store
    except require("obstore.exceptions", "cloud").BaseError as error:
        raise InputError(f"{url.shown} cannot be reached: {_reason(error, url)}; {KEYS.get(scheme, 'check the address')}") from None
    return store, unquote(key) if scheme in WEB else key


def _checked_endpoint(endpoint: str) -> str:
    """An endpoint that is one.

    Raises:
        ConfigError: it does not say http or https, or no host.
    """
    parts = urlsplit(endpoint)
    if endpoint and (parts.scheme not in WEB or not parts.hostname):
        raise ConfigError(f"the endpoint {endpoint!r} of the store is no address; expected http://HOST:PORT or https://HOST")
    return endpoint


@lru_cache(maxsize=32)
def _open_store(scheme: str, bucket: str, told: tuple[tuple[str, str], ...], query: str) -> Any:
    stores = require("obstore.store", "cloud")
    environment = dict(told)
    endpoint = environment.get(ENDPOINT) if scheme in ("s3", "gs", "az") else None
    named = endpoint or next((value for name, value in told if name.startswith("AWS_ENDPOINT") or name.endswith("_ENDPOINT")), "")
    _checked_endpoint(named)
    client: dict[str, Any] = {
        "timeout": timedelta(seconds=_seconds(TIMEOUT, 20)),
        "connect_timeout": timedelta(seconds=min(5, _seconds(TIMEOUT, 20))),
        "allow_http": scheme == "http" or named.startswith("http://") or environment.get("AWS_ALLOW_HTTP") == "true",
    }
    retry = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=_seconds(PATIENCE, 60)),
        "backoff": {"init_backoff": FIRST_PAUSE, "max_backoff": LONGEST_PAUSE, "base": 2.0},
    }
    settings: dict[str, Any] = {}
    if scheme == "s3":
        settings = {**_profile(environment), **({"endpoint": endpoint} if endpoint else {})}
        _checked_endpoint(settings.get("endpoint", ""))
        return stores.S3Store(bucket, client_options=client, retry_config=retry, config=settings)
    if scheme == "gs":
        if endpoint:
            key = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
            settings = {"service_account_key": json.dumps(key)}
            client["allow_http"] = endpoint.startswith("http://")
        return stores.GCSStore(bucket, client_options=client, retry_config=retry, config=settings)
    if scheme == "az":
        settings = {"endpoint": endpoint} if endpoint else {}
        return stores.AzureStore(bucket, client_options=client, retry_config=retry, config=settings)
    return stores.HTTPStore.from_url(f"{scheme}://{bucket}{'?' if query else ''}{query}", client_options=client, retry_config=retry)


def _profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Keys, region and endpoint of a profile in ~/.aws, where the environment holds no keys; obstore does not look there."""
    if "AWS_ACCESS_KEY_ID" in environment or environment.get("AWS_SKIP_SIGNATURE") == "true":
        return {}
    name = environment.get("AWS_PROFILE", "default")
    files = [
        environment.get("AWS_CONFIG_FILE", "~/.aws/config"),
        environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ]
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([Path(file).expanduser() for file in files], encoding="utf-8")
    except configparser.Error as error:
        raise ConfigError(f"{' or '.join(files)} cannot be read: {str(error).splitlines()[0]}") from None
    keys = {
        "aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key", "aws_session_token": "session_token",
        "region": "region", "endpoint_url": "endpoint",
    }  # fmt: skip
    sections = [section for section in (f"profile {name}", name) if parser.has_section(section)]
    told = {theirs: value for section in sections for theirs, value in parser.items(section)}
    return {ours: told[theirs] for theirs, ours in keys.items() if theirs in told}


@contextmanager
def telling(url: URL, doing: str) -> Iterator[None]:
    """Errors of the store as ours, with the URL.

    Raises:
        MissingInputError: nothing there.
        InputError: access refused.
        UnreachableError: the store does not answer, or not as it should, after all tries.
    """
    errors = require("obstore.exceptions", "cloud")
    try:
        yield
    except (errors.NotFoundError, FileNotFoundError) as error:
        raise _without_bucket(error, url, doing) or MissingInputError(f"there is nothing at {url.shown}") from None
    except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
        raise InputError(
            f"{url.shown} {doing}: access was refused ({_reason(error, url)}); check the credentials: "
            f"{KEYS.get(url.parts[0], 'a signed link may have run out')}"
        ) from None
    except (errors.BaseError, OSError) as error:
        if any(host in str(error) for host in METADATA):
            raise InputError(f"{url.shown} {doing}: no keys of the store were found; {KEYS[url.parts[0]]}") from None
        tried = f"; it was tried up to {RETRIES + 1} times in up to {_seconds(PATIENCE, 60):g} s ({PATIENCE})"
        once = isinstance(error, errors.NotSupportedError) or REFUSED.search(str(error))
        unreachable = UnreachableError(f"{url.shown} {doing}: {_reason(error, url)}{'' if once else tried}")
        raise _without_bucket(error, url, doing) or unreachable from None


def _without_bucket(error: Exception, url: URL, doing: str) -> InputError | None:
    """What is to be said where the store has no such bucket; None where that is not so."""
    if not any(word in str(error) for word in NO_BUCKET):
        return None
    found = f"the store has no bucket {url.parts[1]!r}"
    return InputError(f"{url.shown} {doing}: {found}; check its name, and the endpoint of the store (--endpoint)")


def patiently(url: URL, doing: str, ask: Callable[[Any, str], T]) -> T:
    """What a store answers, asked again where obstore does not do so: when the answer to a listing, a removal or an upload breaks off.

    Args:
        url: of what is asked for.
        doing: what it is for, `cannot be read`.
        ask: takes the store and the key; asking twice does no harm.

    Raises:
        MissingInputError, InputError, UnreachableError: as `telling`.
    """
    began, pause = time.monotonic(), FIRST_PAUSE.total_seconds()
    while True:
        try:
            with telling(url, doing):
                return ask(*store_of(url))
        except UnreachableError as error:
            if not _broke_off(str(error)) or time.monotonic() - began + pause > _seconds(PATIENCE, 60):
                raise
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, LONGEST_PAUSE.total_seconds())


def _broke_off(said: str) -> bool:
    """Whether an answer broke off, for which obstore does not ask again, with tries left."""
    return "HTTP error" in said and f"after {RETRIES} retries" not in said


def _reason(error: Exception, url: URL) -> str:
    """The first lines of what obstore says, without its debugging output, and without a signature."""
    said = str(error).split("\n\nDebug source:")[0].split("\n")
    whole = " ".join(line.strip() for line in said if line.strip())
    return (whole.replace(f"?{url.query}", "?...") if url.query else whole)[:400]
