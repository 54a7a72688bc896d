"""The service on a port: who may reach it, and how long a connection may stay idle."""

import asyncio
import ipaddress
import logging
import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from qbhkit.errors import QbhError
from qbhkit.service.app import Recognise, ServiceConfig, create_app

_IDLE_S = 10.0  # a connection without a whole request is closed after this time
_SHORTEST_TOKEN = 16  # letters


def read_token(path: Path) -> str:
    """Return the credential that a file holds, a line of at least 16 printable ASCII characters.

    Raises:
        QbhError: if the file holds anything else.
    """
    token = path.read_text("utf-8", "replace").strip()
    if len(token) < _SHORTEST_TOKEN or not all("!" <= letter <= "~" for letter in token):
        raise QbhError(
            f"{path} must hold one word of at least {_SHORTEST_TOKEN} letters, digits or signs: "
            "write one with 'openssl rand -hex 32'."
        )
    return token


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(
    load: Callable[[], tuple[Recognise, int]],
    config: ServiceConfig,
    host: str,
    port: int,
    ready: Callable[[str], None],
) -> None:
    """Serve until a signal to stop comes; requests under way are answered first.

    Args:
        load: returns the recogniser and its number of songs.
        config: limits and credential.
        host: address to bind; one that other machines can reach needs a credential.
        port: 0 takes a free one.
        ready: called with the address when the service answers there.

    Raises:
        QbhError: if the address cannot be bound, or would be open to everybody.
    """
    if config.token is None and not is_loopback(host):
        raise QbhError(
            f"On {host} other machines can reach the service: give it a credential with "
            "--token-file, or bind it to 127.0.0.1."
        )
    shown = f"[{host}]" if ":" in host else host
    with bind(host, port) as listener:
        address = f"http://{shown}:{listener.getsockname()[1]}"
        app = create_app(*load(), config)
        Server(app, config, lambda: ready(address)).run([listener])


def bind(host: str, port: int) -> socket.socket:
    """Bind a port, 0 for a free one; clients can connect from now on and wait for an answer.

    Raises:
        QbhError: if it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY, without which an answer waits 40 ms, only if TCP is named
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # until then a second service could bind the same port
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise QbhError(
            f"Port {port} of {host} cannot be used ({reason}): choose with --host and --port."
        ) from None
    return listener


class Server(uvicorn.Server):
    """Run an application of :func:`qbhkit.service.app.create_app`.

    Args:
        app: the application.
        config: its ``timeout_s`` is how long requests under way may take after a signal to stop.
        ready: called when the service answers.
    """

    def __init__(self, app: FastAPI, config: ServiceConfig, ready: Callable[[], None]) -> None:
        settings = uvicorn.Config(
            app,
            http=_Impatient,
            ws="none",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_level=logging.WARNING,
            timeout_graceful_shutdown=math.ceil(config.timeout_s),
        )
        super().__init__(settings)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, and call ``ready``."""
        await super().startup(sockets)
        self._ready()


class _Impatient(H11Protocol):
    """Close a connection that sends no whole request for a while.

    uvicorn closes idle connections between requests only: one that never finishes the head of its
    first request, or the body of a refused one, would stay open for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._wire = _Wire(transport, self.loop, lambda: self.conn.their_state is h11.SEND_BODY)
        super().connection_made(self._wire)  # type: ignore[arg-type]
        self._expect_request_after(None)

    def data_received(self, data: bytes) -> None:
        if not self._wire.hung_up:
            super().data_received(data)

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()
        self._expect_request_after(answered)

    def _expect_request_after(self, answered: Any) -> None:
        def close() -> None:
            if self.cycle is answered:
                self._wire.cut()

        self.loop.call_later(_IDLE_S, close)


class _Wire:
    """Close a connection in two steps, so that a client that still sends can read its answer.

    Closing a socket with unread data resets the connection and loses the answer: the client would
    not learn why its recording was refused (RFC 9112, section 9.6).

    Args:
        transport: used for everything but closing.
        loop: of the transport.
        sends: returns whether the client has more to send.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        sends: Callable[[], bool],
    ) -> None:
        self._transport, self._loop, self._sends = transport, loop, sends
        self.hung_up = False
        self.cut = transport.close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self.hung_up or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing() or not self._sends():
            self.cut()
            return
        self.hung_up = True
        self._transport.write_eof()
        self._transport.resume_reading()  # what arrives is discarded
        self._loop.call_later(_IDLE_S, self.cut)
