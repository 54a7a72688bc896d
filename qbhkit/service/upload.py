"""Write a request's body to a file, within limits of size and time."""

import asyncio
import os
from pathlib import Path
from tempfile import mkstemp

from fastapi import HTTPException, Request

from qbhkit.audio import AUDIO_SUFFIXES


async def receive(
    request: Request, folder: Path, name: str, most_bytes: int, timeout_s: float
) -> Path:
    """Stream a body into a new file.

    Args:
        request: whose body has not been read.
        folder: where the file is written.
        name: of the recording; its suffix is kept if it is an audio suffix.
        most_bytes: a longer body is refused: before it is read if its length is declared, else at
            the first byte too many.
        timeout_s: for the whole body.

    Returns:
        The file, which the caller must delete.

    Raises:
        HTTPException: 408, 413 or 415; nothing is left in the folder.
        ClientDisconnect: if the client has left; nothing is left either.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise HTTPException(415, "Send the recording itself as the body, not a form with it.")
    too_large = HTTPException(413, f"The recording has more than {most_bytes / 1e6:g} MB.")
    if int(request.headers.get("content-length", 0)) > most_bytes:
        raise too_large
    suffix = Path(name).suffix.lower()
    handle, path = mkstemp(suffix if suffix in AUDIO_SUFFIXES else "", "hum-", folder)
    try:
        with os.fdopen(handle, "wb") as file:
            async with asyncio.timeout(timeout_s):
                async for block in request.stream():
                    if file.tell() + len(block) > most_bytes:
                        raise too_large
                    file.write(block)
    except TimeoutError:
        os.unlink(path)
        raise HTTPException(408, f"The recording took more than {timeout_s:g} s to send.") from None
    except BaseException:
        os.unlink(path)
        raise
    return Path(path)
