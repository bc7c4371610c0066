"""The body of a request: read under bounds of bytes, parts and time, and refused as soon as one is passed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from coverslip.data.reading import FileContent
from coverslip.serve.limits import Limits
from coverslip.serve.refusals import Refusal

FIELD = "images"
FILES_OF_A_SAMPLE = 16
"""Parts that a sample of several channels may have, for the bound on the number of parts."""

NAME_LENGTH = 500


class Uploads:
    """Counts the bytes of all bodies that are held."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held = 0

    @asynccontextmanager
    async def files(self, request: Request) -> AsyncIterator[list[FileContent]]:
        """The parts `images` of a request, held inside the block.

        Raises:
            Refusal: 400 not multipart, or damaged; 408 too slow; 413 too large; 422 no images; 429 too much at once.
        """
        took = 0

        def count(more: int) -> None:
            nonlocal took
            took += more
            self.held += more
            if took > self._limits.body_bytes:
                raise _too_large(self._limits)
            if self.held > self._limits.uploads_bytes:
                raise Refusal(429, "too many images are being sent at one time; try again soon", headers={"Retry-After": "1"})

        try:
            self._check_head(request)
            yield await self._read(_Counted(request, count))
        finally:
            self.held -= took

    def _check_head(self, request: Request) -> None:
        """Refuse by the headers alone what will not be taken."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise Refusal(415, f"expected multipart/form-data with a field {FIELD!r}, found {kind or 'no content type'}")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.body_bytes:
            raise _too_large(self._limits)

    async def _read(self, request: Request) -> list[FileContent]:
        try:
            async with (
                asyncio.timeout(self._limits.upload_seconds),
                request.form(max_files=self._limits.images * FILES_OF_A_SAMPLE, max_fields=8, max_part_size=65_536) as form,
            ):
                sent = [part for part in form.getlist(FIELD) if isinstance(part, UploadFile)]
                files = [FileContent(_plain(part.filename or ""), await part.read()) for part in sent]
        except TimeoutError:
            raise Refusal(408, f"the request did not arrive within {self._limits.upload_seconds:g} seconds") from None
        except HTTPException as error:  # Starlette's, of a body that is no multipart form
            raise Refusal(error.status_code, f"the body cannot be read: {error.detail}") from None
        except ClientDisconnect:
            raise Refusal(400, "the client went away") from None
        if not files:
            raise Refusal(422, f"there is no image in the request: send files in the field {FIELD!r}")
        return files


class _Counted(Request):
    """A request whose body is counted while it comes."""

    def __init__(self, request: Request, count: Callable[[int], None]) -> None:
        async def receive() -> Message:
            message = await request.receive()
            if message["type"] == "http.request":
                count(len(message.get("body", b"")))
                if not message.get("more_body", False):
                    request.scope["coverslip.body_read"] = True
            return message

        super().__init__(request.scope, receive)


def _plain(name: str) -> str:
    """A name for the answer: one line of at most `NAME_LENGTH` characters, `/` between folders."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in name.replace("\\", "/"))
    return shown[-NAME_LENGTH:] or "image"


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"the body is larger than {limits.body_bytes / 1e6:g} MB; send fewer or smaller images at a time")
