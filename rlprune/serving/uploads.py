"""The pictures of a request, read in bounded memory and time."""

from __future__ import annotations

from typing import Any

import anyio
from fastapi import Request, UploadFile
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile as StarletteUpload
from starlette.types import Message, Receive

from rlprune.serving.limits import Limits
from rlprune.serving.refusals import RefusedError

HOW_TO_SEND = "send one picture as image/*, or several as files of multipart/form-data"
_LONGEST_NAME = 200


async def pictures_of(request: Request, limits: Limits) -> list[tuple[str | None, bytes]]:
    """The names and contents of a request's pictures; a picture that is a request of its own has no name.

    Args:
        request: not read yet.
        limits: what may be sent.

    Raises:
        RefusedError: it is too large, takes too long, or holds something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind.startswith("image/") or kind == "multipart/form-data"):
        raise RefusedError(415, f"the content type is {kind[:100]!r}: {HOW_TO_SEND}")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.max_bytes:
        raise _too_many_bytes(limits)
    bounded = Request(request.scope, _bounded(request.receive, limits))
    try:
        with anyio.fail_after(limits.upload_seconds):
            if kind.startswith("image/"):
                return [(None, await bounded.body())]
            return await _files_of(bounded, limits)
    except TimeoutError as error:
        raise RefusedError(408, f"the request did not arrive within {limits.upload_seconds:g} seconds") from error


def _bounded(receive: Receive, limits: Limits) -> Receive:
    """The messages of a request, until they are too many bytes."""
    n_bytes = 0

    async def counted() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > limits.max_bytes:
            raise _too_many_bytes(limits)
        return message

    return counted


def _too_many_bytes(limits: Limits) -> RefusedError:
    return RefusedError(413, f"the request has more than {limits.max_megabytes:g} MiB: send fewer or smaller pictures")


async def _files_of(request: Request, limits: Limits) -> list[tuple[str | None, bytes]]:
    """The files of a form."""
    try:
        async with request.form(max_files=limits.max_pictures, max_fields=limits.max_pictures) as form:
            return [await _file(name, value) for name, value in form.multi_items()]
    except FormParserError as error:  # which Starlette 0.38 lets through
        raise RefusedError(400, f"the form cannot be read: {error}") from error


async def _file(field: str, value: Any) -> tuple[str | None, bytes]:
    if not isinstance(value, UploadFile | StarletteUpload):
        raise RefusedError(422, f"the field {field[:_LONGEST_NAME]!r} of the form is no file: {HOW_TO_SEND}")
    return (value.filename or "")[:_LONGEST_NAME] or None, await value.read()
