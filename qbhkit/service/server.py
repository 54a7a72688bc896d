"""Run the service on a port: who may reach it, and the settings of uvicorn."""

import ipaddress
import logging
import math
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from qbhkit.errors import QbhError
from qbhkit.service.app import Recognise, ServiceConfig, create_app

_SHORTEST_TOKEN = 16  # characters


def read_token(path: Path) -> str:
    """Return the credential that a file holds, a word of at least 16 printable ASCII characters.

    Raises:
        QbhError: if the file cannot be read or holds anything else.
    """
    try:
        token = path.read_text("utf-8", "replace").strip()
    except OSError as error:
        raise QbhError(f"{path} cannot be read ({error.strerror}): name another file.") from None
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
        app = create_app(*load(), config, lambda: ready(address))
        uvicorn.Server(settings(app, config)).run([listener])


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


def settings(app: FastAPI, config: ServiceConfig) -> uvicorn.Config:
    """Return uvicorn's settings: clients that stall on purpose are left to a reverse proxy."""
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level=logging.WARNING,
        limit_concurrency=128,  # connections; beyond, 503: neither disk nor file table fills up
        h11_max_incomplete_event_size=16_384,  # bytes of a request's head
        timeout_keep_alive=10,  # seconds
        timeout_graceful_shutdown=math.ceil(config.timeout_s),
    )
